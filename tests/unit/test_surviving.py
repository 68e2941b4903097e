"""What a client does while no detector may be asked: refuse, pause, or let the CPU stand in. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from actors.faces import Detected, Failed, Failure, Outcome, Priority, Rejected, Rejection, Stamp, State
from cluster.client import cpu_fallback as fallback_module
from cluster.client import face_client as client_module
from cluster.client.cpu_fallback import Budget, CpuFallback
from cluster.client.detector_pool import DetectorPool
from cluster.client.face_client import FaceClient
from cluster.settings import Settings, load_settings
from tests.fakes import prepared
from tests.unit.fake_cluster import FakeCluster, failed, health, lost, quiet
from tests.virtual_time import run

LIES = {"state": State.FAULTY, "detail": "zeros", "failure": Failure.DEVICE_LIES}


class Cpu:
    """A `FaceDetector` in this process, in place of the real one."""

    made: ClassVar[list[Cpu]] = []
    answer: ClassVar[Callable[[Any], Outcome]] = staticmethod(lambda image: by_cpu(image.width))

    def __init__(self, name: str, settings: Any, observer: Any = None) -> None:
        self.settings = settings
        self.num_images = 0
        self.is_open = True
        Cpu.made.append(self)

    async def detect(
        self, images: Sequence[Any], priority: str, deadline_s: float, trace: str
    ) -> list[Outcome]:
        assert self.is_open
        self.num_images += len(images)
        await asyncio.sleep(0.1)
        return [Cpu.answer(image) for image in images]

    async def drain(self) -> None:
        self.is_open = False


def by_cpu(width: int) -> Outcome:
    return Detected(stamp=Stamp("fallback on CPU"), faces=(), width=width, height=1)


class Preprocessor(client_module.Preprocessor):
    """Without threads, which virtual time cannot wait for."""

    async def _one(self, image: Any, priority: Priority, deadline: float) -> Any:
        return image


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    Cpu.made, Cpu.answer = [], staticmethod(lambda image: by_cpu(image.width))
    monkeypatch.setattr(fallback_module, "start_detector", Cpu)
    monkeypatch.setattr(client_module, "Preprocessor", Preprocessor)


async def made(cluster: FakeCluster, **sections: dict[str, Any]) -> FaceClient:
    """A client whose fleet has found what there is."""
    circuit = {"jitter": 0.0, **sections.pop("circuit", {})}
    settings: Settings = load_settings(circuit=circuit, **sections)
    log = quiet(asyncio.get_running_loop().time)
    pool = DetectorPool(cluster, settings.circuit, log)
    client = FaceClient(cluster, pool, settings, log)  # type: ignore[arg-type]  # a fake in place of a connection
    await pool.look()
    pool.watch()
    return client


def photos(num: int) -> list[Any]:
    return [prepared(number, (640, 640)) for number in range(num)]


def seen(outcomes: Sequence[Outcome]) -> list[str]:
    """Who answered, or why nobody did."""
    return [str(each.reason) if isinstance(each, Failed) else each.stamp.served_by for each in outcomes]


def faulty(cluster: FakeCluster) -> None:
    cluster.healths["FaceDetector"] = health(**LIES)


async def close(client: FaceClient) -> None:
    await client._pool.close()
    await client._fallback.close()


def test_without_a_fallback_a_person_is_told_at_once_and_why() -> None:
    """I1: the reason of the circuit, and when to come again; the detector is not asked."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        client = await made(cluster)
        begun = asyncio.get_running_loop().time()
        (outcome,) = await client.detect(photos(1))
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.detail) == (Failure.DEVICE_LIES, "zeros")
        assert outcome.retry_after_s
        assert asyncio.get_running_loop().time() == pytest.approx(begun, abs=0.001)
        assert cluster.calls == []
        await close(client)

    run(story())


