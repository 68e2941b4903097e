"""Work beside the caller's own: steps that are repeated for ever, and blocking calls in a thread.

A repeated step does not die in silence: an error that nobody foresaw is logged, and the step is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import ParamSpec, TypeVar

from cluster.backoff import Backoff

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


async def repeat_async(
    step: Callable[[], Awaitable[object]],
    *,
    name: str,
    log: logging.Logger,
    every_s: float | None = None,
    backoff: Backoff | None = None,
    expected: tuple[type[Exception], ...] = (),
) -> None:
    """Repeat a step until this task is cancelled; nothing else ends it but KeyboardInterrupt and SystemExit.

    The clock is the event loop's.

    Args:
        step: what is done each time.
        name: what the step does, as the subject of a line in the log: "Watching the detectors".
        log: where unforeseen errors go, each kind with its traceback once. Hand in a rate-limited log.
        every_s: seconds from the beginning of one step to the beginning of the next. None for a step that
            ends when the thing that it keeps ends: this is a loss, so "works again" is not said.
        backoff: pauses after a step that failed; without `every_s`, after every step.
        expected: errors that are no news: they are not logged and do not lengthen the pause.

    Raises:
        asyncio.CancelledError: this task was cancelled.
    """
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    pace = _Pace(name, log, every_s, backoff or Backoff(), expected, asyncio.get_running_loop().time)
    while True:
        pace.begin()
        try:
            await step()
        except Exception as error:
            pause_s = pace.failed(error)
        except asyncio.CancelledError as error:
            # The step may have waited for another task that somebody cancelled; this task goes on then.
            if task.cancelling():
                raise
            pause_s = pace.failed(error)
        else:
            pause_s = pace.succeeded()
        await asyncio.sleep(pause_s)


def repeat_blocking(
    step: Callable[[], object],
    *,
    name: str,
    log: logging.Logger,
    every_s: float | None = None,
    backoff: Backoff | None = None,
    expected: tuple[type[Exception], ...] = (),
    is_over: Callable[[], bool] = lambda: False,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Repeat a step in this thread until it is over; else only KeyboardInterrupt and SystemExit end it.

    Args:
        step: what is done each time.
        name: what the step does, as the subject of a line in the log: "Renewing the lease".
        log: where unforeseen errors go, each kind with its traceback once. Hand in a rate-limited log.
        every_s: seconds from the beginning of one step to the beginning of the next. None for a step that
            ends when the thing that it keeps ends: this is a loss, so "works again" is not said.
        backoff: pauses after a step that failed; without `every_s`, after every step.
        expected: errors that are no news: they are not logged and do not lengthen the pause.
        is_over: whether to return; asked before each step and before each pause.
        wait: waits for so many seconds, or less.
        clock: seconds, for durations.
    """
    pace = _Pace(name, log, every_s, backoff or Backoff(), expected, clock)
    while not is_over():
        pace.begin()
        try:
            step()
        except Exception as error:
            pause_s = pace.failed(error)
        else:
            pause_s = pace.succeeded()
        if is_over():
            return
        wait(pause_s)


async def in_thread(
    function: Callable[Arguments, Value], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Value:
    """`asyncio.to_thread`, but on cancellation it waits for the thread: no work outlives the await."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # asked for, or asyncio logs an error that nobody waits for any more
        raise


@contextlib.contextmanager
def _whatever_the_log_does() -> Iterator[None]:
    """Keep an error of the log from the loop: a user's filter or an error's text may raise."""
    try:
        yield
    except Exception:
        # Told without the log, which does not work.
        with contextlib.suppress(Exception):
            traceback.print_exc()


class _Pace:
    """Decides what a step's end means: what is logged, and how long the pause is."""

    def __init__(
        self,
        name: str,
        log: logging.Logger,
        every_s: float | None,
        backoff: Backoff,
        expected: tuple[type[Exception], ...],
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._log = log
        self._every_s = every_s
        self._backoff = backoff
        self._expected = expected
        self._clock = clock
        self._shown: set[type[BaseException]] = set()
        self._begun = 0.0
        #: When the present life began; one ends with a failure, and without `every_s` with every step.
        self._born: float | None = None
        self._has_failed = False

    def begin(self) -> None:
        """A step begins."""
        self._begun = self._clock()
        if self._born is None:
            self._born = self._begun

    def succeeded(self) -> float:
        """The step ended well; returns the seconds until the next."""
        has_failed, self._has_failed = self._has_failed, False
        if has_failed and self._every_s is not None:
            with _whatever_the_log_does():
                self._log.info("%s works again.", self._name, extra={"about": self._name})
        return self._usual_pause_s()

    def failed(self, error: BaseException) -> float:
        """The step ended with an error; returns the seconds until the next."""
        if isinstance(error, self._expected):
            return self._usual_pause_s()
        self._has_failed = True
        pause_s = max(self._after_a_life_s(), self._every_s or 0.0)
        with _whatever_the_log_does():
            self._tell(error, pause_s)
        return pause_s

    def _usual_pause_s(self) -> float:
        if self._every_s is None:
            return self._after_a_life_s()
        return max(0.0, self._every_s - (self._clock() - self._begun))

    def _after_a_life_s(self) -> float:
        now = self._clock()
        born, self._born = self._born, None
        return self._backoff.pause_s(now - (now if born is None else born))

    def _tell(self, error: BaseException, pause_s: float) -> None:
        kind = type(error)
        is_new = kind not in self._shown
        self._shown.add(kind)
        self._log.error(
            "%s failed with an error that was not foreseen; it is tried again in %.1f s. %s: %s",
            self._name,
            pause_s,
            kind.__name__,
            error,
            exc_info=error if is_new else None,
            extra={"about": (self._name, kind.__name__)},
        )
