"""I1, I2, I5, I6: while the head is silent, nothing runs, nothing is lost, and nobody is blamed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors import model_life, ownership
from actors.face_detector import FaceDetector, start_detector
from actors.faces import Detected, Failed, Failure, State
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice, golden_heads, prepared
from tests.unit.clients import client_on, collected, photos, seen
from tests.unit.fake_cluster import FakeCluster, detected, failed, health
from tests.virtual_time import run

DETECTOR = "FaceDetector on a test"
SILENCE = {"state": State.WAITING, "failure": Failure.HEAD_SILENT, "detail": "The head is silent."}
SETTINGS = DetectorSettings(batch_sizes=(1, 2), num_lanes=1, num_prepare_threads=1)


class SilentHead(FakeCluster):
    """A cluster whose detectors are well, while their head is silent until a moment of the loop's clock."""

    def __init__(self, *names: str, until: float = 15.0, silent: str = "") -> None:
        super().__init__(*names)
        self.until = until
        self.silent_one = silent

    def is_silent(self, detector: str) -> bool:
        return asyncio.get_running_loop().time() < self.until and self.silent_one in ("", detector)

    async def detect(self, detector: str, images: Sequence[Any], *rest: Any, **named: Any) -> Any:
        is_silent = self.is_silent(detector)
        answers = await super().detect(detector, images, *rest, **named)
        return [failed(Failure.HEAD_SILENT, 0.5) for _ in answers] if is_silent else answers

    async def health(self, detector: str, wait_s: float, *, timeout_s: float) -> Any:
        said = await super().health(detector, wait_s, timeout_s=timeout_s)
        return health(name=detector, **SILENCE) if self.is_silent(detector) else said


def test_a_person_waits_within_the_deadline_and_is_answered_when_the_head_is_back() -> None:
    """The detector is not asked again and again, and its circuit counts nothing."""

    async def story() -> None:
        cluster = SilentHead()
        async with client_on(cluster) as client:
            loop = asyncio.get_running_loop()
            outcomes = await client.detect(photos(3), deadline_s=20.0)
            assert seen(outcomes) == [DETECTOR] * 3
            assert 15.0 < loop.time() < 16.0
            assert len(cluster.calls) <= 2
            (status,) = client.status().detectors
            assert (status.state, status.circuit, status.num_failed) == ("ready", "closed", 0)

    run(story())


def test_a_silence_found_out_by_a_call_is_waited_for_too() -> None:
    """The client has not looked yet: the outcome itself says "not now"."""

    async def story() -> None:
        cluster = SilentHead(until=0.0)
        async with client_on(cluster) as client:
            cluster.until = 15.0
            assert seen(await client.detect(photos(1), deadline_s=20.0)) == [DETECTOR]
            assert cluster.calls == [1, 1]

    run(story())


def test_a_scan_that_is_under_way_pauses_and_its_deadline_waits_with_it() -> None:
    """All its calls were with the detector when the head fell silent, for longer than their deadline."""

    async def story() -> None:
        cluster = SilentHead(until=0.0)
        async with client_on(cluster) as client:
            loop = asyncio.get_running_loop()
            cluster.until = 60.0
            scan = asyncio.create_task(collected(client.stream(photos(8), deadline_s=20.0)))
            await asyncio.sleep(30.0)
            assert "head is silent" in client.paused
            assert seen(await scan) == [DETECTOR] * 8
            assert 60.0 < loop.time() < 62.0
            assert client.paused == ""

    run(story())


def test_a_deadline_that_ends_first_says_that_the_head_is_silent() -> None:
    async def story() -> None:
        async with client_on(SilentHead()) as client:
            loop = asyncio.get_running_loop()
            (outcome,) = await client.detect(photos(1), deadline_s=5.0)
            assert isinstance(outcome, Failed)
            assert outcome.reason is Failure.HEAD_SILENT
            assert outcome.retry_after_s is not None
            assert 4.0 < loop.time() <= 5.1
            (status,) = client.status().detectors
            assert (status.state, status.circuit) == ("waiting", "closed")
            assert status.detail == "The head is silent."

    run(story())


