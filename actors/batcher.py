"""Many calls, one run: two queues, deadlines, one batch a lane. asyncio only; knows no device and no thread.

Batches are taken when a lane is free, never by a timer: while the device works, the queue fills by itself,
and an idle device takes a lone image at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from actors.errors import ActorError, Busy, DeadlineMissed, DetectorFault, DeviceFailed, NotReady
from actors.faces import Priority
from actors.images import PreparedImage

Answer = TypeVar("Answer")
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Answered(Generic[Answer]):
    """One image's answer and where its time went, in milliseconds."""

    value: Answer
    queue_ms: float
    run_ms: float


@dataclass(slots=True, eq=False)
class _Entry(Generic[Answer]):
    image: PreparedImage
    priority: Priority
    deadline: float
    arrived: float
    answer: asyncio.Future[Answered[Answer]] = field(repr=False)


class Batcher(Generic[Answer]):
    """Collects images of many callers into batches of one shape.

    Args:
        run: runs one batch and gives one answer an image; raises `DetectorFault`.
        best_batch: the batch size for a shape.
        expected_s: how long a run of so many images of a shape takes, in seconds.
        num_lanes: batches under way at once.
        max_queued: images waiting, of both priorities together.
    """

    def __init__(
        self,
        run: Callable[[Sequence[PreparedImage]], Awaitable[Sequence[Answer]]],
        *,
        best_batch: Callable[[Shape], int],
        expected_s: Callable[[int, Shape], float],
        num_lanes: int,
        max_queued: int,
    ) -> None:
        self._run = run
        self._best_batch = best_batch
        self._expected_s = expected_s
        self._num_lanes = num_lanes
        self._max_queued = max_queued
        self._queues: dict[Priority, dict[Shape, deque[_Entry[Answer]]]] = {each: {} for each in Priority}
        self._running: set[asyncio.Task[None]] = set()
        self._num_queued = 0
        self._num_running = 0
        self._closed = False

    @property
    def num_queued(self) -> int:
        """Images waiting for a lane."""
        return self._num_queued

    @property
    def num_running(self) -> int:
        """Images in the batches under way."""
        return self._num_running

    async def submit(
        self, image: PreparedImage, priority: Priority = Priority.INTERACTIVE, deadline: float = math.inf
    ) -> Answered[Answer]:
        """Wait for one image's answer.

        Args:
            image: prepared for one of the shapes.
            priority: interactive images are taken before bulk ones.
            deadline: on the event loop's clock, in seconds.

        Raises:
            Busy: the queue is full; says how long to wait.
            DeadlineMissed: no answer in time. If the image had not been run by then, it never is.
            NotReady: the batcher is closed.
            DetectorFault: the run failed.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise NotReady("The detector is stopping and takes no more images; ask again in a moment.")
        if self._num_queued >= self._max_queued:
            wait_s = self._wait_s(image.shape)
            raise Busy(f"{self._num_queued} images are waiting already; ask again in {wait_s:.1f} s.", wait_s)
        entry = _Entry(image, priority, deadline, loop.time(), loop.create_future())
        self._queues[priority].setdefault(image.shape, deque()).append(entry)
        self._num_queued += 1
        self._fill_lanes()
        try:
            async with asyncio.timeout_at(None if math.isinf(deadline) else deadline):
                return await entry.answer
        except TimeoutError:
            waited = loop.time() - entry.arrived
            raise DeadlineMissed(f"No answer came within the {waited:.1f} s that were left.") from None
        finally:
            self._forget(entry)

    async def close(self) -> None:
        """Take no more images, and wait until those accepted are answered."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)

    def _wait_s(self, shape: Shape) -> float:
        size = self._best_batch(shape)
        batches = math.ceil(self._num_queued / size / self._num_lanes)
        return max(0.05, batches * self._expected_s(size, shape))

    def _forget(self, entry: _Entry[Answer]) -> None:
        """Drop an entry that nobody waits for any more from its queue, if it is still there."""
        queue = self._queues[entry.priority].get(entry.image.shape)
        if queue and entry in queue:
            queue.remove(entry)
            self._num_queued -= 1

    def _fill_lanes(self) -> None:
        while len(self._running) < self._num_lanes:
            batch = self._next_batch()
            if not batch:
                return
            self._num_running += len(batch)
            task = asyncio.get_running_loop().create_task(self._run_batch(batch))
            self._running.add(task)
            task.add_done_callback(self._lane_is_free)

    def _lane_is_free(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fill_lanes()

    def _next_batch(self) -> list[_Entry[Answer]]:
        """The longest waiting interactive image, or else bulk one, with as many of its shape as fit."""
        now = asyncio.get_running_loop().time()
        while True:
            heads = [
                queue[0]
                for priority in (Priority.INTERACTIVE, Priority.BULK)
                for queue in self._queues[priority].values()
                if queue
            ]
            if not heads:
                return []
            first = min(heads, key=lambda entry: (entry.priority is Priority.BULK, entry.arrived))
            shape = first.image.shape
            size = self._best_batch(shape)
            batch: list[_Entry[Answer]] = []
            for entry in self._taken(shape):
                if entry.answer.done():
                    continue
                if now + self._expected_s(len(batch) + 1, shape) > entry.deadline:
                    left = max(0.0, entry.deadline - now)
                    entry.answer.set_exception(
                        DeadlineMissed(f"It was not run: {left:.2f} s were left, too little for a run.")
                    )
                    continue
                batch.append(entry)
                if len(batch) == size:
                    break
            if batch:
                return batch

    def _taken(self, shape: Shape) -> Iterator[_Entry[Answer]]:
        for priority in (Priority.INTERACTIVE, Priority.BULK):
            queue = self._queues[priority].get(shape)
            while queue:
                self._num_queued -= 1
                yield queue.popleft()

    async def _run_batch(self, batch: list[_Entry[Answer]]) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            answers = await self._run([entry.image for entry in batch])
            if len(answers) != len(batch):
                raise DeviceFailed(f"A batch of {len(batch)} images got {len(answers)} answers.")
        except ActorError as error:
            self._fail(batch, error)
        except Exception as error:
            self._fail(batch, DetectorFault(f"A run failed in an unforeseen way: {error!r}"))
        else:
            run_ms = (loop.time() - begun) * 1000
            for entry, answer in zip(batch, answers, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(Answered(answer, (begun - entry.arrived) * 1000, run_ms))
        finally:
            self._num_running -= len(batch)

    @staticmethod
    def _fail(batch: Sequence[_Entry[Answer]], error: ActorError) -> None:
        for entry in batch:
            if not entry.answer.done():
                entry.answer.set_exception(error)
