"""The story of one call, told to a scripted detector in virtual time: order, bounds, deadlines, faults."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.faces import Detected, Failure, Outcome, Rejected
from cluster.client.detector import Detector
from cluster.client.detector_pool import DetectorPool
from cluster.client.face_client import FaceClient
from cluster.settings import load_settings
from tests.unit.fake_cluster import FakeCluster, detected, failed, health, lost


async def collected(answers: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in answers]


def photo(width: int) -> np.ndarray[Any, Any]:
    return np.zeros((1, width, 3), np.uint8)


def client(cluster: FakeCluster, **changes: Any) -> FaceClient:
    """Made inside a running loop; `changes` are of the settings of clients."""
    settings = load_settings(client={"num_prepare_threads": 1, **changes})
    log = logging.getLogger("test")
    pool = DetectorPool(cluster, settings.circuit, log)
    pool.detectors["FaceDetector"] = known = Detector("FaceDetector", settings.circuit, 0.0)
    known.hear(asyncio.get_running_loop().time(), health())
    return FaceClient(cluster, pool, settings, log)  # type: ignore[arg-type]  # a fake in place of a connection


async def asking(cluster: FakeCluster, images: Any, **options: Any) -> list[Outcome]:
    """One call of a client of its own."""
    return await client(cluster).detect(images, **options)


def widths(outcomes: Sequence[Outcome]) -> list[Any]:
    return [each.width if isinstance(each, Detected) else each.reason for each in outcomes]  # type: ignore[attr-defined]


def run(story: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await story

    return asyncio.run(bounded())


def test_outcomes_come_in_order_whatever_happens_to_each(tmp_path: Path) -> None:
    """I1, I3: refused here, answered there, failed there: each at its own place."""

    class Mixed(FakeCluster):
        def answer(self, images: Sequence[Any]) -> Any:
            return [failed(Failure.DEVICE_FAILED) if i.width == 3 else detected(i.width) for i in images]

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
    detector = FakeCluster(seconds=0.001)

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
        answers = client(FakeCluster(), images_per_call=4, max_calls_in_flight=2).stream(source())
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

        answers = client(FakeCluster()).stream(source())
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
            await collected(client(FakeCluster()).stream(source()))

    run(story())


def test_busy_images_are_asked_for_again_and_only_those() -> None:
    """I6: flow control, within the same deadline; the answered ones are left alone."""

    asked: Counter[int] = Counter()

    class OddOnesBusyAtFirst(FakeCluster):
        def answer(self, images: Sequence[Any]) -> Any:
            asked.update(image.width for image in images)
            return [
                failed(Failure.BUSY, 0.01)
                if image.width % 2 and asked[image.width] == 1
                else detected(image.width)
                for image in images
            ]

    outcomes = run(asking(OddOnesBusyAtFirst(), [photo(n) for n in range(1, 9)]))
    assert widths(outcomes) == list(range(1, 9))
    assert asked == {n: 1 + n % 2 for n in range(1, 9)}


def test_busy_beyond_the_deadline_is_said() -> None:
    """I6: no waiting for what cannot come in time."""

    class Busy(FakeCluster):
        def answer(self, images: Sequence[Any]) -> Any:
            return [failed(Failure.BUSY, 60.0) for _ in images]

    detector = Busy()
    assert widths(run(asking(detector, [photo(1)], deadline_s=1.0))) == [Failure.BUSY]
    assert detector.calls == [1]


def test_a_deadline_ends_a_call_that_hangs() -> None:
    """I6: the caller gets an outcome, whatever the cluster does."""
    outcomes = run(asking(FakeCluster(seconds=1000), [photo(1), photo(2)], deadline_s=0.05))
    assert widths(outcomes) == [Failure.DEADLINE, Failure.DEADLINE]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (lost(), Failure.DETECTOR_LOST),
        (lost(Failure.NO_CLUSTER), Failure.NO_CLUSTER),
        (lost(Failure.INTERNAL), Failure.INTERNAL),
        ([], Failure.INTERNAL),
    ],
)
def test_a_fault_of_the_cluster_is_an_outcome(answer: Any, failure: Failure) -> None:
    """I1: nothing is raised once images are on their way, and nobody gets another's answer."""
    detector = FakeCluster()
    detector.script = lambda images: answer
    assert widths(run(asking(detector, [photo(1), b"", photo(2)]))) == [failure, "zero_sized", failure]


def test_who_leaves_a_stream_leaves_no_call_behind() -> None:
    """The calls under way are cancelled, so that the detector does not work for nobody."""
    detector = FakeCluster(seconds=1000)

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
            run(asking(FakeCluster(), one))
    with pytest.raises(ValueError, match="urgent"):
        run(asking(FakeCluster(), [photo(1)], priority="urgent"))