def test_with_an_open_circuit_the_cpu_answers_and_says_so_and_ends_by_itself() -> None:
    """I5: counted, with the reason on each outcome; when the circuit is closed, the detector answers."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        client = await made(cluster, fallback={"policy": "when_open", "idle_s": 60.0})
        outcomes = await client.detect(photos(3))
        assert seen(outcomes) == ["fallback on CPU"] * 3
        assert {each.stamp.fallback for each in outcomes} == {"circuit open: device_lies"}
        assert outcomes[0].as_dict()["fallback"] == "circuit open: device_lies"
        assert client.status().fallback == {"circuit open: device_lies": 3}
        cluster.healths["FaceDetector"] = health()
        await asyncio.sleep(10.0)
        assert seen(await client.detect(photos(2))) == ["FaceDetector on a test"] * 2
        assert Cpu.made[0].is_open
        await asyncio.sleep(60.0)
        assert not Cpu.made[0].is_open
        assert client.status().fallback == {"circuit open: device_lies": 3}
        await close(client)

    run(story())


def test_when_open_gives_the_cpu_nothing_while_the_circuit_is_closed() -> None:
    """A failure, a restart or a full queue is no reason yet: the old client fell back all the time."""

    async def story() -> None:
        cluster = FakeCluster()
        client = await made(cluster, fallback={"policy": "when_open"})
        for answer in (lost(), [failed(Failure.DEVICE_FAILED)], [failed(Failure.BUSY, 1e6)]):
            cluster.script = lambda images, answer=answer: answer
            assert not isinstance((await client.detect(photos(1)))[0], Detected)
        assert Cpu.made == []
        await close(client)

    run(story())


def test_after_s_gives_the_cpu_what_a_detector_did_not_answer_in_time() -> None:
    """And the detector is told that nobody waits any more."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1e6)
        client = await made(cluster, fallback={"policy": "after_s", "after_s": 2.0})
        begun = asyncio.get_running_loop().time()
        outcomes = await client.detect(photos(2), deadline_s=10.0)
        assert seen(outcomes) == ["fallback on CPU"] * 2
        assert {each.stamp.fallback for each in outcomes} == {"no answer: deadline"}
        assert asyncio.get_running_loop().time() - begun == pytest.approx(2.6, abs=0.1)
        assert cluster.deadlines == [pytest.approx(2.0)]
        await close(client)

    run(story())


@pytest.mark.parametrize("failure", [Failure.DEVICE_FAILED, Failure.BUSY, Failure.DETECTOR_LOST])
def test_after_s_gives_the_cpu_what_failed(failure: Failure) -> None:
    async def story() -> None:
        cluster = FakeCluster()
        cluster.script = lambda images: [failed(failure, 1e6)] * len(images)
        client = await made(cluster, fallback={"policy": "after_s"})
        (outcome,) = await client.detect(photos(1))
        assert outcome.stamp.fallback == f"no answer: {failure}"
        await close(client)

    run(story())


@pytest.mark.parametrize("failure", [Failure.QUARANTINED, Failure.CANCELLED])
def test_what_must_not_run_here_never_does(failure: Failure) -> None:
    """I3: a photo that ended a detector's process is not run in the backend's."""

    async def story() -> None:
        cluster = FakeCluster()
        cluster.script = lambda images: [failed(failure)] * len(images)
        client = await made(cluster, fallback={"policy": "after_s"})
        assert seen(await client.detect(photos(1))) == [str(failure)]
        assert Cpu.made == []
        await close(client)

    run(story())


