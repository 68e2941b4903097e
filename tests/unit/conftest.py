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

    monkeypatch.setattr(time, "sleep", forbidden)
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", forbidden)
