"""I2 inside the detector: it opens only what it has locked, and runs only while its lease lasts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors import model_life, ownership
from actors.device import Device
from actors.face_detector import FaceDetector, start_detector
from actors.faces import Detected, Failed, Failure, State
from actors.ownership import DeviceLock
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice, golden_heads, prepared

SETTINGS = DetectorSettings(batch_sizes=(1, 2), num_lanes=1, num_prepare_threads=1, lease_s=0.1)
DEVICES = [Device("cpu", 3)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)
    monkeypatch.setattr(ownership, "machine_folder", lambda: tmp_path)
    return tmp_path


def detector(device: FakeDevice, settings: DetectorSettings = SETTINGS) -> FaceDetector:
    return start_detector("FaceDetector", settings, device, devices=DEVICES, cluster="home")


def run(story: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await story

    return asyncio.run(bounded())


def test_a_held_device_is_not_opened_and_its_holder_is_named() -> None:
    lock = DeviceLock("cpu-3")
    lock.acquire("another", "elsewhere")
    device = FakeDevice()
    health = run(detector(device).health(20.0))
    assert health.state is State.FAULTY
    assert health.failure is Failure.DEVICE_HELD
    assert "another (pid" in health.detail
    assert device.opened == []
    lock.release()


def test_the_lock_is_held_while_the_device_is_open_and_given_back_after_it() -> None:
    async def story() -> None:
        made = detector(FakeDevice())
        health = await made.health(20.0)
        assert health.state is State.READY
        assert health.device == "cpu:3"
        holder = DeviceLock("cpu-3").holder()
        assert holder is not None
        assert health.owner_since == holder.since
        assert (await made.drain()).state is State.DRAINING
        assert DeviceLock("cpu-3").holder() is None
        DeviceLock("cpu-3").acquire("next")

    run(story())


def test_a_cpu_of_ones_own_needs_no_lock(folder: Path) -> None:
    """Two commands side by side on one machine are no conflict."""
    health = run(start_detector("FaceDetector", SETTINGS, FakeDevice()).health(20.0))
    assert health.state is State.READY
    assert health.owner_since is None
    assert list(folder.iterdir()) == []


def test_no_run_begins_after_the_lease_and_every_image_is_told() -> None:
    async def story() -> None:
        device = FakeDevice()
        made = detector(device)
        await made.health(20.0)
        num_runs = len(device.runs)
        made.lease.end("Another process has become the owner.")
        outcome = (await made.detect([prepared()]))[0]
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.DETECTOR_LOST
        assert "Another process" in outcome.detail
        assert len(device.runs) == num_runs

    run(story())


def test_an_answer_that_was_finished_after_the_lease_is_withheld() -> None:
    """As of a process that was stopped in the middle of a run, and woke up after its successor."""

    async def story() -> None:
        device = FakeDevice()
        made = detector(device)
        await made.health(20.0)

        def wakes_up_late(tensor: Any) -> Any:
            made.lease.end("Another process has become the owner.")
            return golden_heads(tensor)

        assert isinstance((await made.detect([prepared()]))[0], Detected)
        device.answer = wakes_up_late
        outcome = (await made.detect([prepared()]))[0]
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.DETECTOR_LOST

    run(story())


def test_the_epoch_is_on_every_outcome() -> None:
    made = detector(FakeDevice())
    made.epoch = 42
    outcome = run(made.detect([prepared()]))[0]
    assert outcome.stamp.epoch == 42
