"""Bounds how many images a client holds at once. Interactive calls go before bulk ones, in bounded queues."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from actors.faces import Priority
from cluster.errors import Full

#: The share of the room that bulk calls must leave free.
_KEPT_FOR_INTERACTIVE = 0.25


@dataclass(slots=True, eq=False)
class _Waiting:
    num_images: int
    turn: asyncio.Future[None]


class Admission:
    """Gives calls room for their images, and lets them wait until there is enough.

    Args:
        max_images: images that have room at once; a quarter of the room is kept for interactive calls.
        max_waiting: calls that may wait at once.
    """

    def __init__(self, max_images: int, max_waiting: int) -> None:
        self._max_images = max_images
        self._max_waiting = max_waiting
        self._num_free = max_images
        self._num_kept = int(max_images * _KEPT_FOR_INTERACTIVE)
        self._queues: dict[Priority, deque[_Waiting]] = {each: deque() for each in Priority}

    @property
    def num_taken(self) -> int:
        """Images that have room now."""
        return self._max_images - self._num_free

    @property
    def num_waiting(self) -> int:
        """Calls that wait for room now."""
        return sum(map(len, self._queues.values()))

    @contextlib.asynccontextmanager
    async def room(self, num_images: int, priority: Priority, until: float) -> AsyncIterator[None]:
        """Keep room until the end of the block.

        Args:
            num_images: images of the call. A call that is larger than the whole room takes the whole room.
            priority: interactive calls get room before bulk calls.
            until: when to give up, in seconds on the event loop's clock.

        Raises:
            Full: too many calls wait already.
            TimeoutError: there was no room in time.
        """
        wanted = min(num_images, self._max_images - self._kept_from(priority))
        await self._take(wanted, priority, until)
        try:
            yield
        finally:
            self._num_free += wanted
            self._let_in()

    async def _take(self, wanted: int, priority: Priority, until: float) -> None:
        num_waiting = self.num_waiting
        if not num_waiting and wanted <= self._num_free - self._kept_from(priority):
            self._num_free -= wanted
            return
        if num_waiting >= self._max_waiting:
            raise Full
        queue = self._queues[priority]
        waiting = _Waiting(wanted, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        self._let_in()
        try:
            async with asyncio.timeout_at(until):
                await waiting.turn
        except BaseException:
            if waiting in queue:
                queue.remove(waiting)
            elif waiting.turn.done() and not waiting.turn.cancelled():
                # The call got room at the moment in which it gave up.
                self._num_free += wanted
            self._let_in()
            raise

    def _let_in(self) -> None:
        for priority in (Priority.INTERACTIVE, Priority.BULK):
            queue = self._queues[priority]
            while queue:
                if queue[0].num_images > self._num_free - self._kept_from(priority):
                    # Nobody overtakes the first call, or a large one might wait for ever.
                    return
                waiting = queue.popleft()
                self._num_free -= waiting.num_images
                if waiting.turn.cancelled():
                    self._num_free += waiting.num_images
                else:
                    waiting.turn.set_result(None)

    def _kept_from(self, priority: Priority) -> int:
        return self._num_kept if priority is Priority.BULK else 0
