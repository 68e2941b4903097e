"""An event loop whose clock jumps to the next timer when nothing else is left to do: no test waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")


class _Jumping(selectors.SelectSelector):
    """A selector that never waits: it moves the clock forward by the time that it should wait."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("The test waits for something that can never happen: no timer is left.")
            self._jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, for `run`. Threads cannot wake it."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self._advance))

    def time(self) -> float:
        """Seconds since the loop was made, as the test sees them."""
        return self._now

    def _advance(self, seconds: float) -> None:
        # A little more, so that rounding never leaves a timer that is not yet due.
        self._now += seconds + 1e-9


def run(story: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(story)
