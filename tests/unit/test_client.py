"""The story of one call, told to a scripted detector in virtual time: order, bounds, deadlines, faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray.exceptions as rex

from actors.faces import Detected, Failed, Failure, Health, Outcome, Rejected, Stamp, State
from cluster import fleet as fleet_module
from cluster.client import FaceClient
from cluster.fleet import Fleet
from cluster.settings import load_settings

STAMP = Stamp("FaceDetector on a test", "fake@0", "life-1")


def health(**changes: Any) -> Health:
    known = Health(
        name="FaceDetector",
        state=State.READY,
        reason="",
        failure=None,
        provider="CPUExecutionProvider",
        provider_requested="CPUExecutionProvider",
        device="cpu:0",
        owner_since=None,
        stamp=STAMP,
        host="here",
        pid=1,
        uptime_s=0,
        golden_age_s=0,
        shapes=((64, 64),),
        buckets=(),
        num_lanes=1,
        start_ms={},
        num_queued=0,
        num_running=0,
        num_detected=0,
        num_rejected=0,
        num_failed=0,
    )
    return replace(known, **changes)


class Detector:
    """A handle whose actor answers after `seconds`; `answer` may be exchanged."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls: list[int] = []
        self.under_way = self.most_under_way = self.num_cancelled = 0
        self.detect = SimpleNamespace(remote=self._detect)

    def answer(self, images: Sequence[Any]) -> Any:
        return [detected(image.width) for image in images]

    async def _detect(self, images: Sequence[Any], *, priority: str, deadline_s: float) -> Any:
        self.calls.append(len(images))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.seconds)
            answer = self.answer(images)
            if isinstance(answer, Exception):
                raise answer
            return answer
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.under_way -= 1


def detected(width: int) -> Outcome:
    return Detected(stamp=STAMP, faces=(), width=width, height=1)


def busy(wait_s: float) -> Outcome:
    return Failed(stamp=STAMP, reason=Failure.BUSY, detail="full", retry_after_s=wait_s)


async def collected(answers: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in answers]


def photo(width: int) -> np.ndarray[Any, Any]:
    return np.zeros((1, width, 3), np.uint8)


def client(detector: Detector, **changes: Any) -> FaceClient:
    settings = load_settings(client={"num_prepare_threads": 1, **changes})
    fleet = Fleet(dict, 1.0)
    fleet.detectors["FaceDetector"] = known = fleet_module.Detector("FaceDetector", detector)
    known.hear(health())
    return FaceClient(fleet, settings, lambda: None)


def widths(outcomes: Sequence[Outcome]) -> list[Any]:
    return [each.width if isinstance(each, Detected) else each.reason for each in outcomes]  # type: ignore[attr-defined]


