"""What opens the circuit of a detector in a pool, what does not, and what closes it; in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from actors.faces import Failure, Stamp, State
from cluster.client.detector import Detector
from cluster.errors import Refused
from tests.unit.fake_cluster import FakeCluster, detected, failed, health, lost
from tests.unit.pools import CLOSED, FAULT, OPEN, SETTINGS, ask, chosen, started, state
from tests.virtual_time import run


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
        Failure.VERSION_SKEW,
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


def test_a_new_process_has_the_whole_grace_and_is_not_called_old() -> None:
    """It counts from its own beginning. If processes begin again and again, the circuit opens."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        cluster = FakeCluster()
        made = await started(cluster, grace_s=30.0)

        def process(number: int) -> None:
            stamp = Stamp("FaceDetector on a test", "fake@0", f"life-{number}")
            starting = {"state": State.STARTING, "detail": "warming up", "stamp": stamp}
            cluster.healths["FaceDetector"] = health(**starting, uptime_s=1.0)

        cluster.silent.add("FaceDetector")
        await asyncio.sleep(25.0)
        cluster.silent.clear()
        process(2)
        await asyncio.sleep(20.0)
        assert state(made) is CLOSED
        for number in range(3, 6):
            process(number)
            await asyncio.sleep(6.0)
        assert state(made) is not CLOSED
        said = made.detectors["FaceDetector"].last_error
        waited_s = int(said.split("not been ready for ")[1].split()[0])
        assert waited_s == pytest.approx(loop.time(), abs=4.0)
        assert "Its process is 1 s old and starting: warming up." in said
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


def test_a_person_may_close_it() -> None:
    async def story() -> None:
        cluster = FakeCluster("a", "b")
        made = await started(cluster)
        for each in made.detectors.values():
            each.circuit.trip(0.0, FAULT)
        made.reset("a")
        assert (state(made, "a"), state(made, "b")) == (CLOSED, OPEN)
        made.reset()
        assert state(made, "b") is CLOSED
        await made.close()

    run(story())
