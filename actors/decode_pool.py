"""Photos are decoded where that can be ended: the cheap ones in threads, all others in worker processes.

An ordinary JPEG has a bounded cost, so it stays in a thread, which costs less. Every other photo goes to a
worker, which is killed when its owner's deadline passes and ends itself at its limits of memory and time.
There are two lanes: a photo that declares much waits in the slow lane, behind others of its kind only, and
its worker lets all other work of the machine go first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from functools import partial

from actors.decode_cost import DecodeCost, check_cost
from actors.decode_worker import ENDS_A_WORKER, Decoder, DecodeWorker, max_wall_s, stuck
from actors.errors import DetectorFault, ImageFault
from actors.images import Limits, PreparedImage

#: Photos of more pixels, and of an unknown number, take turns: a decoder may need 17 bytes for a pixel.
_MAX_QUICK_PIXELS = 25_000_000
_MAX_QUICK_S = 1.0
#: A worker that decodes longer than this lets other work go first from then on; few photos take so long.
_SLOW_AFTER_S = 1.0
#: A photo that needs more processor time than this in the quick lane begins again in the slow one. No photo
#: as cameras and programs save it does.
_MAX_QUICK_CPU_S = 3.0
#: Photos after which a worker is replaced: what a decoder leaks ends with it.
_MAX_PHOTOS = 500
#: Seconds after which a worker without work is ended; it holds 70 MB.
_IDLE_S = 30.0


#: The arguments of `Decoder.ask`.
_Order = tuple[bytes, tuple[tuple[int, int], ...], Limits, float]


class _TakesLong(Exception):
    """A photo of the quick lane is none for it."""


class DecodePool:
    """Worker processes, started when they are first needed; belongs to one event loop.

    Args:
        num_workers: processes in the quick lane at most; the slow lane has one more.
        limits: of each photo.
        threads: makes the threads that wait for workers, from a number and a name.
        start: starts a worker, from the bytes that decoding one photo may take.
    """

    def __init__(
        self,
        num_workers: int,
        limits: Limits,
        threads: Callable[[int, str], Executor],
        start: Callable[[int], Decoder] = DecodeWorker.start,
    ) -> None:
        self._limits = limits
        self._start = start
        self._make_threads = partial(threads, num_workers + 1, "rayface-decode")
        self._threads: Executor | None = None
        self._quick, self._slow = _Lane(num_workers, is_slow=False), _Lane(1, is_slow=True)
        self._busy: set[_Worker] = set()
        self._is_closed = False

    async def prepare(
        self,
        encoded: bytes,
        cost: DecodeCost,
        shapes: tuple[tuple[int, int], ...],
        max_enlargement: float,
    ) -> PreparedImage:
        """Prepare a photo in a worker; see `actors.images.prepare`. On cancellation, the worker is killed.

        Args:
            encoded: the photo.
            cost: of the photo.
            shapes: tensor sizes (height, width) to choose from.
            max_enlargement: factor by which a small photo is enlarged at most.

        Raises:
            ImageFault: the photo cannot be used, or it is too costly.
            DetectorFault: there is no worker; says why.
        """
        check_cost(cost, self._limits)
        is_quick = (
            cost.num_pixels is not None
            and cost.num_pixels <= _MAX_QUICK_PIXELS
            and cost.cpu_s <= _MAX_QUICK_S
        )
        order = (encoded, shapes, self._limits, max_enlargement)
        if is_quick:
            with suppress(_TakesLong):
                return await self._prepare_in(self._quick, order)
        return await self._prepare_in(self._slow, order)

    def close(self) -> None:
        """Kill all workers; nobody may ask any more."""
        self._is_closed = True
        for worker in (*self._quick.idle, *self._slow.idle, *self._busy):
            worker.end()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _prepare_in(self, lane: _Lane, order: _Order) -> PreparedImage:
        async with lane.places, self._worker(lane) as worker:
            return await self._ask(worker, order, may_be_long=lane.is_slow)

    async def _ask(self, worker: _Worker, order: _Order, *, may_be_long: bool) -> PreparedImage:
        loop = asyncio.get_running_loop()
        worker.num_photos += 1
        wall_s = max_wall_s(self._limits)
        takes_long = False
        looking: asyncio.TimerHandle

        def look(cpu_s_before: float | None = None) -> None:
            nonlocal looking, takes_long
            if not worker.is_slow:
                worker.slow_down()
            if may_be_long or waiting.expired():
                return
            cpu_s = worker.decoder.cpu_s
            if cpu_s_before is None:
                # This photo has used a second of it at most.
                cpu_s_before = cpu_s
            takes_long = cpu_s - cpu_s_before > _MAX_QUICK_CPU_S - _SLOW_AFTER_S
            if takes_long:
                waiting.reschedule(loop.time())
            else:
                looking = loop.call_later(_SLOW_AFTER_S, look, cpu_s_before)

        looking = loop.call_later(_SLOW_AFTER_S, look)
        try:
            async with asyncio.timeout(wall_s) as waiting:
                return await loop.run_in_executor(self._executor(), partial(worker.decoder.ask, *order))
        except TimeoutError:
            raise (_TakesLong() if takes_long else stuck(wall_s)) from None
        finally:
            looking.cancel()

    @asynccontextmanager
    async def _worker(self, lane: _Lane) -> AsyncIterator[_Worker]:
        """A worker for one photo. It is ended if the block fails in any way but by a fault of the image.

        One that broke down over its photo is noticed when the next photo comes.
        """
        while lane.idle:
            worker = lane.idle.pop()
            worker.is_wanted()
            if worker.decoder.is_alive:
                break
            worker.end()
        else:
            worker = await self._started()
            if lane.is_slow:
                worker.slow_down()
        self._busy.add(worker)
        is_good = False
        try:
            yield worker
            is_good = True
        except ImageFault as fault:
            is_good = fault.reason not in ENDS_A_WORKER
            raise
        finally:
            self._busy.discard(worker)
            is_too_slow = worker.is_slow and not lane.is_slow
            if self._is_closed or not is_good or is_too_slow or worker.num_photos >= _MAX_PHOTOS:
                worker.end()
            else:
                lane.idle.append(worker)
                worker.may_end_in(_IDLE_S, lane.idle)

    async def _started(self) -> _Worker:
        if self._is_closed:
            raise DetectorFault("The client is closed; make another one.")
        starting = asyncio.get_running_loop().run_in_executor(
            self._executor(), self._start, self._limits.max_decode_bytes
        )
        try:
            return _Worker(await asyncio.shield(starting))
        except asyncio.CancelledError:
            # Nobody waits for it any more, and the thread cannot be stopped.
            starting.add_done_callback(_end_late)
            raise

    def _executor(self) -> Executor:
        if self._threads is None:
            self._threads = self._make_threads()
        return self._threads


class _Worker:
    """A worker in the pool.

    Attributes:
        decoder: the process.
        num_photos: that it was asked for.
        is_slow: it lets other work go first, and nothing can take that back.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.num_photos = 0
        self.is_slow = False
        self._end_of_idling: asyncio.TimerHandle | None = None

    def slow_down(self) -> None:
        """Let other work of this machine go first from now on."""
        self.is_slow = True
        self.decoder.slow_down()

    def may_end_in(self, seconds: float, idle: list[_Worker]) -> None:
        """End the worker after this time and take it off the list, unless it is wanted before."""

        def end() -> None:
            idle.remove(self)
            self.end()

        self._end_of_idling = asyncio.get_running_loop().call_later(seconds, end)

    def is_wanted(self) -> None:
        """Work has come for it."""
        if self._end_of_idling is not None:
            self._end_of_idling.cancel()

    def end(self) -> None:
        """Kill the process."""
        self.is_wanted()
        self.decoder.end()


class _Lane:
    """Places for photos, and the workers that have no work. A lane has workers of its own.

    Args:
        num_workers: that it has at most.
        is_slow: its workers let all other work of the machine go first.
    """

    def __init__(self, num_workers: int, *, is_slow: bool) -> None:
        self.places = asyncio.Semaphore(num_workers)
        self.is_slow = is_slow
        self.idle: list[_Worker] = []


def _end_late(starting: asyncio.Future[Decoder]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().end()
