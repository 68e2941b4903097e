"""The doctor's look at the detectors: state, owner, the golden photo here and there, models, circuits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from actors import golden
from actors.errors import DetectorFault
from actors.face_model import FaceModel
from actors.faces import Detected, Failed, Failure, Health, Priority, State
from actors.guard import Guard
from actors.images import PreparedImage
from actors.models import ready_model
from actors.session import OnnxSessionOpener, ProviderNames
from actors.settings import DetectorSettings
from cluster.client.registry import ClientEntry, read_clients
from cluster.connection.cluster_api import ActorEntry, ClusterApi, Node
from cluster.errors import NotAnswered
from cluster.node.checks import REMEDIES
from cluster.node.contract import RESOURCE
from cluster.node.findings import Finding, ok, warn, wrong
from cluster.settings import Settings

_ANSWER_WITHIN_S = 8.0
_PROVE_WITHIN_S = 30.0
_LATELY_S = 600.0
_MIN_IOU = 0.9
_MAX_SCORE_OFF = 0.05


class Detectors:
    """Every detector of a cluster.

    Args:
        settings: of whoever asks.
        cluster: asked for them.
        nodes: its machines.
        cpu: this machine's own answer for the golden photo.
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
        """One after the other.

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
            health = await self._health(name)
            entry = entries.get(name)
            if health is None:
                yield _away(name, entry, num_units, len(names))
                continue
            if health.state is State.FAULTY:
                # Whoever asks has perhaps just mended it.
                health = await self._tried_again(health)
            where = health.host
            for each in _state(health, entry):
                yield each.at(where)
            models[name] = health.stamp.model
            if health.state is State.READY:
                for each in await self._golden(health):
                    yield each.at(where)
        if len(set(models.values())) > 1:
            yield wrong(
                "models",
                "; ".join(f"{name} has {model}" for name, model in models.items()),
                "Give all the same: `rayface remove` the odd one; it is placed anew by your settings.",
            )
        for each in _circuits(await read_clients(self._cluster)):
            yield each

    def _placed(self, names: Sequence[str], num_units: int) -> Iterator[Finding]:
        if num_units == 0:
            yield wrong(
                "devices",
                f"no machine lends a device (a `{RESOURCE}` unit)",
                "On the machine with the GPU: `rayface join HEAD`; `rayface doctor HEAD` there if it fails.",
            )
        elif not names:
            yield warn(
                "detectors",
                f"{num_units} device(s) and no detector yet",
                "The first client places them; `rayface place` does it now.",
            )
        else:
            yield ok("devices", f"{num_units} lent, {len(names)} detector(s)")

    async def _health(self, name: str) -> Health | None:
        try:
            return await self._cluster.health(name, 0.0, timeout_s=_ANSWER_WITHIN_S)
        except NotAnswered:
            return None

    async def _tried_again(self, health: Health) -> Health:
        """After the device was opened anew and has tried the golden photo."""
        wait_s = _PROVE_WITHIN_S - 1.0
        try:
            return await self._cluster.self_test(health.name, wait_s, timeout_s=_PROVE_WITHIN_S)
        except NotAnswered:
            return health

    async def _golden(self, health: Health) -> list[Finding]:
        """The golden photo on the device and on this machine's CPU: the same face, and how long each took."""
        name = "golden photo"
        image = golden.photos(1, health.shapes[0])[0]
        try:
            answers = await self._cluster.detect(
                health.name, [image], Priority.INTERACTIVE, _PROVE_WITHIN_S, timeout_s=_PROVE_WITHIN_S
            )
        except NotAnswered as error:
            return [wrong(name, f"{health.name} did not answer it: {error}", "See above.")]
        (outcome,) = answers
        if not isinstance(outcome, Detected):
            why = outcome.detail if isinstance(outcome, Failed) else str(outcome)
            return [wrong(name, f"{health.name} failed on it: {why}", "See above.")]
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
            here = await asyncio.to_thread(self._cpu, self._settings.detector, image)
        except Exception as error:
            # Whatever keeps this machine's own CPU from it says nothing of the device.
            said = f"{health.name} found its face in {outcome.times.run_ms:.1f} ms on {health.provider}"
            return [warn(name, f"{said}; no CPU here to compare it with: {error}", "Set rayface up again.")]
        return [agreement(there, here)]


