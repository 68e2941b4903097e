"""Puts the images of many calls into common runs: two queues, deadlines, bounds. Uses asyncio, no threads.

An idle device takes what is here at once: the images of a call together, or a single image. While the device
works, the queue fills. The next batch is assembled when it is full, or as late as assembling it allows: the
device finds it ready when it ends a run, and until then more images may join it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, cast

from actors.call_settings import OF_FAMILY, AskedImage, CallSettings
from actors.errors import ActorError, Busy, DeadlineMissed, DetectorFault, DeviceFailed, NotReady
from actors.faces import Priority
from actors.images import PreparedImage
from actors.waiting import Entry, Result, TimedResult, WaitingCall

Shape = tuple[int, int]

#: Bulk images fill up an interactive batch while the run takes at most this many times as long as without
#: them.
_RIDE_ALONG = 1.25
#: The share of the queue that bulk images never take.
_KEPT_FOR_INTERACTIVE = 0.25
_LEAST_WAIT_S = 0.05
#: Going over an enumeration costs more than over a tuple, and this is done for every call.
_PRIORITIES = tuple(Priority)


@dataclass(slots=True, eq=False)
class _BatchUnderWay:
    """A batch that is assembled or run now; `ends` is when it should end, on the event loop's clock."""

    ends: float
    run_s: float
    num_images: int
    is_bulk: bool


