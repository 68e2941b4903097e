"""The doctor's checks of detectors: state, restarts, the golden photo there and here, models, circuits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from actors import golden
from actors.call_settings import OF_FAMILY
from actors.errors import DetectorFault
from actors.face_model import FaceModel
from actors.faces import Detected, Failed, Failure, Health, Priority, State
from actors.guard import Guard
from actors.images import PreparedImage
from actors.models import ready_model
from actors.session import OnnxSessionOpener, ProviderNames
from actors.settings import OF_CALL, OF_MODEL, DetectorSettings
from cluster.client.fitting import Fitting, differences
from cluster.client.registry import ClientEntry, read_clients
from cluster.connection.cluster_api import ActorEntry, ClusterApi, Node
from cluster.errors import NotAnswered
from cluster.node.checks import REMEDIES
from cluster.node.contract import RESOURCE
from cluster.node.findings import Finding, ok, warn, wrong
from cluster.settings import Settings

_ANSWER_WITHIN_S = 8.0
_TEST_WITHIN_S = 30.0
_ASK_AGAIN = "Wait a moment, and ask again."
#: A restart within this time is worth a look.
_RECENTLY_S = 600.0
_MIN_IOU = 0.9
_UPGRADE = "docs/two-machines.md says in which order machines are upgraded."
_MAX_SCORE_DIFFERENCE = 0.05


class Detectors:
    """Checks every detector of a cluster.

    Args:
        settings: of this machine.
        cluster: answers the questions about it.
        nodes: the machines of the cluster.
        cpu: makes this machine's own answer for the golden photo; None takes `on_cpu`.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: ClusterApi,
        nodes: Sequence[Node],
        cpu: Callable[[DetectorSettings, PreparedImage], Mapping[str, Any]] | None = None,
    ) -> None:
        self._settings = settings
        self._cpu = cpu or on_cpu
        self._cluster = cluster
        self._nodes = nodes

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield one finding after the other, detector by detector.

        Raises:
            NotAnswered: the cluster does not answer.
        """
        names = await self._cluster.list_detectors(timeout_s=_ANSWER_WITHIN_S)
        entries = await self._cluster.actor_entries(timeout_s=_ANSWER_WITHIN_S)
        num_units = int(sum(each.resources.get(RESOURCE, 0) for each in self._nodes))
        for each in self._placed(names, num_units):
            yield each
        models: dict[str, str] = {}
        for name in names:
            entry = entries.get(name)
            try:
                health = await self._cluster.health(name, 0.0, timeout_s=_ANSWER_WITHIN_S)
            except NotAnswered as error:
                if error.failure is Failure.VERSION_SKEW:
                    yield wrong("detector", f"{name}: {error}".rstrip("."), _UPGRADE)
                else:
                    yield _absent(name, entry, num_units, len(names))
                continue
            if health.state is State.FAULTY:
                # Perhaps the person who asks has just mended it.
                health = await self._tested_again(health)
            where = health.host
            for each in _state(health, entry):
                yield each.at(where)
            models[name] = health.stamp.model
            for each in _settings(health, self._settings):
                yield each.at(where)
            if health.state is State.READY:
                for each in await self._golden(health):
                    yield each.at(where)
        if len(set(models.values())) > 1:
            yield wrong(
                "models",
                "; ".join(f"{name} has {model}" for name, model in models.items()),
                "Give all of them the same model: with your settings, `rayface place --replace`.",
            )
        for each in _circuits(await read_clients(self._cluster)):
            yield each

    def _placed(self, names: Sequence[str], num_units: int) -> Iterator[Finding]:
        if num_units == 0:
            yield wrong(
                "devices",
                f"no machine lends a device (a `{RESOURCE}` unit)",
                "On the machine with the GPU, run `rayface join HEAD`; if that fails, `rayface doctor HEAD`.",
            )
        elif not names:
            yield warn(
                "detectors",
                f"{num_units} device(s) and no detector yet",
                "The first client places the detectors; `rayface place` does it now.",
            )
        else:
            yield ok("devices", f"{num_units} lent, {len(names)} detector(s)")

    async def _tested_again(self, health: Health) -> Health:
        """The detector's health after it has opened its device again and tried the golden photo."""
        wait_s = _TEST_WITHIN_S - 1.0
        try:
            return await self._cluster.self_test(health.name, wait_s, timeout_s=_TEST_WITHIN_S)
        except NotAnswered:
            return health

    async def _golden(self, health: Health) -> list[Finding]:
        """Compare the golden photo's face on the device and on this machine's CPU, and how long each took."""
        name = "golden photo"
        image = golden.photos(1, health.shapes[0])[0]
        try:
            # By the family's own thresholds: those that a person chose say nothing about the device.
            answers = await self._cluster.detect(
                health.name,
                [image],
                Priority.INTERACTIVE,
                _TEST_WITHIN_S,
                settings=OF_FAMILY,
                timeout_s=_TEST_WITHIN_S,
            )
        except NotAnswered as error:
            return [wrong(name, f"{health.name} did not answer: {error}", "See what is wrong above.")]
        (outcome,) = answers
        if not isinstance(outcome, Detected):
            detail = outcome.detail if isinstance(outcome, Failed) else str(outcome)
            return [wrong(name, f"{health.name} failed on it: {detail}", "See what is wrong above.")]
        if problem := golden.problem(outcome.faces):
            return [wrong(name, f"{health.name} found {problem}", REMEDIES[Failure.DEVICE_LIES])]
        face = outcome.faces[0]
        there = {
            "provider": health.provider,
            "ms": outcome.times.run_ms,
            "box": face.box,
            "score": face.score,
        }
        try:
            here = await asyncio.to_thread(self._cpu, _as_placed(self._settings.detector, health), image)
        except Exception as error:
            # An error of this machine's own CPU says nothing about the device.
            found = f"{health.name} found its face in {outcome.times.run_ms:.1f} ms on {health.provider}"
            return [
                warn(
                    name,
                    f"{found}; this machine's CPU could not be asked for comparison: {error}",
                    "Set rayface up again: `python3 start.py`.",
                )
            ]
        return [agreement(there, here)]


