"""What a log writes of events that come again and again; the time is handed in."""

from __future__ import annotations

import logging
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
