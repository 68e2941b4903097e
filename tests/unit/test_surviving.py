"""What a client does while no detector may be asked: refuse, pause, or let the CPU stand in. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.faces import Detected, Failed, Failure, Outcome, Priority, Rejected, Rejection, Stamp, State
from cluster.client.cpu_fallback import Budget, CpuFallback
from cluster.settings import load_settings
from tests.unit.clients import Cpus, client_on, collected, photos, seen
from tests.unit.fake_cluster import FakeCluster, failed, health, lost
from tests.virtual_time import run

LIES = {"state": State.FAULTY, "detail": "zeros", "failure": Failure.DEVICE_LIES}


class Scripted(FakeCluster):
    """A cluster whose detectors say the same of every call."""

    def __init__(self, said: Any) -> None:
        super().__init__()
        self.said = said

    def answer(self, images: Sequence[Any]) -> Any:
        return self.said if isinstance(self.said, Exception) else [self.said] * len(images)


def faulty(cluster: FakeCluster) -> None:
    cluster.healths["FaceDetector"] = health(**LIES)


def test_without_a_fallback_a_person_is_told_at_once_and_why() -> None:
    """I1: the reason of the circuit, and when to come again; the detector is not asked."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        async with client_on(cluster) as client:
            begun = asyncio.get_running_loop().time()
            (outcome,) = await client.detect(photos(1))
            assert isinstance(outcome, Failed)
            assert (outcome.reason, outcome.detail) == (Failure.DEVICE_LIES, "zeros")
            assert outcome.retry_after_s
            assert asyncio.get_running_loop().time() == pytest.approx(begun, abs=0.001)
            assert cluster.calls == []

    run(story())


def test_with_an_open_circuit_the_cpu_answers_and_says_so_and_ends_by_itself() -> None:
    """I5: counted, with the reason on each outcome; when the circuit is closed, the detector answers."""

    async def story() -> None:
        cluster, cpus = FakeCluster(), Cpus()
        faulty(cluster)
        async with client_on(cluster, cpus=cpus, fallback={"policy": "when_open", "idle_s": 60.0}) as client:
            outcomes = await client.detect(photos(3))
            assert seen(outcomes) == ["fallback on CPU"] * 3
            assert {each.stamp.fallback for each in outcomes} == {"circuit open: device_lies"}
            assert outcomes[0].as_dict()["fallback"] == "circuit open: device_lies"
            assert client.status().fallback == {"circuit open: device_lies": 3}
            cluster.healths["FaceDetector"] = health()
            await asyncio.sleep(10.0)
            assert seen(await client.detect(photos(2))) == ["FaceDetector on a test"] * 2
            assert cpus.made[0].is_open
            await asyncio.sleep(60.0)
            assert not cpus.made[0].is_open
            assert client.status().fallback == {"circuit open: device_lies": 3}

    run(story())


def test_when_open_gives_the_cpu_nothing_while_the_circuit_is_closed() -> None:
    """A failure, a restart or a full queue is no reason yet: the old client fell back all the time."""

    async def story() -> None:
        cluster, cpus = Scripted(None), Cpus()
        async with client_on(cluster, cpus=cpus, fallback={"policy": "when_open"}) as client:
            for said in (lost(), failed(Failure.DEVICE_FAILED), failed(Failure.BUSY, 1e6)):
                cluster.said = said
                assert not isinstance((await client.detect(photos(1)))[0], Detected)
            assert cpus.made == []

    run(story())


