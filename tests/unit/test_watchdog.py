"""When the watchdog bites, and when it must not. The time is handed in."""

from __future__ import annotations

import threading

import pytest

from actors import watchdog
from actors.watchdog import Watchdog


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bites() -> list[str]:
    return []


@pytest.fixture
def dog(clock: Clock, bites: list[str]) -> Watchdog:
    return Watchdog(bites.append, clock)


def looks(dog: Watchdog, clock: Clock, seconds: float) -> None:
    """As often as the thread would, for so long."""
    for _ in range(round(seconds / 0.5)):
        clock.now += 0.5
        dog.look()


def test_a_run_that_hangs_is_noticed(dog: Watchdog, clock: Clock, bites: list[str]) -> None:
    """Once, and with what it was."""
    with dog.watching("a run of 4 images", 10.0):
        looks(dog, clock, 10.0)
        assert bites == []
        looks(dog, clock, 5.0)
    assert bites == ["a run of 4 images has taken 10.5 s, and 10 s are allowed"]


def test_runs_one_after_another_are_not_added_up(dog: Watchdog, clock: Clock, bites: list[str]) -> None:
    """Each has its own time, and idle time is nobody's."""
    for _ in range(5):
        with dog.watching("a run", 10.0):
            looks(dog, clock, 9.0)
        looks(dog, clock, 9.0)
    assert bites == []


def test_the_late_one_of_several_is_named(dog: Watchdog, clock: Clock, bites: list[str]) -> None:
    """Not the one that only began."""
    with dog.watching("the first", 10.0):
        looks(dog, clock, 8.0)
        with dog.watching("the second", 10.0):
            looks(dog, clock, 4.0)
    assert len(bites) == 1
    assert bites[0].startswith("the first")


def test_a_machine_that_slept_is_forgiven(dog: Watchdog, clock: Clock, bites: list[str]) -> None:
    """The hours are not counted, and what hangs afterwards is still noticed."""
    with dog.watching("a run", 10.0):
        looks(dog, clock, 2.0)
        clock.now += 8 * 3600
        dog.look()
        assert bites == []
        looks(dog, clock, 8.0)
    assert len(bites) == 1


def test_a_long_idle_time_counts_for_no_run(dog: Watchdog, clock: Clock, bites: list[str]) -> None:
    """The first look after it belongs to the run alone."""
    clock.now += 100
    with dog.watching("a run", 0.6):
        looks(dog, clock, 0.5)
    assert bites == []


def test_its_thread_looks_by_itself() -> None:
    """And ends when it is told to."""
    bitten = threading.Event()
    dog = Watchdog(lambda said: bitten.set())
    dog.start()
    with dog.watching("a run", 0.0):
        assert bitten.wait(10)
    dog.close()


def test_a_bite_that_fails_is_not_the_last(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but a new process helps against a hung device; the thread tries again."""
    monkeypatch.setattr(watchdog, "_LOOK_EVERY_S", 0.001)
    bitten = threading.Event()
    errors: list[Exception] = [OSError("no space left"), ZeroDivisionError("no number")]

    def bite(said: str) -> None:
        if errors:
            raise errors.pop()
        bitten.set()

    dog = Watchdog(bite)
    dog.start()
    with dog.watching("a run", 0.0):
        assert bitten.wait(10)
    dog.close()
    assert caplog.text.count("The watchdog could not end the process; it tries again.") == 2
