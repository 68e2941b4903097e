"""The cores of a detector's machine that could decode JPEGs."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from actors.encoded_image import EncodedImage
from actors.images import PreparedImage
from actors.intake import ImageIntake
from actors.settings import DetectorSettings
from actors.spare_cores import SpareCores, idle_s


class FakeMachine:
    """A clock and the idle seconds of all cores."""

    def __init__(self) -> None:
        self.now = 100.0
        self.idle_s = 5000.0

    def pass_time(self, seconds: float, num_idle: float) -> None:
        self.now += seconds
        self.idle_s += seconds * num_idle

    def spare_cores(self, num_cores: int = 4) -> SpareCores:
        return SpareCores(num_cores, lambda: self.now, lambda: self.idle_s)


def test_idle_cores_are_spare() -> None:
    machine = FakeMachine()
    spare = machine.spare_cores()
    machine.pass_time(2.0, num_idle=1.5)
    assert spare.measure() == pytest.approx(1.5)
    machine.pass_time(2.0, num_idle=0.0)
    assert spare.measure() == 0.0


def test_decoding_counts_as_spare() -> None:
    """Otherwise a client's own JPEGs would drive it back to pixels."""
    machine = FakeMachine()
    spare = machine.spare_cores()
    for _ in range(100):
        spare.decoded(0.01)
    machine.pass_time(2.0, num_idle=0.25)
    assert spare.measure() == pytest.approx(0.75)
    machine.pass_time(2.0, num_idle=0.25)
    assert spare.measure() == pytest.approx(0.25)


def test_a_figure_is_kept_for_a_second() -> None:
    """Several clients ask, and none of them may shorten the time that is measured."""
    machine = FakeMachine()
    spare = machine.spare_cores()
    machine.pass_time(0.5, num_idle=3.0)
    assert spare.measure() is None
    machine.pass_time(0.5, num_idle=1.0)
    assert spare.measure() == pytest.approx(2.0)
    machine.pass_time(0.9, num_idle=0.0)
    assert spare.measure() == pytest.approx(2.0)


def test_cores_that_the_process_may_not_use_are_not_spare() -> None:
    machine = FakeMachine()
    spare = machine.spare_cores(num_cores=2)
    machine.pass_time(1.0, num_idle=16.0)
    assert spare.measure() == 2.0


def test_the_system_tells_idle_seconds() -> None:
    assert idle_s() > 0


def test_the_intake_counts_what_it_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[float] = []
    settings = DetectorSettings()
    intake = ImageIntake(settings)
    monkeypatch.setattr(intake.spare_cores, "decoded", counted.append)
    photo = PreparedImage(np.zeros((480, 640, 3), np.uint8), 640, 480, settings.shapes[0], 1.0, "digest")
    asyncio.run(intake.prepare(photo, 0))
    assert counted == []
    asyncio.run(intake.prepare(EncodedImage.of(photo), 0))
    assert len(counted) == 1
    assert counted[0] > 0