def test_an_unpaced_scan_pauses_says_why_and_loses_nothing() -> None:
    async def story() -> None:
        cluster = SilentHead(until=0.0)
        async with client_on(cluster, client={"images_per_call": 4}) as client:

            async def source() -> Any:
                for number, image in enumerate(photos(200)):
                    if number == 100:
                        cluster.until = asyncio.get_running_loop().time() + 15.0
                    yield image

            scan = asyncio.create_task(collected(client.stream(source(), deadline_s=20.0)))
            await asyncio.sleep(10.0)
            assert client.paused == "The head is silent."
            assert seen(await scan) == [DETECTOR] * 200
            assert client.paused == ""
            # At most the calls that were under way are asked for twice.
            assert sum(cluster.calls) <= 200 + 4 * client._settings.client.max_calls_in_flight

    run(story())


@pytest.mark.parametrize(
    ("policy", "after_s"), [({"policy": "when_open"}, 1.0), ({"policy": "after_s", "after_s": 3.0}, 3.5)]
)
def test_the_cpu_answers_a_person_by_policy_and_says_why(policy: dict[str, Any], after_s: float) -> None:
    """I5: at once where it answers while no detector may be asked; else after the patience of the policy."""

    async def story() -> None:
        async with client_on(SilentHead(), fallback=policy) as client:
            (outcome,) = await client.detect(photos(1), deadline_s=20.0)
            assert isinstance(outcome, Detected)
            assert outcome.stamp.fallback == "not now: head_silent"
            assert asyncio.get_running_loop().time() <= after_s

    run(story())


def test_another_detector_that_hears_the_head_is_asked_instead() -> None:
    async def story() -> None:
        cluster = SilentHead("FaceDetector", "FaceDetector-2", silent="FaceDetector")
        async with client_on(cluster) as client:
            assert seen(await client.detect(photos(1), deadline_s=20.0)) == [DETECTOR]
            assert asyncio.get_running_loop().time() < 1.0

    run(story())


def test_a_detector_that_drains_is_asked_again_within_the_deadline() -> None:
    """It is the same "not now" as that of a full queue or a silent head."""

    class Drains(FakeCluster):
        def answer(self, images: Sequence[Any]) -> Any:
            is_over = len(self.calls) > 2
            return [detected(i.width) if is_over else failed(Failure.NOT_READY, 1.0) for i in images]

    async def story() -> None:
        async with client_on(Drains()) as client:
            assert seen(await client.detect(photos(1), deadline_s=20.0)) == [DETECTOR]
            assert seen(await client.detect(photos(1), deadline_s=0.5)) == [DETECTOR]

    run(story())


def test_an_open_circuit_refuses_a_person_at_once_all_the_same() -> None:
    """An open circuit of a start that never ends is no "not now", although it says when to come again."""

    async def story() -> None:
        cluster = FakeCluster()
        cluster.healths["FaceDetector"] = health(state=State.STARTING, detail="warming up")
        async with client_on(cluster, circuit={"grace_s": 5.0}) as client:
            await asyncio.sleep(10.0)
            begun = asyncio.get_running_loop().time()
            (outcome,) = await client.detect(photos(1), deadline_s=20.0)
            assert isinstance(outcome, Failed)
            assert outcome.reason is Failure.NOT_READY
            assert asyncio.get_running_loop().time() - begun < 0.1

    run(story())


def test_who_waited_before_a_detector_was_given_up_goes_on_waiting() -> None:
    """What began before the detector was given up has its whole deadline; what begins later is refused."""

    async def story() -> None:
        cluster = FakeCluster()
        async with client_on(cluster, client={"max_images_in_flight": 8}) as client:
            loop = asyncio.get_running_loop()
            cluster.silent.add("FaceDetector")
            # These take the room of the client, and their deadline ends without an answer.
            first = [asyncio.create_task(client.detect(photos(1), deadline_s=34.0)) for _ in range(8)]
            await asyncio.sleep(20.0)
            waiting = asyncio.create_task(client.detect(photos(1), deadline_s=30.0))
            await asyncio.gather(*first)
            await asyncio.sleep(5.0)
            begun = loop.time()
            (refused,) = await client.detect(photos(1), deadline_s=20.0)
            assert isinstance(refused, Failed)
            assert refused.reason is Failure.DETECTOR_LOST
            assert loop.time() - begun < 0.1
            cluster.silent.clear()
            assert seen(await waiting) == [DETECTOR]
            assert loop.time() < 50.0

    run(story())


