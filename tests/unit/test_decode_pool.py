"""The pool of decode workers, with scripted ones: lanes, ends, replacement. Real ones are in tests/live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest

from actors.decode_cost import DecodeCost
from actors.decode_pool import DecodePool
from actors.errors import DetectorFault, ImageFault
from actors.faces import Rejection
from actors.images import Limits, PreparedImage
from actors.sole_worker import SoleWorker
from tests.virtual_time import run

LIMITS = Limits(max_pixels=200_000_000, max_bytes=200_000_000, max_decode_s=20.0)
SHAPES = ((64, 64),)
SMALL = DecodeCost(is_cheap=False, num_pixels=1000)
LARGE = DecodeCost(is_cheap=False, num_pixels=100_000_000)
UNKNOWN = DecodeCost(is_cheap=False, num_pixels=None)
PHOTO = PreparedImage(np.zeros((8, 8, 3), np.uint8), 8, 8, (64, 64), 0.0, "digest")


class Worker:
    """Answers what `says` says; a fault is raised.

    Attributes:
        ended: how often it was ended.
        cpu_s: processor time that it says it has used.
        is_alive: whether its process runs.
        slowed: how often it was told to let others go first.
    """

    def __init__(self, says: Callable[[bytes], PreparedImage | Exception]) -> None:
        self._says = says
        self.asked: list[bytes] = []
        self.ended = self.slowed = 0
        self.cpu_s = 0.0
        self.is_alive = True

    def ask(self, encoded: bytes, shapes: Any, limits: Limits, max_enlargement: float) -> PreparedImage:
        self.asked.append(encoded)
        said = self._says(encoded)
        if isinstance(said, Exception):
            raise said
        return said

    def slow_down(self) -> None:
        self.slowed += 1

    def end(self) -> None:
        self.ended += 1


class Threads(Executor):
    """Does each piece of work at once, but keeps the result of what decodes b"held…" until it is let go."""

    def __init__(self, num_threads: int = 1, name: str = "") -> None:
        self.num_threads = num_threads
        self.held: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()

        def finish() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(fn(*args, **kwargs))
            except Exception as error:
                done.set_exception(error)

        photo = getattr(fn, "args", (b"",))[0]
        if isinstance(photo, bytes) and photo.startswith(b"held"):
            self.held.append(finish)
        else:
            finish()
        return done


class Scene:
    """A pool with its threads and all workers that it started."""

    def __init__(self, num_workers: int = 2, says: Callable[[bytes], Any] = lambda encoded: PHOTO) -> None:
        self.threads = Threads()
        self.workers: list[Worker] = []
        self._says = says
        self.pool = DecodePool(num_workers, LIMITS, lambda num, name: self.threads, self._start)

    def _start(self, max_decode_bytes: int) -> Worker:
        assert max_decode_bytes == LIMITS.max_decode_bytes
        self.workers.append(Worker(self._says))
        return self.workers[-1]

    def task(self, encoded: bytes, cost: DecodeCost = SMALL) -> asyncio.Task[PreparedImage]:
        return asyncio.ensure_future(self.pool.prepare(encoded, cost, SHAPES, 2.0))

    @property
    def ended(self) -> list[int]:
        return [each.ended for each in self.workers]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_worker_is_started_when_it_is_needed_and_kept() -> None:
    async def story() -> None:
        scene = Scene()
        await settle()
        assert scene.workers == []
        for photo in (b"first", b"second"):
            assert await scene.task(photo) is PHOTO
        (worker,) = scene.workers
        assert (worker.asked, worker.ended) == ([b"first", b"second"], 0)
        scene.pool.close()
        assert worker.ended

    run(story())


def test_large_photos_take_turns_and_others_pass_them() -> None:
    """Two large ones at once would need twice the memory; a photo of unknown size may be large."""

    async def story() -> None:
        scene = Scene()
        large = [scene.task(b"held large", LARGE), scene.task(b"held unknown", UNKNOWN)]
        await settle()
        assert len(scene.threads.held) == 1
        assert await scene.task(b"small") is PHOTO
        assert [each.slowed for each in scene.workers] == [1, 0]
        scene.threads.held.pop()()
        await settle()
        assert large[0].done()
        scene.threads.held.pop()()
        assert await large[1] is PHOTO
        # Each lane keeps its worker: a small photo must not get the slow one, nor wait for a new one.
        assert await scene.task(b"small") is PHOTO
        assert [len(each.asked) for each in scene.workers] == [2, 2]
        scene.pool.close()

    run(story())


def test_there_are_no_more_workers_than_places() -> None:
    async def story() -> None:
        scene = Scene(num_workers=2)
        tasks = [scene.task(b"held") for _ in range(5)]
        await settle()
        assert len(scene.workers) == 2
        while scene.threads.held:
            scene.threads.held.pop()()
            await settle()
        assert await asyncio.gather(*tasks) == [PHOTO] * 5
        assert len(scene.workers) == 2
        scene.pool.close()

    run(story())


def test_a_deadline_kills_the_worker_and_its_place_is_free() -> None:
    async def story() -> None:
        scene = Scene(num_workers=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await scene.pool.prepare(b"held", SMALL, SHAPES, 2.0)
        assert scene.ended == [1]
        assert await scene.task(b"next") is PHOTO
        assert scene.ended == [1, 0]
        scene.pool.close()

    run(story())


def test_a_caller_that_gives_up_while_it_waits_costs_no_place() -> None:
    async def story() -> None:
        scene = Scene(num_workers=1)
        busy, waiting = scene.task(b"held"), scene.task(b"waiting")
        await settle()
        waiting.cancel()
        await settle()
        scene.threads.held.pop()()
        assert await busy is PHOTO
        assert await scene.task(b"next") is PHOTO
        assert scene.ended == [0]
        scene.pool.close()

    run(story())


def test_a_worker_that_is_stuck_is_killed() -> None:
    """It uses no processor time, so its own limit does not end it."""

    async def story() -> None:
        scene = Scene()
        begun = asyncio.get_running_loop().time()
        with pytest.raises(ImageFault, match="took 60 s") as caught:
            await scene.pool.prepare(b"held", SMALL, SHAPES, 2.0)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(60, abs=1)
        assert caught.value.reason is Rejection.TOO_COSTLY
        assert scene.ended == [1]
        scene.pool.close()

    run(story())


@pytest.mark.parametrize(
    ("fault", "is_kept"),
    [
        (ImageFault(Rejection.TRUNCATED, "cut short"), True),
        (ImageFault(Rejection.TOO_COSTLY, "its time was up"), False),
        (ImageFault(Rejection.DAMAGED, "a part is missing"), True),
        (DetectorFault("ended from outside"), False),
        (KeyError("unforeseen"), False),
    ],
)
def test_a_worker_is_replaced_if_it_may_be_gone(fault: Exception, is_kept: bool) -> None:
    async def story() -> None:
        scene = Scene(says=lambda encoded: fault if encoded == b"bad" else PHOTO)
        with pytest.raises(type(fault)):
            await scene.task(b"bad")
        assert await scene.task(b"good") is PHOTO
        assert scene.ended == ([0] if is_kept else [1, 0])
        scene.pool.close()

    run(story())


def test_a_worker_is_replaced_after_many_photos() -> None:
    """What a decoder leaks ends with it."""

    async def story() -> None:
        scene = Scene()
        for _ in range(501):
            await scene.task(b"photo")
        assert [len(each.asked) for each in scene.workers] == [500, 1]
        assert scene.ended == [1, 0]
        scene.pool.close()

    run(story())


def test_a_slow_photo_lets_others_go_first() -> None:
    """And its worker is not used again: only an administrator could make it fast again."""

    async def story() -> None:
        scene = Scene()
        slow = scene.task(b"held")
        await asyncio.sleep(0.9)
        assert scene.workers[0].slowed == 0
        await asyncio.sleep(0.2)
        assert scene.workers[0].slowed == 1
        scene.threads.held.pop()()
        assert await slow is PHOTO
        assert scene.ended == [1]
        scene.pool.close()

    run(story())


def test_a_photo_that_takes_long_after_all_goes_on_in_the_slow_lane() -> None:
    """Its place is free for others, of which each takes less than a second."""

    async def story() -> None:
        scene = Scene(num_workers=1)
        bomb = scene.task(b"held bomb")
        await asyncio.sleep(1.5)
        scene.workers[0].cpu_s = 1.0
        behind = scene.task(b"photo")
        await asyncio.sleep(2)
        assert (behind.done(), scene.ended) == (False, [0])
        scene.workers[0].cpu_s = 4.0
        await asyncio.sleep(1)
        assert (await behind, bomb.done()) == (PHOTO, False)
        # The bomb's first worker, its second one, and that of the photo, which alone has answered yet.
        asked = sorted((each.ended, each.slowed, each.asked) for each in scene.workers)
        assert asked == [(0, 0, [b"photo"]), (0, 1, []), (1, 1, [])]
        for each in scene.workers:
            each.cpu_s += 20
        await asyncio.sleep(10)
        scene.threads.held.pop()()
        assert await bomb is PHOTO
        scene.pool.close()

    run(story())


def test_a_photo_that_waits_for_a_core_stays_in_the_quick_lane() -> None:
    """Only processor time counts: the machine may be busy."""

    async def story() -> None:
        scene = Scene(num_workers=1)
        slow = scene.task(b"held")
        await asyncio.sleep(30)
        scene.threads.held.pop()()
        assert await slow is PHOTO
        assert len(scene.workers) == 1
        scene.pool.close()

    run(story())


def test_a_worker_without_work_is_ended_after_a_while() -> None:
    async def story() -> None:
        scene = Scene()
        await scene.task(b"photo")
        await asyncio.sleep(29)
        await scene.task(b"photo")
        await asyncio.sleep(29)
        assert scene.ended == [0]
        await asyncio.sleep(2)
        assert scene.ended == [1]
        assert await scene.task(b"photo") is PHOTO
        scene.pool.close()

    run(story())


def test_a_worker_that_was_killed_while_it_had_no_work_costs_no_photo() -> None:
    async def story() -> None:
        scene = Scene()
        await scene.task(b"photo")
        scene.workers[0].is_alive = False
        assert await scene.task(b"photo") is PHOTO
        assert [len(each.asked) for each in scene.workers] == [1, 1]
        scene.pool.close()

    run(story())


def test_a_closed_pool_has_no_worker() -> None:
    """One that decodes is killed, and none is started any more."""

    async def story() -> None:
        scene = Scene()
        busy = scene.task(b"held")
        await settle()
        scene.pool.close()
        assert scene.ended == [1]
        with pytest.raises(DetectorFault, match="closed"):
            await scene.pool.prepare(b"late", SMALL, SHAPES, 2.0)
        busy.cancel()
        await settle()

    run(story())


def test_a_photo_whose_cost_is_known_starts_no_worker() -> None:
    async def story() -> None:
        scene = Scene()
        with pytest.raises(ImageFault, match="a JPEG of many scans"):
            await scene.task(b"bomb", DecodeCost(False, 10, cpu_s=300.0, what="a JPEG of many scans"))
        assert scene.workers == []

    run(story())


def test_a_task_that_is_interrupted_leaves_no_worker() -> None:
    """Ray cancels a task so."""

    def interrupted(encoded: bytes) -> PreparedImage:
        raise KeyboardInterrupt

    worker = Worker(interrupted)
    with pytest.raises(KeyboardInterrupt):
        SoleWorker(lambda max_decode_bytes: worker).prepare_apart(b"photo", SHAPES, LIMITS, 2.0)
    assert worker.ended == 1


def test_a_process_without_a_loop_keeps_one_worker() -> None:
    """It is replaced when the photo may have ended it."""
    workers: list[Worker] = []

    def start(max_decode_bytes: int) -> Worker:
        faults = {b"cut": ImageFault(Rejection.TRUNCATED, ""), b"bomb": ImageFault(Rejection.TOO_COSTLY, "")}
        workers.append(Worker(lambda encoded: faults.get(encoded, PHOTO)))
        return workers[-1]

    sole = SoleWorker(start)
    for photo in (b"good", b"cut", b"bomb", b"good"):
        try:
            sole.prepare_apart(photo, SHAPES, LIMITS, 2.0)
        except ImageFault:
            assert photo != b"good"
    assert [each.asked for each in workers] == [[b"good", b"cut", b"bomb"], [b"good"]]
    assert [each.ended for each in workers] == [1, 0]