def test_after_s_gives_the_cpu_what_a_detector_did_not_answer_in_time() -> None:
    """And the detector is told that nobody waits any more."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1e6)
        async with client_on(cluster, fallback={"policy": "after_s", "after_s": 2.0}) as client:
            begun = asyncio.get_running_loop().time()
            outcomes = await client.detect(photos(2), deadline_s=10.0)
            assert seen(outcomes) == ["fallback on CPU"] * 2
            assert {each.stamp.fallback for each in outcomes} == {"no answer: deadline"}
            assert asyncio.get_running_loop().time() - begun == pytest.approx(2.6, abs=0.1)
            assert cluster.deadlines == [pytest.approx(2.0)]

    run(story())


@pytest.mark.parametrize("failure", [Failure.DEVICE_FAILED, Failure.BUSY, Failure.DETECTOR_LOST])
def test_after_s_gives_the_cpu_what_failed(failure: Failure) -> None:
    async def story() -> None:
        cluster = Scripted(failed(failure, 1e6))
        async with client_on(cluster, fallback={"policy": "after_s"}) as client:
            (outcome,) = await client.detect(photos(1))
            assert outcome.stamp.fallback == f"no answer: {failure}"

    run(story())


@pytest.mark.parametrize("failure", [Failure.QUARANTINED, Failure.CANCELLED])
def test_what_must_not_run_here_never_does(failure: Failure) -> None:
    """I3: a photo that ended a detector's process is not run in the backend's."""

    async def story() -> None:
        cluster, cpus = Scripted(failed(failure)), Cpus()
        async with client_on(cluster, cpus=cpus, fallback={"policy": "after_s"}) as client:
            assert seen(await client.detect(photos(1))) == [str(failure)]
            assert cpus.made == []

    run(story())


def test_the_budget_bounds_it_and_says_so() -> None:
    """I5: so many a minute; the rest fail with the detector's own reason, and later there is more."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        async with client_on(
            cluster, fallback={"policy": "when_open", "max_images_per_minute": 30}
        ) as client:
            outcomes = await client.detect(photos(40))
            assert seen(outcomes).count("fallback on CPU") == 30
            assert seen(outcomes).count("device_lies") == 10
            refused = next(each for each in outcomes if isinstance(each, Failed))
            assert refused.detail.startswith("zeros The CPU did not stand in: 30 images a minute")
            assert client.status().num_fallback_refused == 10
            await asyncio.sleep(20.0)
            assert seen(await client.detect(photos(40))).count("fallback on CPU") == 10

    run(story())


@pytest.mark.parametrize(
    "answer",
    [
        failed(Failure.MODEL_UNAVAILABLE),
        Rejected(stamp=Stamp("x"), reason=Rejection.UNSUPPORTED, detail="Its shape is unknown here."),
    ],
)
def test_a_cpu_that_cannot_stand_in_hides_nothing(answer: Outcome) -> None:
    """I1: the detector's reason stays, and a photo that was good enough is not refused now."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        cpus = Cpus(lambda image: answer)
        async with client_on(cluster, cpus=cpus, fallback={"policy": "when_open"}) as client:
            (outcome,) = await client.detect(photos(1))
            assert isinstance(outcome, Failed)
            assert outcome.reason is Failure.DEVICE_LIES
            assert "could not stand in" in outcome.detail
            assert client.status().fallback == {}

    run(story())


def test_a_scan_pauses_says_why_and_goes_on() -> None:
    """Half an hour without a detector costs a scan no photo, although each call has two minutes."""

    async def story() -> None:
        cluster, cpus = FakeCluster(), Cpus()
        async with client_on(
            cluster, cpus=cpus, fallback={"policy": "when_open"}, client={"stream_deadline_s": 120.0}
        ) as client:
            answers = client.stream(photos(100))
            got = [await anext(answers) for _ in range(10)]
            faulty(cluster)
            await asyncio.sleep(5.0)
            going_on = asyncio.create_task(collected(answers))
            await asyncio.sleep(1800.0)
            assert not going_on.done()
            assert client.paused == "zeros"
            cluster.healths["FaceDetector"] = health()
            got += await going_on
            assert seen(got) == ["FaceDetector on a test"] * 100
            assert client.paused == ""
            assert cpus.made == []

    run(story())


def test_a_pause_has_an_end() -> None:
    """Then every image that is left fails with the reason, at once and not after a pause of its own."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        async with client_on(cluster, client={"max_pause_s": 600.0, "stream_deadline_s": 5.0}) as client:
            begun = asyncio.get_running_loop().time()
            got = await collected(client.stream(photos(100)))
            assert seen(got) == ["device_lies"] * 100
            assert asyncio.get_running_loop().time() - begun < 700

    run(story())