def test_the_budget_bounds_it_and_says_so() -> None:
    """I5: so many a minute; the rest fail with the detector's own reason, and later there is more."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        client = await made(cluster, fallback={"policy": "when_open", "max_images_per_minute": 30})
        outcomes = await client.detect(photos(40))
        assert seen(outcomes).count("fallback on CPU") == 30
        assert seen(outcomes).count("device_lies") == 10
        refused = next(each for each in outcomes if isinstance(each, Failed))
        assert refused.detail.startswith("zeros The CPU did not stand in: 30 images a minute")
        assert client.status().num_fallback_refused == 10
        await asyncio.sleep(20.0)
        assert seen(await client.detect(photos(40))).count("fallback on CPU") == 10
        await close(client)

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
        Cpu.answer = staticmethod(lambda image: answer)
        client = await made(cluster, fallback={"policy": "when_open"})
        (outcome,) = await client.detect(photos(1))
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.DEVICE_LIES
        assert "could not stand in" in outcome.detail
        assert client.status().fallback == {}
        await close(client)

    run(story())


def test_a_scan_pauses_says_why_and_goes_on() -> None:
    """Half an hour without a detector costs a scan no photo, although each call has two minutes."""

    async def story() -> None:
        cluster = FakeCluster()
        client = await made(cluster, fallback={"policy": "when_open"}, client={"stream_deadline_s": 120.0})
        answers = client.stream(photos(100))
        got = [await anext(answers) for _ in range(10)]
        faulty(cluster)
        await asyncio.sleep(5.0)
        going_on = asyncio.create_task(_all(answers))
        await asyncio.sleep(1800.0)
        assert not going_on.done()
        assert client.paused == "zeros"
        cluster.healths["FaceDetector"] = health()
        got += await going_on
        assert seen(got) == ["FaceDetector on a test"] * 100
        assert client.paused == ""
        assert Cpu.made == []
        await close(client)

    run(story())


async def _all(answers: Any) -> list[Outcome]:
    return [outcome async for outcome in answers]


def test_a_pause_has_an_end() -> None:
    """Then every image that is left fails with the reason, at once and not after a pause of its own."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        client = await made(cluster, client={"max_pause_s": 600.0, "stream_deadline_s": 5.0})
        begun = asyncio.get_running_loop().time()
        got = await _all(client.stream(photos(100)))
        assert seen(got) == ["device_lies"] * 100
        assert asyncio.get_running_loop().time() - begun < 700
        await close(client)

    run(story())


def test_bulk_images_may_be_given_to_the_cpu_by_those_who_want_that() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        client = await made(
            cluster, fallback={"policy": "when_open", "bulk": True, "max_images_per_minute": 1000}
        )
        assert seen(await _all(client.stream(photos(20)))) == ["fallback on CPU"] * 20
        await close(client)

    run(story())


def test_bulk_images_with_a_deadline_wait_until_it() -> None:
    """`detect` with bulk priority: patient, but not longer than it was told."""

    async def story() -> None:
        cluster = FakeCluster()
        faulty(cluster)
        client = await made(cluster)
        begun = asyncio.get_running_loop().time()
        assert seen(await client.detect(photos(1), priority="bulk", deadline_s=20.0)) == ["device_lies"]
        assert asyncio.get_running_loop().time() - begun == pytest.approx(20.0, abs=0.2)
        await close(client)

    run(story())


def test_a_client_holds_no_more_images_than_it_has_places() -> None:
    """I6: ten times more than fit; interactive calls before bulk ones; the queue is bounded too."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1.0)
        client = await made(cluster, client={"max_images_in_flight": 16, "max_waiting_calls": 30})
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
        await close(client)

    run(story())


def test_a_half_hour_of_outage_writes_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Constant calls of people and a scan, a detector that is away: at most 100 lines."""

    async def story() -> None:
        cluster = FakeCluster()
        client = await made(cluster, fallback={"policy": "when_open"})
        scan = asyncio.create_task(_all(client.stream(photos(1000))))
        cluster.silent.add("FaceDetector")
        num_asked = 0
        while asyncio.get_running_loop().time() < 1800:
            await client.detect(photos(1), deadline_s=5.0)
            num_asked += 1
            await asyncio.sleep(0.5)
        assert num_asked > 2000
        cluster.silent.clear()
        assert len(await scan) == 1000
        await close(client)

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
    fallback = CpuFallback(load_settings().fallback, load_settings().detector, lambda: 0.0)
    assert not fallback.serves(Priority.INTERACTIVE)
