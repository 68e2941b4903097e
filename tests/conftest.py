"""Fixtures that several suites share: the photos and the default model."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from actors.models import ReadyModel, ready_model
from actors.settings import DetectorSettings

PHOTOS = Path(__file__).parent / "photos"

# A shell makes its background jobs ignore Ctrl+C, and child processes inherit that; our tests send Ctrl+C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def photos() -> Path:
    """The folder of real photos; its SOURCES.md describes them."""
    return PHOTOS


@pytest.fixture(scope="session")
def centerface() -> ReadyModel:
    """The default model, fetched once per user."""
    return ready_model(DetectorSettings())