def on_cpu(settings: DetectorSettings, image: PreparedImage) -> dict[str, Any]:
    """This machine's own answer for the golden photo; takes the better of two times.

    Raises:
        DetectorFault: there is no model here, or it does not run, or does not find the face.
    """
    wanted = ProviderNames["cpu"]
    model = FaceModel(ready_model(settings), OnnxSessionOpener("cpu"), settings, Guard(1), provider=wanted)
    times: list[float] = []
    for _ in range(2):
        faces = model.detect([image])[0]
        times.append(model.last_run_ms)
    if problem := golden.problem(faces):
        raise DetectorFault(f"it found {problem}")
    return {"provider": model.provider, "ms": min(times), "box": faces[0].box, "score": faces[0].score}


def agreement(there: Mapping[str, Any], cpu: Mapping[str, Any]) -> Finding:
    """A device's answer for the golden photo beside a CPU's: `provider`, `ms`, `box` and `score` of each."""
    overlap, off = golden.iou(there["box"], cpu["box"]), abs(there["score"] - cpu["score"])
    said = (
        f"{there['provider']} {there['ms']:.1f} ms, this CPU {cpu['ms']:.1f} ms; "
        f"boxes agree to IoU {overlap:.3f}, scores to {off:.3f}"
    )
    if overlap < _MIN_IOU or off > _MAX_SCORE_OFF:
        return warn("golden photo", said, REMEDIES[Failure.DEVICE_LIES])
    return ok("golden photo", said)


def _away(name: str, entry: ActorEntry | None, num_units: int, num_names: int) -> Finding:
    state = entry.state if entry else "unknown to Ray"
    if entry and entry.num_restarts:
        state += f", {entry.num_restarts} restarts"
    if entry and entry.cause:
        state += f": {entry.cause}"
    if num_names > num_units:
        return warn(
            "detector",
            f"{name} does not answer ({state}); there are more detectors than lent devices",
            f"If its machine is gone for good: `rayface remove {name}`. Else let that machine join again.",
        )
    return wrong(
        "detector",
        f"{name} does not answer ({state})",
        "If it is restarting, wait; else see whether its machine is on, joined and reachable.",
    )


def _state(health: Health, entry: ActorEntry | None) -> Iterator[Finding]:
    restarts = f", {entry.num_restarts} restarts" if entry else ""
    last = f"; the process before it ended itself ({health.last_words})" if health.last_words else ""
    who = f"{health.name} (pid {health.pid}, {health.device}{restarts}{last})"
    if health.state is State.READY and health.provider == health.provider_requested:
        yield ok("detector", f"{who} is ready on {health.provider}")
    elif health.state is State.READY:
        yield wrong(
            "detector",
            f"{who} runs on {health.provider}, and {health.provider_requested} was asked for",
            REMEDIES[Failure.DEVICE_UNAVAILABLE],
        )
    elif health.failure is not None and health.state is State.FAULTY:
        advice = REMEDIES.get(health.failure, "`ray logs actor` has more.")
        yield wrong("detector", f"{who} is faulty ({health.failure}): {health.detail}", advice)
    else:
        yield warn("detector", f"{who} is {health.state}: {health.detail}", "Wait a moment.")
    if health.last_words and health.uptime_s < _LATELY_S:
        yield warn(
            "restarts",
            f"the process of {health.name} ended itself {health.uptime_s:.0f} s ago: {health.last_words}",
            "Once is survived without a loss; if it comes again, update or go back with the GPU's driver.",
        )
    if health.num_quarantined:
        yield warn(
            "quarantine",
            f"{health.num_quarantined} photo(s) ended the process of {health.name} twice and are not run now",
            "Nothing need be done: their outcome is failed (quarantined). They may be tried again after "
            "detector.quarantine_s, an hour if nobody set it otherwise.",
        )
    else:
        yield ok("quarantine", "no photo is kept from the device")


def _circuits(notes: Sequence[ClientEntry]) -> Iterator[Finding]:
    for note in notes:
        for each in note.status["detectors"]:
            if each["circuit"] != "closed":
                yield warn(
                    "circuit",
                    f"{note.client} does not ask {each['name']}: {each['detail']}",
                    "It closes by itself when the golden photo is found; by hand: `rayface circuit reset`.",
                )
        used = sum(note.status["fallback"].values())
        if used:
            reasons = ", ".join(f"{num} for {reason}" for reason, num in note.status["fallback"].items())
            yield warn(
                "fallback",
                f"{note.client} has answered {used} image(s) on its CPU: {reasons}",
                "The reason says what to look at.",
            )
