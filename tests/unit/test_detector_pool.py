"""Many detectors, in virtual time: which is asked, what opens a circuit and what does not, what closes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from actors.faces import Detected, Failed, Failure, Outcome, Priority, Stamp, State
from cluster.client.circuit_breaker import CircuitState
from cluster.client.detector import Detector
from cluster.client.detector_pool import DetectorPool
from cluster.errors import DetectorNotReady, Fault, NotAnswered, Refused
from cluster.settings import CircuitSettings
from tests.unit.fake_cluster import FakeCluster, detected, failed, health, lost
from tests.virtual_time import run

SETTINGS = CircuitSettings(jitter=0.0)
CLOSED, OPEN, HALF_OPEN = CircuitState


def pool(cluster: FakeCluster, **changes: Any) -> DetectorPool:
    settings = SETTINGS.model_copy(update=changes)
    return DetectorPool(cluster, settings, logging.getLogger("test"))


async def started(cluster: FakeCluster, **changes: Any) -> DetectorPool:
    made = pool(cluster, **changes)
    await made.start(5.0)
    await made.look()
    made.watch()
    return made


async def ask(pool: DetectorPool, name: str = "FaceDetector", deadline_s: float = 10.0) -> Sequence[Outcome]:
    """One call with one image; no answer is a failure here too."""
    until = asyncio.get_running_loop().time() + deadline_s
    image: Any = type("Image", (), {"width": 1})()
    try:
        return await pool.ask(pool.detectors[name], [image], Priority.INTERACTIVE, until)
    except NotAnswered as error:
        return [failed(error.fault.failure)]


def state(pool: DetectorPool, name: str = "FaceDetector") -> CircuitState:
    return pool.detectors[name].circuit.state(asyncio.get_running_loop().time())


async def chosen(pool: DetectorPool) -> str:
    return (await pool.choose(asyncio.get_running_loop().time() + 1.0, patient=False)).name


def test_the_least_busy_of_the_ready_is_chosen() -> None:
    async def story() -> None:
        cluster = FakeCluster("a", "b", "c")
        cluster.healths["c"] = health(name="c", state=State.STARTING)
        made = await started(cluster)
        made.detectors["a"].num_in_flight = 8
        assert await chosen(made) == "b"
        made.detectors["b"].num_in_flight = 16
        assert await chosen(made) == "a"
        await made.close()

    run(story())


def test_one_that_left_is_passed_over_until_it_is_back() -> None:
    async def story() -> None:
        cluster = FakeCluster("a", "b")
        made = await started(cluster)
        made.detectors["b"].num_in_flight = 100
        cluster.silent.add("a")
        await asyncio.sleep(10.0)
        assert await chosen(made) == "b"
        assert state(made, "a") is CLOSED, "a blip opens nothing"
        cluster.silent.clear()
        await asyncio.sleep(10.0)
        assert await chosen(made) == "a"
        await made.close()

    run(story())


def test_a_new_machine_is_found_by_itself_and_one_of_another_cluster_is_forgotten() -> None:
    async def story() -> None:
        cluster = FakeCluster("a")
        made = await started(cluster)
        cluster.healths["b"] = health(name="b")
        await asyncio.sleep(10.0)
        made.detectors["a"].num_in_flight = 1
        assert await chosen(made) == "b"
        del cluster.healths["a"]
        await asyncio.sleep(10.0)
        assert list(made.detectors) == ["b"]
        await made.close()

    run(story())


def test_none_ready_says_why() -> None:
    async def story() -> None:
        cluster = FakeCluster("a")
        cluster.healths["a"] = health(state=State.FAULTY, detail="It lies.", failure=Failure.DEVICE_LIES)
        with pytest.raises(DetectorNotReady, match="It lies"):
            await pool(cluster).start(5.0)

    run(story())


def test_a_late_answer_of_an_earlier_owner_is_refused() -> None:
    """I2: the third layer."""
    detector = Detector("a", SETTINGS, 0.0)
    detector.hear(0.0, health(stamp=Stamp("a", "", "new", 200)))
    outcomes = detector.answered(0.0, [detected(1, 200), detected(1, 100)], 2)
    assert isinstance(outcomes[0], Detected)
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].reason is Failure.DETECTOR_LOST
    detector.hear(0.0, health(stamp=Stamp("a", "", "old", 100), pid=1))
    assert detector.epoch == 200
    assert isinstance(detector.answered(0.0, [detected(1, 300)], 1)[0], Detected)
    assert isinstance(detector.answered(0.0, [detected(1, 200)], 1)[0], Failed)


@pytest.mark.parametrize("failure", [Failure.DEVICE_FAILED, Failure.OUT_OF_MEMORY, Failure.INTERNAL])
def test_a_device_that_fails_call_after_call_opens_the_circuit(failure: Failure) -> None:
    """Ten of ten, not nine; then nobody is let through, with the reason."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        cluster.script = lambda images: [failed(failure) for _ in images]
        for _ in range(9):
            await ask(made)
        assert state(made) is CLOSED
        await ask(made)
        assert state(made) is OPEN
        with pytest.raises(Refused) as refused:
            await chosen(made)
        assert refused.value.fault.failure is failure
        assert refused.value.retry_after_s > 0
        await made.close()

    run(story())


