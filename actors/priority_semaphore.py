"""Lanes to the device: several runs at once, interactive ones first, and one alone where it must be."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class PrioritySemaphore:
    """A semaphore for threads with two queues; within each, first come, first served.

    Args:
        num_lanes: how many runs are on the device at once.
    """

    def __init__(self, num_lanes: int) -> None:
        self._lock = threading.Lock()
        self._num_lanes = self._num_free = num_lanes
        self._waiting: tuple[deque[_Turn], deque[_Turn]] = (deque(), deque())

    @contextlib.contextmanager
    def taken(self, *, first: bool = False, alone: bool = False) -> Iterator[None]:
        """Wait for a lane, and keep it while the block runs.

        Args:
            first: go before all that came without `first`.
            alone: take all lanes, so that nothing else runs meanwhile.
        """
        turn = _Turn(self._num_lanes if alone else 1)
        with self._lock:
            self._waiting[0 if first else 1].append(turn)
            self._let_through()
        turn.came.wait()
        try:
            yield
        finally:
            with self._lock:
                self._num_free += turn.num_lanes
                self._let_through()

    def _let_through(self) -> None:
        for queue in self._waiting:
            while queue:
                if queue[0].num_lanes > self._num_free:
                    # Nothing overtakes a run that waits for all lanes, or it could wait for ever.
                    return
                turn = queue.popleft()
                self._num_free -= turn.num_lanes
                turn.came.set()


class _Turn:
    def __init__(self, num_lanes: int) -> None:
        self.num_lanes = num_lanes
        self.came = threading.Event()