class Batcher(Generic[Result]):
    """Collects images of many callers into batches of one shape.

    Args:
        run: runs one batch, given whether it goes before others, and what to call, from any thread, when the
            device begins with it; returns a result or a fault for each image, or raises the `DetectorFault`
            of all.
        best_batch: returns the batch size for a shape.
        expected_s: returns the seconds that a run of so many images of a shape takes.
        num_lanes: batches on the device at once.
        num_assembling: batches that are assembled meanwhile. Where one of them is bulk, one more interactive
            batch may begin, so that a person never waits behind a batch that has not begun.
        next_size: returns how many images of a shape the next run should hold, given how many wait; None
            takes the best size, or all that wait if those are fewer.
        assemble_s: returns the seconds that assembling so many images of a shape takes.
        max_queued: images that may wait; a quarter of these places is kept for interactive ones.
        is_alone: returns whether an image must have a run for itself.
    """

    def __init__(
        self,
        run: Callable[
            [Sequence[AskedImage], bool, Callable[[], None]], Awaitable[Sequence[Result | DetectorFault]]
        ],
        *,
        best_batch: Callable[[Shape], int],
        expected_s: Callable[[int, Shape], float],
        num_lanes: int,
        num_assembling: int = 0,
        next_size: Callable[[Shape, int], int] | None = None,
        assemble_s: Callable[[int, Shape], float] = lambda num_images, shape: 0.0,
        max_queued: int,
        is_alone: Callable[[PreparedImage], bool] = lambda image: False,
    ) -> None:
        self._run = run
        self._best_batch = best_batch
        self._expected_s = expected_s
        self._num_lanes = num_lanes
        self._num_assembling = num_assembling
        self._next_size = next_size or (lambda shape, num_waiting: min(num_waiting, best_batch(shape)))
        self._assemble_s = assemble_s
        self._fills_soon = False
        self._fill_later: asyncio.TimerHandle | None = None
        self._max_queued = max_queued
        self._is_alone = is_alone
        self._queues: dict[Priority, dict[Shape, deque[Entry[Result]]]] = {each: {} for each in _PRIORITIES}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[_BatchUnderWay] = set()
        self._closed = False

    @property
    def num_queued(self) -> int:
        """Images that wait for a run."""
        return sum([self.num_waiting(each) for each in _PRIORITIES])

    @property
    def num_running(self) -> int:
        """Images in the batches that are assembled or run now."""
        return sum(each.num_images for each in self._running)

    async def submit(
        self,
        images: Sequence[PreparedImage],
        priority: Priority = Priority.INTERACTIVE,
        deadline: float = math.inf,
        settings: CallSettings = OF_FAMILY,
    ) -> list[TimedResult[Result] | ActorError]:
        """Wait for the results of a call's images.

        Args:
            images: each prepared for one of the shapes.
            priority: interactive images are taken before bulk ones.
            deadline: moment on the event loop's clock, in seconds, after which the results are of no use.
            settings: of the call; images of calls with other settings may be in the same batch.

        Returns:
            For each image, in order, its result or why there is none:

            - `Busy`: the queue is full, or too long for this deadline; says how long to wait.
            - `DeadlineMissed`: no result came in time. An image that had not been run by then never is.
            - `NotReady`: the batcher is closed, or the run was given up.
            - `DetectorFault`: the run failed.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        call = WaitingCall(priority, deadline, now, loop.create_future(), len(images), settings)
        # Not `Entry[Result](…)`: calling the alias takes several times as long.
        entries: list[Entry[Result]] = [Entry(image, call) for image in images]
        is_hurried = self._is_hurried(images, priority, deadline - now)
        for entry in entries:
            if (
                refused := self._refusal(entry.image.shape, priority, deadline - now, is_hurried)
            ) is not None:
                entry.settle(refused)
            else:
                self._queues[priority].setdefault(entry.image.shape, deque()).append(entry)
                self._fill_lanes_soon()
        if call.num_open:
            late = None if math.isinf(deadline) else loop.call_at(deadline, self._end_late, entries)
            try:
                await call.settled
            finally:
                if late is not None:
                    late.cancel()
                if call.num_open:
                    # The call was cancelled: nobody waits for the images that are left.
                    self._give_up(entries, NotReady("The call was cancelled."))
        # Each is settled by now.
        return [cast(TimedResult[Result] | ActorError, entry.answer) for entry in entries]

    async def close(self) -> None:
        """Take no more images, and wait until those accepted are answered."""
        self._closed = True
        self._fill_lanes()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _is_hurried(self, images: Sequence[PreparedImage], priority: Priority, left_s: float) -> bool:
        """Whether the deadline may be too near for one of the images, so that each must be looked at."""
        if math.isinf(left_s) or not self._running:
            return False
        num_of = Counter([image.shape for image in images])
        own_s = sum([num * self._expected_s(1, shape) for shape, num in num_of.items()])
        return left_s < self._wait_s(priority) + own_s

    def _refusal(
        self, shape: Shape, priority: Priority, left_s: float, is_hurried: bool
    ) -> ActorError | None:
        """Why an image that comes now is not taken; None if it is."""
        if self._closed:
            return NotReady("The detector is stopping and takes no more images; ask again in a moment.", 1.0)
        max_queued = self._max_queued
        if priority is Priority.BULK:
            max_queued -= math.floor(self._max_queued * _KEPT_FOR_INTERACTIVE)
        if self._fills_soon and self.num_queued >= max_queued:
            self._fill_lanes()
        num_queued = self.num_queued
        if num_queued >= max_queued:
            wait_s = self._wait_s(priority)
            return Busy(f"{num_queued} images are waiting already; ask again in {wait_s:.1f} s.", wait_s)
        if is_hurried and self._running:
            run_s, wait_s = self._expected_s(1, shape), self._wait_s(priority)
            # Where even an idle device would be too slow, waiting for the queue would not help.
            if run_s <= left_s < wait_s + run_s:
                return Busy(
                    f"{num_queued} images are waiting already, and {left_s:.1f} s are too few for them and "
                    f"this one; ask again in {wait_s:.1f} s.",
                    wait_s,
                )
        return None

    def _wait_s(self, priority: Priority) -> float:
        """Seconds that the images before a new one of this priority should take."""
        ahead = (Priority.INTERACTIVE,) if priority is Priority.INTERACTIVE else _PRIORITIES
        seconds = 0.0
        for each in ahead:
            for shape, queue in self._queues[each].items():
                size = self._best_batch(shape)
                seconds += math.ceil(len(queue) / size) * self._expected_s(size, shape)
        return max(_LEAST_WAIT_S, self._until_lane_s() + seconds / self._num_lanes)

    def _until_lane_s(self) -> float:
        """Seconds until the first run under way should end; 0 where a lane is free."""
        if len(self._running) < self._num_lanes:
            return 0.0
        now = asyncio.get_running_loop().time()
        return max(0.0, min(each.ends for each in self._running) - now)

    def num_waiting(self, priority: Priority) -> int:
        """Images of one priority that wait for a run."""
        return sum([len(queue) for queue in self._queues[priority].values()])

    def _end_late(self, entries: Sequence[Entry[Result]]) -> None:
        """End the images of a call whose deadline has come."""
        waited_s = asyncio.get_running_loop().time() - entries[0].call.arrived
        self._give_up(
            entries,
            DeadlineMissed(
                f"No answer came within the {waited_s:.1f} s that were left; ask again, or allow more time."
            ),
        )

    def _give_up(self, entries: Sequence[Entry[Result]], why: ActorError) -> None:
        """Settle the images of a call that are still open, and take them out of their queues."""
        for entry in entries:
            if entry.answer is None:
                queue = self._queues[entry.call.priority].get(entry.image.shape)
                if queue and entry in queue:
                    queue.remove(entry)
                entry.settle(why)

    def _fill_lanes_soon(self) -> None:
        """Fill the lanes when every image that comes at this moment is here, as those of one call do."""
        if not self._fills_soon:
            self._fills_soon = True
            asyncio.get_running_loop().call_soon(self._fill_lanes)

    def _fill_lanes(self) -> None:
        self._fills_soon = False
        if self._fill_later is not None:
            self._fill_later.cancel()
            self._fill_later = None
        while self._has_lane():
            if (wait_s := self._may_wait_s()) > 0:
                self._fill_later = asyncio.get_running_loop().call_later(wait_s, self._fill_lanes)
                return
            batch = self._next_batch()
            if not batch:
                return
            shape = batch[0].image.shape
            begins = asyncio.get_running_loop().time() + self._until_lane_s()
            is_bulk = batch[0].call.priority is Priority.BULK
            run_s = self._expected_s(len(batch), shape)
            under_way = _BatchUnderWay(begins + run_s, run_s, len(batch), is_bulk)
            self._running.add(under_way)
            task = asyncio.get_running_loop().create_task(self._run_batch(batch, under_way))
            self._tasks.add(task)
            task.add_done_callback(partial(self._lane_is_free, under_way))

    def _may_wait_s(self) -> float:
        """Seconds for which the next batch may wait for more images, and be ready in time all the same."""
        first = self._first()
        if first is None or self._closed or len(self._running) < self._num_lanes:
            return 0.0
        shape = first.image.shape
        size = self._best_batch(shape)
        if self._is_alone(first.image) or self._num_of_shape(shape) >= size:
            return 0.0
        return self._until_lane_s() - self._assemble_s(size, shape)

    def _num_of_shape(self, shape: Shape) -> int:
        """Images of one shape that wait, of both priorities."""
        return sum([len(queue) for each in _PRIORITIES if (queue := self._queues[each].get(shape))])

    def _has_lane(self) -> bool:
        num_batches = self._num_lanes + self._num_assembling
        if (
            len(self._running) == num_batches
            and self._num_assembling
            and self.num_waiting(Priority.INTERACTIVE)
        ):
            return any(each.is_bulk for each in self._running)
        return len(self._running) < num_batches

    def _lane_is_free(self, batch: _BatchUnderWay, task: asyncio.Task[None]) -> None:
        self._running.discard(batch)
        self._tasks.discard(task)
        self._fill_lanes()

    def _next_batch(self) -> list[Entry[Result]]:
        """Take the image that has waited longest, interactive ones first, and others of its shape with it."""
        begins = asyncio.get_running_loop().time() + self._until_lane_s()
        while (first := self._first()) is not None:
            shape = first.image.shape
            batch: list[Entry[Result]] = []
            if self._is_alone(first.image):
                self._queues[first.call.priority][shape].popleft()
                self._take(batch, first, begins)
            else:
                size = self._next_size(shape, self._num_of_shape(shape))
                self._take_from(first.call.priority, shape, size, batch, begins)
                if first.call.priority is Priority.INTERACTIVE and batch:
                    limit_s = _RIDE_ALONG * self._expected_s(len(batch), shape)
                    while size > len(batch) and self._expected_s(size, shape) > limit_s:
                        size -= 1
                    self._take_from(Priority.BULK, shape, size, batch, begins)
            if batch:
                return batch
        return []

    def _first(self) -> Entry[Result] | None:
        for priority in (Priority.INTERACTIVE, Priority.BULK):
            heads = [queue[0] for queue in self._queues[priority].values() if queue]
            if heads:
                return min(heads, key=lambda entry: entry.call.arrived)
        return None

    def _take_from(
        self, priority: Priority, shape: Shape, size: int, batch: list[Entry[Result]], begins: float
    ) -> None:
        """Fill the batch up to `size` from one queue, up to the first image that must be alone."""
        queue = self._queues[priority].get(shape)
        while queue and len(batch) < size and not self._is_alone(queue[0].image):
            self._take(batch, queue.popleft(), begins)

    def _take(self, batch: list[Entry[Result]], entry: Entry[Result], begins: float) -> None:
        deadline = entry.call.deadline
        if entry.answer is not None:
            return
        if begins + self._expected_s(len(batch) + 1, entry.image.shape) > deadline:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            entry.settle(
                DeadlineMissed(
                    f"The image was not run: {left:.2f} s were left, too few for a run. Allow more time."
                )
            )
            return
        batch.append(entry)

    async def _run_batch(self, batch: list[Entry[Result]], under_way: _BatchUnderWay) -> None:
        loop = asyncio.get_running_loop()

        def begun_on_device() -> None:
            # A plain number, so that any thread may set it. Most runs begin later than it was expected, and
            # the next batch may take images for longer.
            under_way.ends = loop.time() + under_way.run_s

        begun = loop.time()
        first = any(entry.call.priority is Priority.INTERACTIVE for entry in batch)
        try:
            answers = await self._run([entry.asked for entry in batch], first, begun_on_device)
            if len(answers) != len(batch):
                raise DeviceFailed(
                    f"A batch of {len(batch)} images got {len(answers)} answers. Please report it."
                )
        except ActorError as error:
            self._fail(batch, error)
        except asyncio.CancelledError:
            self._fail(batch, NotReady("The run was given up because the detector is stopping; ask again."))
            raise
        except Exception as error:
            self._fail(
                batch, DetectorFault(f"A run failed in an unforeseen way: {error!r}. Please report it.")
            )
        else:
            run_ms = (loop.time() - begun) * 1000
            for entry, answer in zip(batch, answers, strict=True):
                if isinstance(answer, DetectorFault):
                    entry.settle(answer)
                else:
                    entry.settle(TimedResult(answer, (begun - entry.call.arrived) * 1000, run_ms))

    @staticmethod
    def _fail(batch: Sequence[Entry[Result]], error: ActorError) -> None:
        for entry in batch:
            entry.settle(error)