def _as_placed(own: DetectorSettings, health: Health) -> DetectorSettings:
    """This machine's settings with the detector's model and tensors, and the family's thresholds."""
    placed = health.settings or {}
    chosen = {name: placed[name] for name in OF_MODEL if name in placed}
    kept = {name: value for name, value in own.model_dump().items() if name not in OF_CALL}
    return DetectorSettings.model_validate(kept | chosen)


def _settings(health: Health, settings: Settings) -> Iterator[Finding]:
    """With which settings it was placed, where those differ from this machine's."""
    others = differences(health, settings.detector)
    if not others:
        return
    evidence = f"{health.name} was placed with {'; '.join(others)}"
    fitting = Fitting(settings, logging.getLogger("rayface.doctor"))
    if fitting.fault_of(health) is None:
        yield ok("settings", f"{evidence}. That concerns only how it works")
    elif settings.cluster.other_settings == "use":
        yield ok("settings", f"{evidence}. This machine's settings take it as it is")
    else:
        yield warn(
            "settings",
            f"{evidence}. A client with this machine's settings is refused",
            "Set the detector's, or place it anew with this machine's: `rayface place --replace`.",
        )


def on_cpu(settings: DetectorSettings, image: PreparedImage) -> dict[str, Any]:
    """This machine's own answer for the golden photo.

    Returns:
        `provider`, `ms` (the shorter of two runs), `box` (x1, y1, x2, y2 in pixels) and `score` (0..1).

    Raises:
        DetectorFault: there is no model here, or it does not run, or it does not find the face.
    """
    wanted = ProviderNames["cpu"]
    model = FaceModel(ready_model(settings), OnnxSessionOpener("cpu"), settings, Guard(1), provider=wanted)
    times: list[float] = []
    for _ in range(2):
        faces = model.detect([image])[0]
        times.append(model.last_run_ms)
    if problem := golden.problem(faces):
        raise DetectorFault(f"The CPU found {problem}.")
    return {"provider": model.provider, "ms": min(times), "box": faces[0].box, "score": faces[0].score}