def run(story: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await story

    return asyncio.run(bounded())


def test_outcomes_come_in_order_whatever_happens_to_each(tmp_path: Path) -> None:
    """I1, I3: refused here, answered there, failed there: each at its own place."""

    class Mixed(Detector):
        def answer(self, images: Sequence[Any]) -> Any:
            return [
                Failed(stamp=STAMP, reason=Failure.DEVICE_FAILED, detail="x")
                if i.width == 3
                else detected(i.width)
                for i in images
            ]

    async def story() -> None:
        images = [photo(1), b"", photo(3), tmp_path / "missing.jpg", photo(5), b"text"]
        outcomes = await client(Mixed()).detect(images)
        assert widths(outcomes) == [1, "zero_sized", Failure.DEVICE_FAILED, "unreadable", 5, "not_an_image"]
        refused = outcomes[1]
        assert isinstance(refused, Rejected)
        assert refused.stamp.served_by == "client"

    run(story())


def test_many_images_travel_in_bounded_calls() -> None:
    """I6: never more images in a call, nor calls under way, than the settings say."""
    detector = Detector(0.001)

    async def story() -> None:
        outcomes = await client(detector, images_per_call=4, max_calls_in_flight=3).detect(
            [photo(n) for n in range(1, 60)]
        )
        assert widths(outcomes) == list(range(1, 60))

    run(story())
    assert max(detector.calls) <= 4
    assert 1 < detector.most_under_way <= 3


def test_a_stream_is_read_no_further_than_it_is_answered() -> None:
    """I6: memory is bounded by the calls in flight, however long the source is."""
    num_read = 0

    def source() -> Iterator[Any]:
        nonlocal num_read
        while True:
            num_read += 1
            yield photo(num_read)

    async def story() -> None:
        answers = client(Detector(), images_per_call=4, max_calls_in_flight=2).stream(source())
        for number in range(1, 101):
            assert widths([await anext(answers)]) == [number]
            await asyncio.sleep(0)
            assert num_read - number <= 4 * 2 + 4 + 2 + 4
        await answers.aclose()  # type: ignore[attr-defined]

    run(story())


def test_an_answer_does_not_wait_for_a_source_that_stalls() -> None:
    """Whoever feeds photos by hand sees each answer before giving the next."""

    async def story() -> None:
        asked: asyncio.Queue[Any] = asyncio.Queue()

        async def source() -> AsyncIterator[Any]:
            while True:
                yield await asked.get()

        answers = client(Detector()).stream(source())
        for number in range(1, 6):
            asked.put_nowait(photo(number))
            assert widths([await anext(answers)]) == [number]
        await answers.aclose()  # type: ignore[attr-defined]

    run(story())


def test_a_source_that_fails_says_so_after_what_it_gave() -> None:
    """Its own error comes out, not a hang."""

    def source() -> Iterator[Any]:
        yield photo(1)
        raise OSError("the disk is gone")

    async def story() -> None:
        with pytest.raises(OSError, match="the disk is gone"):
            await collected(client(Detector()).stream(source()))

    run(story())


def test_busy_images_are_asked_for_again_and_only_those() -> None:
    """I6: flow control, within the same deadline; the answered ones are left alone."""

    asked: Counter[int] = Counter()

    class OddOnesBusyAtFirst(Detector):
        def answer(self, images: Sequence[Any]) -> Any:
            asked.update(image.width for image in images)
            return [
                busy(0.01) if image.width % 2 and asked[image.width] == 1 else detected(image.width)
                for image in images
            ]

    outcomes = run(client(OddOnesBusyAtFirst()).detect([photo(n) for n in range(1, 9)]))
    assert widths(outcomes) == list(range(1, 9))
    assert asked == {n: 1 + n % 2 for n in range(1, 9)}


def test_busy_beyond_the_deadline_is_said() -> None:
    """I6: no waiting for what cannot come in time."""

    class Busy(Detector):
        def answer(self, images: Sequence[Any]) -> Any:
            return [busy(60.0) for _ in images]

    detector = Busy()
    assert widths(run(client(detector).detect([photo(1)], deadline_s=1.0))) == [Failure.BUSY]
    assert detector.calls == [1]


def test_a_deadline_ends_a_call_that_hangs() -> None:
    """I6: the caller gets an outcome, whatever the cluster does."""
    outcomes = run(client(Detector(seconds=1000)).detect([photo(1), photo(2)], deadline_s=0.05))
    assert widths(outcomes) == [Failure.DEADLINE, Failure.DEADLINE]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (rex.ActorDiedError(), Failure.DETECTOR_LOST),
        (rex.ActorUnavailableError("away", b"0" * 16), Failure.DETECTOR_LOST),
        (RuntimeError("odd"), Failure.INTERNAL),
        ([], Failure.INTERNAL),
    ],
)
def test_a_fault_of_the_cluster_is_an_outcome(answer: Any, failure: Failure) -> None:
    """I1: nothing is raised once images are on their way, and nobody gets another's answer."""
    detector = Detector()
    detector.answer = lambda images: answer  # type: ignore[method-assign]
    assert widths(run(client(detector).detect([photo(1), b"", photo(2)]))) == [failure, "zero_sized", failure]


def test_who_leaves_a_stream_leaves_no_call_behind() -> None:
    """The calls under way are cancelled, so that the detector does not work for nobody."""
    detector = Detector(seconds=1000)

    async def story() -> None:
        answers = client(detector).stream(photo(n) for n in range(1, 100))
        waiting = asyncio.ensure_future(anext(answers))
        while not detector.under_way:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await answers.aclose()  # type: ignore[attr-defined]
        assert detector.under_way == 0

    run(story())
    assert detector.num_cancelled > 0


def test_wrong_use_is_an_error_of_the_caller() -> None:
    """One image instead of a list, or a priority that does not exist."""
    for one in (b"x", "a.jpg", photo(1), Path("a.jpg")):
        with pytest.raises(TypeError, match="list"):
            run(client(Detector()).detect(one))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="urgent"):
        run(client(Detector()).detect([photo(1)], priority="urgent"))
