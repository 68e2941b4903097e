"""A batch size that the start left unopened: opened under load, and proved before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import model_life
from actors.batch_table import BatchTable
from actors.face_detector import FaceDetector
from actors.faces import Detected, State
from actors.model_life import ModelLife
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice, golden_heads, prepared

SETTINGS = DetectorSettings(batch_sizes=(1, 2, 4, 8), num_lanes=1, input_size=320, warm_up_s=0.0)
Tensor = np.ndarray[Any, Any]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[FakeDevice], FaceDetector]]:
    """Makes detectors whose runs all take a millisecond; they are closed after the test."""
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)
    # Whatever this machine's clock says: the larger the batch, the better.
    add = BatchTable.add
    monkeypatch.setattr(BatchTable, "add", lambda table, size, shape, run_ms: add(table, size, shape, 1.0))
    lives: list[ModelLife] = []

    def made(device: FakeDevice) -> FaceDetector:
        lives.append(ModelLife("FaceDetector", SETTINGS, device, records=tmp_path, end=lambda why: None))
        detector = FaceDetector(lives[-1])
        detector.start()
        return detector

    yield made
    for life in lives:
        life.close()


def run(story: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await story

    return asyncio.run(bounded())


def photos(*numbers: int) -> list[Any]:
    return [prepared(number, (320, 320)) for number in numbers]


def test_a_larger_batch_is_opened_when_the_queue_would_fill_it(
    make: Callable[[FakeDevice], FaceDetector],
) -> None:
    """A short warm-up leaves sizes unopened; each proves itself with the golden photo before it is used."""
    device = FakeDevice()

    async def story() -> None:
        detector = make(device)
        await detector.health(wait_s=10.0)
        assert set(device.runs) == {1}
        for _ in range(20):
            outcomes = await detector.detect(photos(*range(1, 25)))
            assert all(isinstance(each, Detected) for each in outcomes)
        await detector.drain()

    run(story())
    assert max(device.runs) > 1


def test_a_larger_batch_that_lies_is_not_used_and_told(make: Callable[[FakeDevice], FaceDetector]) -> None:
    """I1, I4: it costs no photo its answer."""

    def answer(tensor: Tensor) -> Any:
        heads = golden_heads(tensor)
        if len(tensor) > 1:
            heads["heat"][:, :, :, ::2] = 0.7
        return heads

    device = FakeDevice(answer=answer)

    async def story() -> None:
        detector = make(device)
        await detector.health(wait_s=10.0)
        for _ in range(10):
            outcomes = await detector.detect(photos(*range(1, 25)))
            assert all(isinstance(each, Detected) for each in outcomes)
        health = await detector.health()
        assert health.state is State.READY
        assert [each.num_images for each in health.buckets if each.is_used] == [1, 1, 1]
        await detector.drain()

    run(story())
    assert max(device.runs) > 1