def agreement(there: Mapping[str, Any], cpu: Mapping[str, Any]) -> Finding:
    """Compare a device's answer for the golden photo with a CPU's; both as `on_cpu` returns them."""
    overlap, difference = golden.iou(there["box"], cpu["box"]), abs(there["score"] - cpu["score"])
    evidence = (
        f"{there['provider']} {there['ms']:.1f} ms, this CPU {cpu['ms']:.1f} ms; "
        f"boxes agree to IoU {overlap:.3f}, scores to {difference:.3f}"
    )
    if overlap < _MIN_IOU or difference > _MAX_SCORE_DIFFERENCE:
        return warn("golden photo", evidence, REMEDIES[Failure.DEVICE_LIES])
    return ok("golden photo", evidence)


def _absent(name: str, entry: ActorEntry | None, num_units: int, num_names: int) -> Finding:
    state = entry.state if entry else "unknown to Ray"
    if entry and entry.num_restarts:
        state += f", {entry.num_restarts} restarts"
    if entry and entry.cause:
        state += f": {entry.cause}"
    if num_names > num_units:
        return warn(
            "detector",
            f"{name} does not answer ({state}); there are more detectors than lent devices",
            f"If its machine is gone for good, run `rayface remove {name}`; if not, let it join again.",
        )
    return wrong(
        "detector",
        f"{name} does not answer ({state})",
        "If it is restarting, wait. If not, check that its machine is on, has joined and can be reached.",
    )


def _state(health: Health, entry: ActorEntry | None) -> Iterator[Finding]:
    restarts = f", {entry.num_restarts} restarts" if entry else ""
    last_end = f"; the process before it ended itself ({health.last_words})" if health.last_words else ""
    name = f"{health.name} (pid {health.pid}, {health.device}{restarts}{last_end})"
    if health.state is State.READY and health.provider == health.provider_requested:
        yield ok("detector", f"{name} is ready on {health.provider}")
    elif health.state is State.READY:
        yield wrong(
            "detector",
            f"{name} runs on {health.provider}, and {health.provider_requested} was asked for",
            REMEDIES[Failure.DEVICE_UNAVAILABLE],
        )
    elif health.failure is not None and health.state is State.FAULTY:
        advice = REMEDIES.get(health.failure, "Its log says more: `ray logs actor` (docs/monitoring.md).")
        yield wrong("detector", f"{name} is faulty ({health.failure}): {health.detail}", advice)
    else:
        advice = REMEDIES[health.failure] if health.state is State.WAITING and health.failure else _ASK_AGAIN
        yield warn("detector", f"{name} is {health.state}: {health.detail}", advice)
    if health.last_words and health.uptime_s < _RECENTLY_S:
        yield warn(
            "restarts",
            f"the process of {health.name} ended itself {health.uptime_s:.0f} s ago: {health.last_words}",
            "One such end loses no photo. If it happens again, change the GPU's driver for another version.",
        )
    if health.num_quarantined:
        yield warn(
            "quarantine",
            f"{health.num_quarantined} photo(s) ended the process of {health.name} twice and are not run now",
            "Nothing need be done: their outcome is failed (quarantined). They may be tried again after "
            "detector.quarantine_s (an hour by default).",
        )
    else:
        yield ok("quarantine", "no photo is in quarantine")


def _circuits(clients: Sequence[ClientEntry]) -> Iterator[Finding]:
    for entry in clients:
        for each in entry.status["detectors"]:
            if each["circuit"] != "closed":
                yield warn(
                    "circuit",
                    f"{entry.client} does not ask {each['name']}: {each['detail']}",
                    "It closes by itself when the detector finds the golden photo, and at once by "
                    "`rayface circuit reset`.",
                )
        used = sum(entry.status["fallback"].values())
        if used:
            reasons = ", ".join(f"{num} for {reason}" for reason, num in entry.status["fallback"].items())
            yield warn(
                "fallback",
                f"{entry.client} has answered {used} image(s) on its CPU: {reasons}",
                "Look at what the reasons name; docs/resilience.md explains them.",
            )
