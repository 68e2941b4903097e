"""What goes wrong before or during a run, and which images it costs; all in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.errors import Busy, DeadlineMissed, DeviceFailed, NotReady
from actors.faces import Priority
from actors.images import PreparedImage
from tests.unit.batching import Device, answers
from tests.virtual_time import run

LANDSCAPE = (480, 640)


def test_a_suspect_has_a_run_for_itself() -> None:
    """The images before and after the suspect are batched as usual."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher(size=4, is_alone=lambda image: image.height - 80 == 3)
        assert await answers(batcher, range(8), priority=Priority.BULK) == list(range(8))

    run(story())
    assert device.batches == [[0, 1, 2], [3], [4, 5, 6, 7]]


def test_a_fault_of_one_image_is_that_images_alone() -> None:
    """I3: a run may answer each image separately."""
    device = Device()
    device.broken = lambda batch: [
        DeviceFailed("odd") if image.height == 82 else image.height for image in batch
    ]

    async def story() -> None:
        got = await answers(device.batcher(), range(5))
        assert [type(each) for each in got] == [int, int, DeviceFailed, int, int]

    run(story())


def test_a_deadline_during_the_run_is_kept() -> None:
    """I6: a device that is slower than measured does not make the caller wait past the deadline."""
    device = Device(seconds=60.0)

    async def story() -> None:
        assert isinstance((await answers(device.batcher(), [0], deadline=5.0))[0], DeadlineMissed)
        assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.01)

    run(story())


def test_a_full_queue_says_how_long_to_wait() -> None:
    """I6: memory is bounded. Two images run, two wait, and the others are told when to come again."""
    device = Device()

    async def story() -> None:
        got = await answers(device.batcher(size=2, most=2), range(6))
        assert got[:4] == [0, 1, 2, 3]
        assert all(isinstance(each, Busy) and each.retry_after_s == pytest.approx(2.0) for each in got[4:])

    run(story())


def test_a_caller_who_leaves_frees_its_place() -> None:
    """An image whose caller was cancelled while it waited is neither run nor counted."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher()
        staying = asyncio.create_task(answers(batcher, [0]))
        await asyncio.sleep(0.1)
        leaving = asyncio.create_task(answers(batcher, [1]))
        await asyncio.sleep(0.2)
        assert batcher.num_queued == 1
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert batcher.num_queued == 0
        assert await staying == [0]

    run(story())
    assert device.batches == [[0]]


def test_a_failing_run_costs_its_own_batch_only() -> None:
    """I3: the batches before and after it are answered."""
    device = Device()

    def broken(batch: Sequence[PreparedImage]) -> None:
        if batch[0].height - 80 == 2:
            raise DeviceFailed("out of order")

    device.broken = broken

    async def story() -> None:
        got = await answers(device.batcher(size=2), range(6))
        assert [type(each) for each in got] == [int, int, DeviceFailed, DeviceFailed, int, int]

    run(story())


@pytest.mark.parametrize("spoiled", [[], [1, 2, 3]])
def test_a_wrong_number_of_answers_is_a_fault(spoiled: list[int]) -> None:
    """I1: nobody gets the answer for another image."""
    device = Device()
    device.broken = lambda batch: spoiled

    async def story() -> None:
        assert isinstance((await answers(device.batcher(), [0]))[0], DeviceFailed)

    run(story())


def test_closing_answers_what_was_accepted() -> None:
    """A closed batcher accepts no more images."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher(size=1)
        accepted = asyncio.create_task(answers(batcher, range(3)))
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.1)
        assert isinstance((await answers(batcher, [9]))[0], NotReady)
        await closing
        assert await accepted == [0, 1, 2]

    run(story())


def test_a_run_that_is_cancelled_leaves_nobody_waiting() -> None:
    """The image of that run fails, and the next batch runs on the device."""
    device = Device(seconds=100.0)

    async def story() -> list[Any]:
        batcher = device.batcher(size=1)
        asking = asyncio.create_task(answers(batcher, [1, 2]))
        await asyncio.sleep(1.0)
        device.cancel()
        return await asking

    assert [type(each) for each in run(story())] == [NotReady, int]
