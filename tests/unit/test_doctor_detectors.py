"""What the doctor makes of a detector: its state, its restarts, and its answer for the golden photo."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors import golden
from actors.call_settings import OF_FAMILY
from actors.errors import ModelUnavailable
from actors.faces import Detected, Face, Failure, Health, State
from actors.models import CATALOGUE
from actors.settings import DetectorSettings
from cluster.client.status import ClientStatus, DetectorStatus
from cluster.connection.cluster_api import ActorEntry, Node
from cluster.doctor.detectors import Detectors, agreement
from cluster.node.findings import Finding, Verdict
from cluster.settings import load_settings
from tests.unit.fake_cluster import STAMP, FakeCluster, failed, health, lost

GPU = Node("bb", "10.0.0.2", "gpu", {"directml": 1.0})
FACE = Face(golden.BOX, 0.9, golden.LANDMARKS)  # type: ignore[arg-type]  # five pairs
CPU = {"provider": "CPUExecutionProvider", "ms": 70.0, "box": golden.BOX, "score": 0.9}


class Site(FakeCluster):
    """Detectors that find the golden face, unless told otherwise."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.entries = {name: ActorEntry("ALIVE", 0, "10.0.0.2", 11003) for name in self.healths}
        self.gone: set[str] = set()
        self.face: Face | None = FACE

    def answer(self, images: Sequence[Any]) -> Any:
        faces = (self.face,) if self.face else ()
        times = replace(Detected(stamp=STAMP, faces=(), width=1, height=1).times, run_ms=4.0)
        return [Detected(stamp=STAMP, times=times, faces=faces, width=320, height=320)]

    async def health(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
        if detector in self.gone:
            raise lost()
        return await super().health(detector, wait_s, timeout_s=timeout_s)


def look(site: Site, *nodes: Node, cpu: Any = lambda settings, image: CPU) -> list[Finding]:
    async def found() -> list[Finding]:
        made = Detectors(load_settings(), site, nodes or (GPU,), cpu)
        return [each async for each in made.findings()]

    return asyncio.run(found())


def one(found: Sequence[Finding], name: str) -> Finding:
    (only,) = (each for each in found if each.name == name)
    return only


def test_a_detector_that_is_well() -> None:
    site = Site()
    site.healths["FaceDetector"] = health(shapes=((320, 320),), uptime_s=5000)
    found = look(site)
    assert {each.verdict for each in found} == {Verdict.OK}
    assert "ready on CPUExecutionProvider" in one(found, "detector").evidence
    assert "4.0 ms, this CPU 70.0 ms; boxes agree to IoU 1.000" in one(found, "golden photo").evidence


@pytest.mark.parametrize(
    ("changes", "verdict", "says"),
    [
        (
            {"state": State.FAULTY, "failure": Failure.DEVICE_LIES, "detail": "NaN"},
            Verdict.WRONG,
            "is faulty (device_lies): NaN",
        ),
        ({"state": State.STARTING, "detail": "fetching"}, Verdict.WARN, "is starting: fetching"),
        ({"state": State.DRAINING, "detail": "bye"}, Verdict.WARN, "is draining: bye"),
        ({"provider": "Other"}, Verdict.WRONG, "runs on Other, and CPUExecutionProvider was asked for"),
    ],
)
def test_states(changes: dict[str, Any], verdict: Verdict, says: str) -> None:
    site = Site()
    site.healths["FaceDetector"] = health(shapes=((320, 320),), **changes)
    found = one(look(site), "detector")
    assert found.verdict is verdict
    assert found.where == "here"
    assert says in found.evidence
    assert found.advice


@pytest.mark.parametrize("failure", [each for each in Failure if each is not Failure.BUSY])
def test_every_fault_of_a_detector_has_its_advice(failure: Failure) -> None:
    site = Site()
    site.healths["FaceDetector"] = health(state=State.FAULTY, failure=failure, detail="it was so")
    assert one(look(site), "detector").advice


def test_a_detector_that_is_away() -> None:
    """Ray's own word for its state, its restarts and the last cause."""
    site = Site()
    site.gone.add("FaceDetector")
    site.entries["FaceDetector"] = ActorEntry("RESTARTING", 3, "10.0.0.2", cause="its node died")
    found = one(look(site), "detector")
    assert found.verdict is Verdict.WRONG
    assert "does not answer (RESTARTING, 3 restarts: its node died)" in found.evidence
    site.entries.clear()
    assert "unknown to Ray" in one(look(site), "detector").evidence


def test_a_detector_too_many_may_be_of_a_machine_that_is_gone() -> None:
    site = Site("FaceDetector", "FaceDetector-2")
    site.gone.add("FaceDetector-2")
    site.healths["FaceDetector"] = health(shapes=((320, 320),), uptime_s=5000)
    found = next(each for each in look(site) if each.verdict is not Verdict.OK)
    assert found.verdict is Verdict.WARN
    assert "rayface remove FaceDetector-2" in found.advice


def test_a_process_that_ended_itself_lately() -> None:
    site = Site()
    site.entries["FaceDetector"] = ActorEntry("ALIVE", 4, "10.0.0.2")
    site.healths["FaceDetector"] = health(shapes=((320, 320),), uptime_s=60, last_words="hung: a run")
    found = look(site)
    assert "4 restarts" in one(found, "detector").evidence
    assert "60 s ago: hung: a run" in one(found, "restarts").evidence
    site.healths["FaceDetector"] = health(shapes=((320, 320),), uptime_s=90000, last_words="hung: a run")
    assert not [each for each in look(site) if each.name == "restarts"], "long ago"


def test_photos_in_quarantine_are_mentioned() -> None:
    site = Site()
    site.healths["FaceDetector"] = health(shapes=((320, 320),), num_quarantined=2)
    assert one(look(site), "quarantine").evidence.startswith("2 photo(s)")


def test_no_device_and_no_detector() -> None:
    site = Site()
    site.healths.clear()
    assert one(look(site), "detectors").verdict is Verdict.WARN
    assert one(look(site, replace(GPU, resources={})), "devices").verdict is Verdict.WRONG


def test_models_that_differ() -> None:
    site = Site("FaceDetector", "FaceDetector-2")
    for name, model in (("FaceDetector", "a@1"), ("FaceDetector-2", "b@2")):
        site.healths[name] = health(name=name, shapes=((320, 320),), stamp=replace(STAMP, model=model))
    found = one(look(site), "models")
    assert found.verdict is Verdict.WRONG
    assert "FaceDetector has a@1; FaceDetector-2 has b@2" in found.evidence


def test_a_golden_face_that_is_not_found() -> None:
    site = Site()
    site.face = None
    found = one(look(site), "golden photo")
    assert found.verdict is Verdict.WRONG
    assert "0 faces instead of 1" in found.evidence


def test_a_golden_photo_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    monkeypatch.setattr(site, "answer", lambda images: [failed(Failure.DEVICE_FAILED)])
    assert "device_failed it was" in one(look(site), "golden photo").evidence


def test_a_device_that_is_a_little_off() -> None:
    """Still the face, but another answer than the CPU's."""
    x1, y1, x2, y2 = golden.BOX
    there = {"provider": "DmlExecutionProvider", "ms": 4.0, "box": (x1, y1, x2 + 20, y2), "score": 0.9}
    assert agreement(there, CPU).verdict is Verdict.WARN
    assert agreement({**there, "box": golden.BOX, "score": 0.7}, CPU).verdict is Verdict.WARN
    assert agreement({**there, "box": golden.BOX}, CPU).verdict is Verdict.OK


@pytest.mark.parametrize(
    "error", [ModelUnavailable("no model"), IndexError("no face"), ImportError("no ort")]
)
def test_a_cpu_that_cannot_be_compared(error: Exception) -> None:
    """Nothing is said against the device then, and its time is told all the same."""

    def fails(settings: Any, image: Any) -> Any:
        raise error

    found = one(look(Site(), cpu=fails), "golden photo")
    assert found.verdict is Verdict.WARN
    assert "4.0 ms" in found.evidence
    assert str(error) in found.evidence


def test_circuits_and_the_fallback_of_clients() -> None:
    site = Site()
    seen = DetectorStatus(
        name="FaceDetector",
        state="away",
        circuit="open",
        reason="detector_lost",
        detail="it was silent",
        since_s=1.0,
        retry_after_s=2.0,
        num_calls=0,
        num_failed=0,
        num_slow=0,
        num_opened=1,
        num_in_flight=0,
        last_error="it was silent",
    )
    status = ClientStatus("head:1", "", "", 0, 0, (seen,), {"circuit open": 3}, 0).as_dict()
    entry = {"client": "backend pid 7", "at": time.time(), "status": status}
    site.values["client/1"] = json.dumps(entry).encode()
    found = look(site)
    assert "backend pid 7 does not ask FaceDetector: it was silent" in one(found, "circuit").evidence
    assert "3 for circuit open" in one(found, "fallback").evidence


def test_a_faulty_detector_is_asked_to_try_again() -> None:
    """Whoever runs the doctor has perhaps just mended it; and one that is well is left alone."""
    site = Site()
    mended = health(shapes=((320, 320),), uptime_s=5000)
    site.healths["FaceDetector"] = replace(
        mended, state=State.FAULTY, failure=Failure.DEVICE_LIES, detail="It gave zeros."
    )

    async def opened_anew(detector: str, wait_s: float, *, timeout_s: float) -> Health:
        site.probes[detector] += 1
        site.healths[detector] = mended
        return mended

    site.self_test = opened_anew  # type: ignore[method-assign]  # its script
    assert "ready on" in one(look(site), "detector").evidence
    assert site.probes["FaceDetector"] == 1
    look(site)
    assert site.probes["FaceDetector"] == 1


def test_a_detector_with_other_settings_is_named() -> None:
    """A client with this machine's settings would be refused; the golden photo is compared by its model."""
    site, asked = Site(), list[Any]()

    def cpu(settings: Any, image: Any) -> Any:
        asked.append(settings)
        return CPU

    placed = DetectorSettings(model="yunet", input_size=320, score_threshold=0.95, num_lanes=2)
    site.healths["FaceDetector"] = health(
        shapes=((320, 320),),
        uptime_s=5000,
        settings=placed.model_dump(mode="json"),
        stamp=replace(STAMP, model=f"yunet@{CATALOGUE['yunet'].sha256}"),
    )
    found = one(look(site, cpu=cpu), "settings")
    assert found.verdict is Verdict.WARN
    assert "detector.model = yunet, and detector.model = centerface is wanted" in found.evidence
    assert "detector.input_size = 320, and 640 is wanted" in found.evidence
    assert "detector.num_lanes = 2 there and None here" in found.evidence
    assert "rayface place --replace" in found.advice
    assert (asked[0].model, asked[0].input_size, asked[0].score_threshold) == ("yunet", 320, None)
    assert site.settings == [OF_FAMILY]


def test_settings_that_change_no_answer_are_no_problem() -> None:
    site = Site()
    placed = DetectorSettings(batch_sizes=(1,), max_faces=3)
    site.healths["FaceDetector"] = health(
        shapes=((320, 320),),
        uptime_s=5000,
        settings=placed.model_dump(mode="json"),
        stamp=replace(STAMP, model=f"centerface@{CATALOGUE['centerface'].sha256}"),
    )
    found = one(look(site), "settings")
    assert found.verdict is Verdict.OK
    assert "max_faces" not in found.evidence