def test_bulk_images_may_be_given_to_the_cpu_by_those_who_want_that() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        async with client_on(
            cluster, fallback={"policy": "when_open", "bulk": True, "max_images_per_minute": 1000}
        ) as client:
            assert seen(await collected(client.stream(photos(20)))) == ["fallback on CPU"] * 20

    run(story())


def test_bulk_images_with_a_deadline_wait_until_it() -> None:
    """`detect` with bulk priority: patient, but not longer than it was told."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        async with client_on(cluster) as client:
            begun = asyncio.get_running_loop().time()
            assert seen(await client.detect(photos(1), priority="bulk", deadline_s=20.0)) == ["device_lies"]
            assert asyncio.get_running_loop().time() - begun == pytest.approx(20.0, abs=0.2)

    run(story())


def test_a_client_holds_no_more_images_than_it_has_places() -> None:
    """I6: ten times more than fit; interactive calls before bulk ones; the queue is bounded too."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1.0)
        async with client_on(cluster, client={"max_images_in_flight": 16, "max_waiting_calls": 30}) as client:
            most = 0
            order: list[str] = []

            async def call(priority: str) -> Outcome:
                outcome = (await client.detect(photos(4), priority=priority, deadline_s=60.0))[0]
                if isinstance(outcome, Detected):
                    order.append(priority)
                return outcome

            calls = [asyncio.create_task(call("bulk")) for _ in range(24)]
            await asyncio.sleep(0)
            calls += [asyncio.create_task(call("interactive")) for _ in range(24)]
            while not all(each.done() for each in calls):
                most = max(most, sum(cluster.calls[-cluster.under_way :]) if cluster.under_way else 0)
                await asyncio.sleep(0.05)
            outcomes = [each.result() for each in calls]
            assert most <= 16
            assert seen(outcomes).count("busy") == 48 - 34
            assert sorted(order[:4]) == ["bulk", "bulk", "bulk", "interactive"], "a place is kept for people"
            assert order[4:12] == ["interactive"] * 8
            assert order.count("interactive") == 10

    run(story())


def test_a_half_hour_of_outage_writes_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Constant calls of people and a scan, a detector that is away: at most 100 lines."""

    async def story() -> None:
        cluster = FakeCluster()
        async with client_on(cluster, fallback={"policy": "when_open"}) as client:
            scan = asyncio.create_task(collected(client.stream(photos(1000))))
            cluster.silent.add("FaceDetector")
            num_asked = 0
            while asyncio.get_running_loop().time() < 1800:
                await client.detect(photos(1), deadline_s=5.0)
                num_asked += 1
                await asyncio.sleep(0.5)
            assert num_asked > 2000
            cluster.silent.clear()
            assert len(await scan) == 1000

    run(story())
    assert 2 <= len(caplog.records) <= 100


def test_a_budget_fills_evenly() -> None:
    budget = Budget(60, 0.0)
    assert budget.take(0.0, 50) == 50
    assert budget.take(0.0, 50) == 10
    assert budget.wait_s == pytest.approx(1.0)
    assert budget.take(0.5, 1) == 0
    assert budget.take(1.0, 5) == 1
    assert budget.take(1000.0, 100) == 60


def test_the_default_is_never() -> None:
    """I5: somebody has to decide it."""
    assert load_settings().fallback.policy == "never"
    fallback = CpuFallback(load_settings().fallback, lambda: load_settings().detector, lambda: 0.0)
    assert not fallback.serves(Priority.INTERACTIVE)