@pytest.mark.parametrize(
    "failure",
    [Failure.BUSY, Failure.DEADLINE, Failure.CANCELLED, Failure.NOT_READY, Failure.QUARANTINED],
)
def test_what_says_nothing_about_the_device_opens_nothing(failure: Failure) -> None:
    """I3: a bad image, a full queue, an impatient caller, a restart."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        cluster.script = lambda images: [failed(failure) for _ in images]
        for _ in range(100):
            await ask(made)
        assert state(made) is CLOSED
        await made.close()

    run(story())


@pytest.mark.parametrize(
    "failure",
    [
        Failure.DEVICE_LIES,
        Failure.MODEL_UNAVAILABLE,
        Failure.DEVICE_HELD,
        Failure.DEVICE_UNAVAILABLE,
        Failure.VERSION_MISMATCH,
    ],
)
def test_a_lasting_fault_opens_the_circuit_at_once(failure: Failure) -> None:
    """Found by a call; asking ten times would not help."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        cluster.script = lambda images: lost(failure)
        await ask(made)
        assert state(made) is OPEN
        await made.close()

    run(story())


def test_a_faulty_detector_opens_it_without_any_call_and_a_proof_closes_it() -> None:
    """What it says of itself is enough; when it is well again, two golden photos close it, within seconds."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        cluster.healths["FaceDetector"] = health(
            state=State.FAULTY, detail="zeros", failure=Failure.DEVICE_LIES
        )
        await asyncio.sleep(3.0)
        assert state(made) is not CLOSED
        await asyncio.sleep(600.0)
        assert state(made) is not CLOSED
        assert cluster.probes["FaceDetector"] >= 5
        cluster.healths["FaceDetector"] = health()
        before = asyncio.get_running_loop().time()
        while state(made) is not CLOSED:
            await asyncio.sleep(0.1)
        assert asyncio.get_running_loop().time() - before < 10
        assert cluster.calls == []
        await made.close()

    run(story())


def test_silence_is_waited_for_and_then_opens_the_circuit() -> None:
    """A restart takes its time; longer than the grace is not a restart any more."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster, grace_s=30.0)
        cluster.silent.add("FaceDetector")
        await asyncio.sleep(25.0)
        assert state(made) is CLOSED
        await asyncio.sleep(15.0)
        assert state(made) is not CLOSED
        refused = made.refusal()
        assert refused is not None
        assert refused.fault.failure is Failure.DETECTOR_LOST
        assert "not been heard" in refused.fault.detail
        cluster.silent.clear()
        await asyncio.sleep(12.0)
        assert state(made) is CLOSED
        await made.close()

    run(story())


def test_a_start_that_never_ends_opens_it_too() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster, grace_s=30.0)
        cluster.healths["FaceDetector"] = health(state=State.STARTING, detail="warming up")
        await asyncio.sleep(25.0)
        assert state(made) is CLOSED
        await asyncio.sleep(15.0)
        assert state(made) is not CLOSED
        await made.close()

    run(story())


def test_a_detector_that_answers_everything_but_photos_is_at_fault() -> None:
    """Calls without an answer count while it is heard; while it is not, silence alone is judged."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1e6)
        made = await started(cluster)
        for _ in range(9):
            await ask(made, deadline_s=1.0)
        assert state(made) is CLOSED
        await ask(made, deadline_s=1.0)
        assert state(made) is not CLOSED
        await made.close()

        silent = FakeCluster(seconds=1e6)
        other = await started(silent, grace_s=300.0)
        silent.silent.add("FaceDetector")
        await asyncio.sleep(20.0)
        await asyncio.gather(*(ask(other, deadline_s=1.0) for _ in range(50)))
        assert state(other) is CLOSED
        await other.close()

    run(story())


def test_slow_runs_open_it() -> None:
    """A device that answers everything much too late."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster, slow_run_s=1.0)
        cluster.script = lambda images: [detected(1, run_ms=1500.0)]
        for _ in range(10):
            await ask(made)
        assert state(made) is OPEN
        await made.close()

    run(story())


