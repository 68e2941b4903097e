"""A repeated step goes on after an error, and a cancelled caller waits for the thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cluster.background import in_thread, repeat_async, repeat_blocking
from cluster.backoff import Backoff
from tests.unit.fake_cluster import quiet
from tests.virtual_time import run


def test_the_value_and_the_error_arrive() -> None:
    """The result is the same as with `asyncio.to_thread`."""
    assert asyncio.run(in_thread(int, "7", base=8)) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(in_thread(int, "x"))


@pytest.mark.parametrize("fails", [False, True])
def test_who_is_cancelled_waits_for_the_thread(fails: bool) -> None:
    """Only after the thread has ended may the caller leave the cluster."""
    begun, may_end = threading.Event(), threading.Event()
    ended = []

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.append(True)
        if fails:
            raise OSError("nobody wants to know any more")

    async def story() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    asyncio.run(story())


PLAIN: dict[str, Any] = {"every_s": 2.0, "name": "The test"}


class Steps:
    """A step that does what its script says: raises an error, or nothing where the script has None."""

    def __init__(self, clock: Callable[[], float], *script: BaseException | None) -> None:
        self.clock = clock
        self._script = list(script)
        self.times: list[float] = []

    def __call__(self) -> None:
        self.times.append(round(self.clock(), 3))
        error = self._script.pop(0) if self._script else None
        if error is not None:
            raise error

    async def soon(self) -> None:
        """Does the same as a coroutine."""
        self()


def repeated(seconds: float, *script: BaseException | None, **how: Any) -> list[float]:
    """Return when the steps began: one every two seconds, in a loop that is cancelled after `seconds`."""

    async def story() -> list[float]:
        steps = Steps(asyncio.get_running_loop().time, *script)
        task = asyncio.create_task(repeat_async(steps.soon, **{**PLAIN, "log": quiet(steps.clock), **how}))
        await asyncio.sleep(seconds)
        assert not task.done(), "the loop has ended"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps.times

    return run(story())


def repeated_in_thread(seconds: float, *script: BaseException | None, **how: Any) -> list[float]:
    """Do the same in the calling thread."""
    now = 0.0

    def wait(pause_s: float) -> None:
        nonlocal now
        now += pause_s

    steps = Steps(lambda: now, *script)
    how = {**PLAIN, "log": quiet(steps.clock), **how}
    repeat_blocking(steps, is_over=lambda: now > seconds, wait=wait, clock=steps.clock, **how)
    return steps.times


UNFORESEEN = [OSError("no more processes"), ZeroDivisionError("division by zero")]


@pytest.mark.parametrize("front", [repeated, repeated_in_thread])
def test_a_step_is_repeated_at_its_pace(front: Callable[..., list[float]]) -> None:
    assert front(7.0) == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize("front", [repeated, repeated_in_thread])
@pytest.mark.parametrize("error", UNFORESEEN, ids=repr)
def test_an_unforeseen_error_is_told_and_the_loop_goes_on(
    front: Callable[..., list[float]], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    backoff = Backoff(first_s=3.0, jitter=lambda: 1.0)
    assert front(20.0, None, error, error, None, backoff=backoff) == [0, 2, 5, 11, 13, 15, 17, 19]
    first, second, third = caplog.records
    told = first.getMessage()
    assert told.startswith("The test failed with an error that was not foreseen; it is tried again in 3.0 s.")
    assert told.endswith(f"{type(error).__name__}: {error}")
    assert first.exc_info
    assert not second.exc_info, "the traceback is written once"
    assert third.getMessage() == "The test works again."


@pytest.mark.parametrize("front", [repeated, repeated_in_thread])
def test_a_log_that_raises_does_not_end_the_loop(front: Callable[..., list[float]]) -> None:
    def no_log(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError("a filter of the user's")

    log = logging.Logger("raises")
    log.addFilter(no_log)
    backoff = Backoff(first_s=3.0, jitter=lambda: 1.0)
    assert front(8.0, None, OSError("full"), None, log=log, backoff=backoff) == [0, 2, 5, 7]


@pytest.mark.parametrize("front", [repeated, repeated_in_thread])
def test_the_end_of_a_life_is_not_called_working_again(
    front: Callable[..., list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    """A step without a pace ends well when the thing is lost that it keeps."""
    caplog.set_level(logging.INFO)
    front(30.0, OSError("full"), None, None, every_s=None)
    assert "full" in caplog.text
    assert "works again" not in caplog.text


def test_a_foreign_cancellation_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The wait inside the step was cancelled; the loop itself was not."""
    assert len(repeated(20.0, asyncio.CancelledError(), backoff=Backoff(jitter=lambda: 1.0))) == 10
    assert "CancelledError" in caplog.text


@pytest.mark.parametrize("front", [repeated, repeated_in_thread])
def test_pauses_grow_while_it_fails(front: Callable[..., list[float]]) -> None:
    error = OSError("full")
    backoff = Backoff(most_s=10.0, jitter=lambda: 1.0)
    assert front(45.0, *[error] * 20, backoff=backoff) == [0, 2, 4, 8, 16, 26, 36]


@pytest.mark.parametrize("front", [repeated, repeated_in_thread])
def test_an_expected_error_is_no_news(
    front: Callable[..., list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert front(7.0, *[LookupError()] * 4, expected=(LookupError,)) == [0.0, 2.0, 4.0, 6.0]
    assert not caplog.records


@pytest.mark.parametrize("front", [repeated, repeated_in_thread])
def test_without_a_pace_each_step_is_followed_by_a_growing_pause(front: Callable[..., list[float]]) -> None:
    """Each step here is the life of a process or of a connection."""
    backoff = Backoff(most_s=10.0, jitter=lambda: 1.0)
    script = [None, OSError("lost"), None]
    assert front(30.0, *script, every_s=None, backoff=backoff) == [0, 1, 3, 7, 15, 25]


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_person_or_an_exit_ends_a_loop(end: type[BaseException]) -> None:
    with pytest.raises(end):
        repeated_in_thread(10.0, None, end())
    steps = Steps(lambda: 0.0, None, end())
    with pytest.raises(end):
        run(repeat_async(steps.soon, **PLAIN, log=quiet(steps.clock)))


def test_half_an_hour_of_failures_is_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    assert len(repeated(1800.0, *[OSError("full")] * 1000)) > 60
    assert 1 <= len(caplog.records) <= 20


def test_an_ending_is_seen_before_the_pause() -> None:
    """A caller that stops a loop does not wait until the pause ends."""
    over = threading.Event()
    waited: list[float] = []
    repeat_blocking(over.set, **PLAIN, log=quiet(lambda: 0.0), is_over=over.is_set, wait=waited.append)
    assert waited == []
