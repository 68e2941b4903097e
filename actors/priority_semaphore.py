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
        hand_over_s: seconds for which a thread that leaves waits until the next one has begun, at most. What
            it does afterwards, decoding, would keep the interpreter, and the device would be idle meanwhile.
    """

    def __init__(self, num_lanes: int, hand_over_s: float = 0.003) -> None:
        self._lock = threading.Lock()
        self._num_lanes = self._num_free = num_lanes
        self._hand_over_s = hand_over_s
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
        turn.begun.set()
        try:
            yield
        finally:
            with self._lock:
                self._num_free += turn.num_lanes
                followers = self._let_through()
            for follower in followers:
                follower.begun.wait(self._hand_over_s)

    def _let_through(self) -> list[_Turn]:
        """Give the free lanes away; returns who has got one."""
        through: list[_Turn] = []
        for queue in self._waiting:
            while queue:
                if queue[0].num_lanes > self._num_free:
                    # Nothing overtakes a run that waits for all lanes, or it could wait for ever.
                    return through
                turn = queue.popleft()
                self._num_free -= turn.num_lanes
                turn.came.set()
                through.append(turn)
        return through


class _Turn:
    def __init__(self, num_lanes: int) -> None:
        self.num_lanes = num_lanes
        self.came = threading.Event()
        self.begun = threading.Event()
