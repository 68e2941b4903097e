"""What several suites share: the photos and the default model."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.models import ReadyModel, ready_model
from actors.settings import DetectorSettings

PHOTOS = Path(__file__).parent / "photos"


@pytest.fixture
def photos() -> Path:
    """The folder of real photos; SOURCES.md says what is on them."""
    return PHOTOS


@pytest.fixture(scope="session")
def centerface() -> ReadyModel:
    """The default model, fetched once per user."""
    return ready_model(DetectorSettings())
