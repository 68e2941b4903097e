"""What a log writes of events that come again and again; the time is handed in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from cluster.telemetry.rate_limit import RateLimitFilter
from tests.unit.fake_cluster import quiet


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_same_event_is_written_seldom_and_counted(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    log = quiet(clock)
    for second in range(1800):
        clock.now = float(second)
        log.warning("The head is away (%d).", second)
    assert lines(caplog)[:4] == [f"The head is away ({second})." for second in range(4)]
    assert lines(caplog)[4] == "The head is away (13). (9 more like this were not written)"
    assert 5 <= len(caplog.records) <= 15


def test_another_event_is_written_at_once(
    caplog: pytest.LogCaptureFixture, clock: Callable[[], float]
) -> None:
    log = quiet(clock)
    log.warning("one")
    log.warning("two")
    for name in ("a", "a", "a", "a", "a", "b"):
        log.warning("%s is open", name, extra={"about": name})
    assert lines(caplog) == ["one", "two", *["a is open"] * 4, "b is open"]


def test_an_event_that_was_long_ago_is_news_again(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    log = quiet(clock)
    for _ in range(10):
        log.warning("it %s", "happened")
    clock.now = 1000.0
    log.warning("it %s", "happened again")
    assert lines(caplog) == [*["it happened"] * 4, "it happened again"]


def test_its_own_memory_is_bounded(clock: Clock) -> None:
    """I6."""
    sparing = RateLimitFilter(clock)
    for number in range(10_000):
        sparing.filter(logging.LogRecord("x", logging.INFO, "", 0, f"event {number}", (), None))
    assert sparing.num_kinds <= 200


def test_one_thread_at_a_time_looks_at_the_memory() -> None:
    """A second thread that logs waits until the first is done; the clock is where both would be inside."""
    inside = 0
    most = 0
    second_begins = threading.Event()

    def clock() -> float:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if threading.current_thread() is first:
            other.start()
            second_begins.wait(0.2)
        else:
            second_begins.set()
        inside -= 1
        return 0.0

    sparing = RateLimitFilter(clock)
    record = logging.LogRecord("x", logging.INFO, "", 0, "an event", (), None)
    first = threading.Thread(target=sparing.filter, args=(record,))
    other = threading.Thread(target=sparing.filter, args=(record,))
    first.start()
    first.join()
    other.join()
    assert most == 1
