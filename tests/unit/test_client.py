"""The story of one call, told to a scripted detector in virtual time: order, bounds, deadlines, faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.faces import Detected, Failed, Failure, Outcome, Rejected
from tests.unit.clients import asking, client_on, photo, photos
from tests.unit.fake_cluster import FakeCluster, detected, failed, lost
from tests.virtual_time import run


def widths(outcomes: Sequence[Outcome]) -> list[Any]:
    """The width of each photo that was searched; of the others, why not."""
    return [
        each.width if isinstance(each, Detected) else each.reason
        for each in outcomes
        if isinstance(each, Detected | Rejected | Failed)
    ]


async def as_they_come(images: Sequence[Any]) -> AsyncIterator[Any]:
    """A source that has one image ready at a time."""
    for image in images:
        yield image


def test_outcomes_come_in_order_whatever_happens_to_each(tmp_path: Path) -> None:
    """I1, I3: an image refused here, answered there or failed there has its outcome at its own place."""

    class Mixed(FakeCluster):
        def answer(self, images: Sequence[Any]) -> Any:
            return [failed(Failure.DEVICE_FAILED) if i.width == 3 else detected(i.width) for i in images]

    async def story() -> None:
        images = [photo(1), b"", photo(3), tmp_path / "missing.jpg", photo(5), b"text"]
        outcomes = await asking(Mixed(), images)
        assert widths(outcomes) == [1, "zero_sized", Failure.DEVICE_FAILED, "unreadable", 5, "not_an_image"]
        refused = outcomes[1]
        assert isinstance(refused, Rejected)
        assert refused.stamp.served_by == "client"

    run(story())


def test_many_images_travel_in_bounded_calls() -> None:
    """I6: never more images in a call, nor calls under way, than the settings say."""
    detector = FakeCluster(seconds=0.001)

    async def story() -> None:
        async with client_on(detector, client={"images_per_call": 4, "max_calls_in_flight": 3}) as client:
            assert widths(await client.detect(photos(60))) == list(range(1, 61))

    run(story())
    assert max(detector.calls) <= 4
    assert 1 < detector.most_under_way <= 3


def test_a_stream_is_read_no_further_than_it_is_answered() -> None:
    """I6: memory is bounded by the calls in flight, however long the source is."""
    num_read = 0

    async def source() -> AsyncIterator[Any]:
        nonlocal num_read
        while True:
            num_read += 1
            yield photo(num_read)

    async def story() -> None:
        async with client_on(
            FakeCluster(), client={"images_per_call": 4, "max_calls_in_flight": 2}
        ) as client:
            answers = client.stream(source())
            for number in range(1, 101):
                assert widths([await anext(answers)]) == [number]
                await asyncio.sleep(0.1)
                assert num_read - number <= 4 * 2 + 4 + 2 + 4
            await answers.aclose()

    run(story())


def test_an_answer_does_not_wait_for_a_source_that_stalls() -> None:
    """A caller who feeds photos by hand sees each answer before giving the next photo."""

    async def story() -> None:
        asked: asyncio.Queue[Any] = asyncio.Queue()

        async def source() -> AsyncIterator[Any]:
            while True:
                yield await asked.get()

        async with client_on(FakeCluster()) as client:
            answers = client.stream(source())
            for number in range(1, 6):
                asked.put_nowait(photo(number))
                assert widths([await anext(answers)]) == [number]
            await answers.aclose()

    run(story())


def test_a_source_that_fails_says_so_after_what_it_gave() -> None:
    """The source's own error reaches the caller, and nothing hangs."""

    async def source() -> AsyncIterator[Any]:
        yield photo(1)
        raise OSError("the disk is gone")

    async def story() -> None:
        async with client_on(FakeCluster()) as client:
            answers = client.stream(source())
            assert widths([await anext(answers)]) == [1]
            with pytest.raises(OSError, match="the disk is gone"):
                await anext(answers)

    run(story())


def test_busy_images_are_asked_for_again_and_only_those() -> None:
    """I6: only the busy images are sent again, within the same deadline."""

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

    outcomes = run(asking(OddOnesBusyAtFirst(), photos(8)))
    assert widths(outcomes) == list(range(1, 9))
    assert asked == {n: 1 + n % 2 for n in range(1, 9)}


def test_busy_beyond_the_deadline_is_said() -> None:
    """I6: the call does not wait for an answer that cannot come in time."""

    class Busy(FakeCluster):
        def answer(self, images: Sequence[Any]) -> Any:
            return [failed(Failure.BUSY, 60.0) for _ in images]

    detector = Busy()
    assert widths(run(asking(detector, [photo(1)], deadline_s=1.0))) == [Failure.BUSY]
    assert detector.calls == [1]


def test_a_deadline_ends_a_call_that_hangs() -> None:
    """I6: the caller gets an outcome, whatever the cluster does."""

    async def story() -> None:
        begun = asyncio.get_running_loop().time()
        outcomes = await asking(FakeCluster(seconds=1000), photos(2), deadline_s=5.0)
        assert widths(outcomes) == [Failure.DEADLINE, Failure.DEADLINE]
        assert asyncio.get_running_loop().time() - begun < 6.0

    run(story())


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
    """I1: nothing is raised once images were sent, and nobody gets the answer for another image."""
    detector = FakeCluster()
    detector.answer = lambda images: answer  # type: ignore[method-assign]  # its script
    assert widths(run(asking(detector, [photo(1), b"", photo(2)]))) == [failure, "zero_sized", failure]


def test_who_leaves_a_stream_leaves_no_call_behind() -> None:
    """The calls under way are cancelled, so that the detector does no work that nobody wants."""
    detector = FakeCluster(seconds=1000)

    async def story() -> None:
        async with client_on(detector) as client:
            answers = client.stream(as_they_come(photos(100)))
            waiting = asyncio.ensure_future(anext(answers))
            while not detector.under_way:
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await answers.aclose()
            assert detector.under_way == 0

    run(story())
    assert detector.num_cancelled > 0


@pytest.mark.parametrize("one", [b"x", "a.jpg", Path("a.jpg")])
def test_one_image_is_no_stream(one: Any) -> None:
    """Its letters would be taken for images."""

    async def story() -> None:
        async with client_on(FakeCluster()) as client:
            with pytest.raises(TypeError, match="list"):
                client.stream(one)

    run(story())


def test_wrong_use_is_an_error_of_the_caller() -> None:
    """One image instead of a list, or a priority that does not exist."""
    for one in (b"x", "a.jpg", photo(1), Path("a.jpg")):
        with pytest.raises(TypeError, match="list"):
            run(asking(FakeCluster(), one))
    with pytest.raises(ValueError, match="urgent"):
        run(asking(FakeCluster(), [photo(1)], priority="urgent"))