def test_a_scan_pauses_before_its_deadlines_run_out_on_a_blocked_cable() -> None:
    """The circuit is closed still; but calls to a detector that nobody hears would only use up their time."""

    async def story() -> None:
        cluster = FakeCluster()
        async with client_on(cluster, client={"images_per_call": 1, "max_calls_in_flight": 2}) as client:
            scan = asyncio.create_task(collected(client.stream(photos(20), deadline_s=13.0)))
            await asyncio.sleep(0.0)
            cluster.silent.add("FaceDetector")
            await asyncio.sleep(25.0)
            assert client.paused.startswith("FaceDetector is not heard.")
            (status,) = client.status().detectors
            assert status.circuit == "closed"
            cluster.silent.clear()
            outcomes = seen(await scan)
            assert outcomes.count("deadline") <= 2
            assert outcomes.count(DETECTOR) >= 18

    run(story())


def test_a_process_that_ended_in_the_silence_is_waited_for_too() -> None:
    """After six times the lease it ends; its successor is there when the head is back."""

    async def story() -> None:
        cluster = SilentHead(until=20.0)
        async with client_on(cluster) as client:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(15.0)
            waiting = asyncio.create_task(client.detect(photos(1), deadline_s=20.0))
            await asyncio.sleep(4.0)
            cluster.silent.add("FaceDetector")
            await asyncio.sleep(9.0)
            (status,) = client.status().detectors
            assert status.state == "away"
            assert status.detail.startswith("The head was silent for long.")
            cluster.silent.clear()
            assert seen(await waiting) == [DETECTOR]
            assert loop.time() < 31.0

    run(story())


@pytest.fixture
def _no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)
    monkeypatch.setattr(ownership, "machine_folder", lambda: tmp_path)


class _Clock:
    """A clock that a test moves; the detector's lease reads it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _leased(device: FakeDevice, clock: _Clock) -> FaceDetector:
    made = start_detector("FaceDetector", SETTINGS, device, clock)
    assert (await made.health(20.0)).state is State.READY
    made.lease.limit(10.0)
    return made


@pytest.mark.usefixtures("_no_files")
def test_a_detector_whose_head_is_silent_runs_nothing_and_goes_on_when_it_is_heard() -> None:
    async def story() -> None:
        device, clock = FakeDevice(), _Clock()
        made = await _leased(device, clock)
        clock.now += 12.0
        num_runs = len(device.runs)
        (outcome,) = await made.detect([prepared()])
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.HEAD_SILENT
        assert outcome.retry_after_s is not None
        said = made.snapshot()
        assert (said.state, said.failure) == (State.WAITING, Failure.HEAD_SILENT)
        assert "has not heard the cluster's head for 12 s" in said.detail
        # A probe of a client, and the regular test: the device is not blamed.
        assert (await made.check()).state is State.WAITING
        assert len(device.runs) == num_runs
        made.keep_fresh()
        assert (await made.health()).state is State.READY
        assert isinstance((await made.detect([prepared()]))[0], Detected)
        await made.drain()

    asyncio.run(asyncio.wait_for(story(), 30.0))


@pytest.mark.usefixtures("_no_files")
def test_an_answer_computed_across_the_end_of_a_lease_is_not_passed_on() -> None:
    """I2: another process may own the device by then."""

    async def story() -> None:
        device, clock = FakeDevice(), _Clock()
        made = await _leased(device, clock)

        def falls_asleep(tensor: Any) -> Any:
            clock.now += 12.0
            return golden_heads(tensor)

        device.answer = falls_asleep
        (outcome,) = await made.detect([prepared()])
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.HEAD_SILENT
        await made.drain()

    asyncio.run(asyncio.wait_for(story(), 30.0))


@pytest.mark.usefixtures("_no_files")
def test_a_start_in_which_the_head_fell_silent_is_made_again_at_once() -> None:
    async def story() -> None:
        clock = _Clock()
        made = FaceDetector(model_life.ModelLife("FaceDetector", SETTINGS, FakeDevice(), clock))
        made.lease.limit(10.0)
        clock.now += 12.0
        made.start()
        assert (await made.health(20.0)).state is State.WAITING
        assert isinstance((await made.detect([prepared()]))[0], Failed)
        made.keep_fresh()
        assert isinstance((await made.detect([prepared()]))[0], Detected)
        await made.drain()

    asyncio.run(asyncio.wait_for(story(), 30.0))
