"""Many detectors, in virtual time: which one is asked, and what a caller is told while none may be."""

from __future__ import annotations

import asyncio

import pytest

from actors.faces import Detected, Failed, Failure, Stamp, State
from cluster.client.detector import Detector
from cluster.client.patience import Patience
from cluster.errors import DetectorNotReady, Fault, Refused
from tests.unit.fake_cluster import FakeCluster, detected, health
from tests.unit.pools import CLOSED, FAULT, SETTINGS, chosen, pool, started, state
from tests.virtual_time import run


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


def test_who_is_patient_waits_for_the_circuit_to_close() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        made = await started(cluster)
        cluster.healths["FaceDetector"] = health(state=State.FAULTY, failure=Failure.DEVICE_LIES)
        await asyncio.sleep(3.0)
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(made.choose(loop.time() + 100.0, Patience.ANYTHING))
        await asyncio.sleep(20.0)
        assert not waiting.done()
        cluster.healths["FaceDetector"] = health()
        assert (await waiting).name == "FaceDetector"
        cluster.healths["FaceDetector"] = health(state=State.FAULTY, failure=Failure.DEVICE_LIES)
        await asyncio.sleep(3.0)
        begun = loop.time()
        with pytest.raises(Refused):
            await made.choose(begun + 5.0, Patience.ANYTHING)
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
            await made.choose(loop.time() + 4.0, Patience.NOT_NOW)
        assert loop.time() == pytest.approx(4.0, abs=0.1)
        await asyncio.sleep(30.0)
        begun = loop.time()
        with pytest.raises(Refused, match="away"):
            await made.choose(begun + 4.0, Patience.NOT_NOW)
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
        made.detectors["FaceDetector"].circuit.trip(0.0, FAULT)
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


def test_another_version_is_said_by_its_name_before_any_detector_is_placed() -> None:
    """At once, and not after the seconds in which a cluster may still be found."""

    async def story() -> None:
        cluster = FakeCluster("a")
        cluster.healths.clear()
        made = pool(cluster)
        skew = Fault.of(Failure.VERSION_SKEW, "front has rayface 0.2.0 (protocol 1-b).")
        cluster.places_none = skew
        await made.look()
        with pytest.raises(Refused) as refused:
            await chosen(made)
        assert refused.value.fault == skew
        cluster.places_none = None
        await made.look()
        assert made.refusal() is None, "it is too early to say that there is none"
        await made.close()

    run(story())
