"""Guards of the unit tests: no Ray, no sleep in real time, and no error that ends in silence."""

from __future__ import annotations

import gc
import logging
import selectors
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

#: The timers that one test waits for may ask for this much in all; more needs virtual time or a live test.
#: What counts is the time that was asked for: on a busy machine every wait takes longer.
_MAX_ASKED_S = 0.02


class _Ear(logging.Handler):
    """Keeps what asyncio logs as an error, for example a task whose exception nobody retrieved."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.heard.append(f"{record.getMessage()} {error!r}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An open file or an error in a finalizer fails the test; with real Ray, neither is our fault."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"))


def pytest_collection_finish() -> None:
    """Hide all modules from the garbage collector, so that a collection in each test costs little."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_silent_errors() -> Iterator[None]:
    """Fail the test whose task or callback ended with an error that nobody looked at."""
    ear = _Ear()
    logger = logging.getLogger("asyncio")
    logger.addHandler(ear)
    yield
    # Python reports a forgotten task or an unraisable exception only when it collects the object.
    gc.collect()
    logger.removeHandler(ear)
    assert not ear.heard, ear.heard


@pytest.fixture(autouse=True)
def _no_ray_and_no_sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test that starts Ray, calls `time.sleep`, or whose own thread waits until a timer ends."""

    def forbidden(*_: object, **__: object) -> NoReturn:
        raise AssertionError("A unit test started Ray or slept; hand time in, or make it a live test.")

    real_sleep = time.sleep
    asked_s: list[float] = []

    def sleep(seconds: float) -> None:
        # The standard library waits for a child process or a lock in short sleeps; we do not.
        package = sys._getframe(1).f_globals["__name__"].split(".")[0]
        # A test's own module has no package: its folder is on the path.
        is_ours = package in ("actors", "app", "cluster", "tests") or package.startswith("test_")
        forbidden() if is_ours else real_sleep(seconds)

    real_wait = threading.Condition.wait

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        is_notified = real_wait(self, timeout)
        if not is_notified and timeout and threading.current_thread() is threading.main_thread():
            asked_s.append(timeout)
        return is_notified

    real_select = selectors.DefaultSelector.select

    def select(self: selectors.DefaultSelector, timeout: float | None = None) -> Any:
        ready = real_select(self, timeout)
        if not ready and timeout and threading.current_thread() is threading.main_thread():
            asked_s.append(timeout)
        return ready

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(threading.Condition, "wait", wait)
    monkeypatch.setattr(selectors.DefaultSelector, "select", select)
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", forbidden)
    yield
    assert sum(asked_s) <= _MAX_ASKED_S, (
        f"The test slept {sum(asked_s):.2f} s; use the loop of tests/virtual_time.py, or make it a live test."
    )