def test_a_few_failures_among_many_answers_open_nothing() -> None:
    """Most of a call decides about it: one photo that the device fails on does not."""

    async def story() -> None:
        detector = Detector("a", SETTINGS, 0.0)
        for _ in range(100):
            detector.answered(0.0, [failed(Failure.DEVICE_FAILED), detected(1), detected(2)], 3)
        assert detector.circuit.state(0.0) is CLOSED
        for _ in range(100):
            detector.answered(
                0.0, [failed(Failure.DEVICE_FAILED), failed(Failure.DEVICE_FAILED), detected(2)], 3
            )
        assert detector.circuit.state(0.0) is OPEN

    run(story())


def test_a_silent_probe_is_a_failed_one() -> None:
    """And the next waits longer."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        cluster.silent.add("FaceDetector")
        await asyncio.sleep(300.0)
        assert state(made) is not CLOSED
        view = made.detectors["FaceDetector"].circuit.view(asyncio.get_running_loop().time())
        assert view.num_opened == 1
        assert 2 <= cluster.probes["FaceDetector"] <= 12
        await made.close()

    run(story())


def test_who_is_patient_waits_for_the_circuit_to_close() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        cluster.healths["FaceDetector"] = health(state=State.FAULTY, failure=Failure.DEVICE_LIES)
        await asyncio.sleep(3.0)
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(made.choose(loop.time() + 100.0, patient=True))
        await asyncio.sleep(20.0)
        assert not waiting.done()
        cluster.healths["FaceDetector"] = health()
        assert (await waiting).name == "FaceDetector"
        cluster.healths["FaceDetector"] = health(state=State.FAULTY, failure=Failure.DEVICE_LIES)
        await asyncio.sleep(3.0)
        begun = loop.time()
        with pytest.raises(Refused):
            await made.choose(begun + 5.0, patient=True)
        assert loop.time() - begun == pytest.approx(5.0, abs=0.1)
        await made.close()

    run(story())


def test_a_cluster_that_was_never_there_is_waited_for_and_then_said() -> None:
    """Without any detector: within the grace a call waits, after it the reason is given at once."""

    async def story() -> None:
        cluster = FakeCluster()
        cluster.healths.clear()
        made = pool(cluster, grace_s=30.0)
        made.watch()
        loop = asyncio.get_running_loop()
        with pytest.raises(Refused, match="away"):
            await made.choose(loop.time() + 4.0, patient=False)
        assert loop.time() == pytest.approx(4.0, abs=0.1)
        await asyncio.sleep(30.0)
        begun = loop.time()
        with pytest.raises(Refused, match="away"):
            await made.choose(begun + 4.0, patient=False)
        assert loop.time() == begun
        cluster.healths["FaceDetector"] = health()
        await asyncio.sleep(3.0)
        assert await chosen(made) == "FaceDetector"
        await made.close()

    run(story())


def test_asking_for_the_refusal_changes_nothing_and_its_beginning_is_known() -> None:
    """`refused_since` is noted when a circuit opens or closes, and not when somebody asks."""

    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        assert (made.refusal(), made.refused_since) == (None, None)
        made.detectors["FaceDetector"].circuit.trip(0.0, _CAUSE)
        assert made.refusal() is not None
        assert made.refused_since is None, "only asking does not note it"
        cluster.healths["FaceDetector"] = health(
            state=State.FAULTY, detail="zeros", failure=Failure.DEVICE_LIES
        )
        await asyncio.sleep(10.0)
        begun = made.refused_since
        assert begun is not None
        assert begun <= 2.0
        await asyncio.sleep(100.0)
        assert made.refused_since == begun
        cluster.healths["FaceDetector"] = health()
        await asyncio.sleep(70.0)
        assert (made.refusal(), made.refused_since) == (None, None)
        await made.close()

    run(story())


def test_a_person_may_close_it() -> None:
    async def story() -> None:
        cluster = FakeCluster("a", "b")
        made = await started(cluster)
        for each in made.detectors.values():
            each.circuit.trip(0.0, _CAUSE)
        made.reset("a")
        assert (state(made, "a"), state(made, "b")) == (CLOSED, OPEN)
        made.reset()
        assert state(made, "b") is CLOSED
        await made.close()

    run(story())


_CAUSE = Fault.of(Failure.INTERNAL, "x")
