"""Unit tests start no Ray and never sleep: both raise here."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def _no_ray_and_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> NoReturn:
        raise AssertionError("A unit test started Ray or slept; hand time in, or make it a live test.")

    real_sleep = time.sleep

    def sleep(seconds: float) -> None:
        # The standard library waits for a child process or a lock in short sleeps; we do not.
        room = sys._getframe(1).f_globals["__name__"].split(".")[0]
        forbidden() if room in ("actors", "app", "cluster", "tests") else real_sleep(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", forbidden)
