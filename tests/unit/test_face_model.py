"""Pixels → faces with the real model, and what is measured and padded with a scripted one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from actors import golden
from actors.batch_table import LEAST_GAIN_ON_CPU
from actors.drawing import draw_faces
from actors.errors import DeviceLies, DeviceUnavailable
from actors.face_model import FaceModel
from actors.faces import Face
from actors.guard import Guard
from actors.images import Limits, prepare
from actors.model_life import ModelLife
from actors.models import ReadyModel
from actors.session import OnnxSessionOpener
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice, golden_heads, prepared

SMALL = DetectorSettings(input_size=320, batch_sizes=(1, 2, 4, 8), warm_up_s=1e9)
LIMITS = Limits(10**8, 10**8)


class DeviceClock:
    """Time passes only on the device: so much for each run."""

    def __init__(self, device: FakeDevice, cost_ms: dict[int, float]) -> None:
        self._device, self._cost_ms = device, cost_ms

    def __call__(self) -> float:
        return sum(self._cost_ms[num] for num in self._device.runs) / 1000


def test_the_golden_face_is_found_by_the_real_model(centerface: ReadyModel) -> None:
    """I4: at every shape and in every slot of a batch."""
    model = FaceModel(centerface, OnnxSessionOpener("cpu"), SMALL, Guard(1))
    assert model.table.least_gain == LEAST_GAIN_ON_CPU
    model.check_golden()
    for shape in SMALL.shapes:
        for faces in model.detect(golden.photos(3, shape)):
            assert golden.problem(faces) == ""


def test_faces_come_in_pixels_of_the_original(centerface: ReadyModel, photos: Path) -> None:
    """A photo of twice the size has its face at twice the place."""
    model = FaceModel(centerface, OnnxSessionOpener("cpu"), DetectorSettings(), Guard(1))
    pixels = prepare(photos / "astronaut.jpg", [(640, 640)], LIMITS, 2.0).pixels
    larger = np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)
    (face,), (large,) = (
        model.detect([prepare(np.ascontiguousarray(each), [(640, 640)], LIMITS, 2.0)])[0]
        for each in (pixels, larger)
    )
    assert golden.iou(tuple(2 * v for v in face.box), large.box) > 0.95  # type: ignore[arg-type]  # four
    assert np.abs(np.array(large.landmarks) - 2 * np.array(face.landmarks)).max() < 8


def test_batches_grow_while_that_pays() -> None:
    """What is used is what was fastest, and the growing stops where it no longer pays."""
    device = FakeDevice()
    cost = {1: 10.0, 2: 12.0, 4: 16.0, 8: 40.0}
    model = FaceModel(MODEL, device, SMALL, Guard(1), DeviceClock(device, cost))
    model.warm_up()
    shape = SMALL.shapes[0]
    assert model.best_batch(shape) == 4
    assert model.expected_s(4, shape) == pytest.approx(0.016)
    assert model.expected_s(3, shape) == pytest.approx(0.014), "between the times of 2 and 4"
    assert {timing.num_images for timing in model.timings} == {1, 2, 4, 8}


def test_a_run_that_waited_for_a_core_says_nothing_against_its_batch_size() -> None:
    """What others do on the cores makes a run longer, not dearer; but an answer takes as long as the run."""
    device, slow_ms = FakeDevice(), {1: 10.0, 2: 12.0, 4: 40.0}
    work = DeviceClock(device, slow_ms.copy())
    model = FaceModel(MODEL, device, SMALL, Guard(1), DeviceClock(device, slow_ms), work_clock=work)
    model.warm_up()
    shape = SMALL.shapes[0]
    assert model.best_batch(shape) == 2
    assert model.expected_s(2, shape) == pytest.approx(0.012)
    slow_ms[2] = 36.0
    for _ in range(40):
        model.detect(golden.photos(2, shape))
    assert model.best_batch(shape) == 2
    assert model.expected_s(2, shape) == pytest.approx(0.036, rel=0.05)


def test_a_cpu_that_gains_nothing_keeps_to_single_images() -> None:
    """Batching loses on a CPU; it is measured, not assumed."""
    device = FakeDevice()
    model = FaceModel(MODEL, device, SMALL, Guard(1), DeviceClock(device, {1: 10.0, 2: 21.0}))
    model.warm_up()
    assert model.best_batch(SMALL.shapes[0]) == 1


def test_fixed_shapes_are_padded_to_a_measured_bucket() -> None:
    """DirectML has a session a bucket; three images run as four, and three answers come back."""
    device = FakeDevice(fixed_shapes=True)
    model = FaceModel(
        MODEL, device, SMALL, Guard(1), DeviceClock(device, {1: 10.0, 2: 12.0, 4: 16.0, 8: 40.0})
    )
    model.warm_up()
    opened = len(device.opened)
    assert len(model.detect(golden.photos(3, SMALL.shapes[0]))) == 3
    assert device.runs[-1] == 4
    assert len(device.opened) == opened


def test_no_photo_sees_anything_of_the_photos_before_it() -> None:
    """Tensors use the same memory again: what is beside a smaller photo, and in empty slots, is black."""
    tensors = []

    def answer(tensor: np.ndarray[Any, Any]) -> Any:
        tensors.append(tensor.copy())
        return golden_heads(tensor)

    device = FakeDevice(fixed_shapes=True, answer=answer)
    cost = {1: 10.0, 2: 12.0, 4: 16.0, 8: 40.0}
    model = FaceModel(MODEL, device, SMALL, Guard(1), DeviceClock(device, cost))
    model.warm_up()
    model.detect(golden.photos(4, (320, 320)))
    model.detect([prepared(7, (320, 320))] * 3)
    assert tensors[-1].shape == (4, 320, 320, 3)
    assert (tensors[-1][:3, :8, :8] == 7).all()
    tensors[-1][:3, :8, :8] = 0
    assert not tensors[-1].any()


@pytest.mark.parametrize("num_lanes", [1, 2])
def test_no_more_runs_at_once_than_lanes(num_lanes: int) -> None:
    """Two threads in DirectML's run remove the device."""
    device = FakeDevice()
    model = FaceModel(MODEL, device, SMALL, Guard(num_lanes))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: model.detect(golden.photos(1, (320, 320))), range(40)))
    assert device.most_at_once <= num_lanes


def test_a_lie_in_any_bucket_is_noticed_at_start() -> None:
    """I4: right for one image and wrong in the second slot of two is not READY."""

    def answer(tensor: np.ndarray[Any, Any]) -> Any:
        heads = golden_heads(tensor)
        heads["heat"][1:] = 0
        return heads

    model = FaceModel(MODEL, FakeDevice(answer), SMALL, Guard(1))
    with pytest.raises(DeviceLies, match="image 2 of 2"):
        model.warm_up()


def test_drawn_copies_differ_where_the_faces_are() -> None:
    """The original is untouched; the box and the points can be seen."""
    pixels = np.zeros((200, 200, 3), np.uint8)
    drawn = draw_faces(pixels, [Face(golden.BOX, 0.9, golden.LANDMARKS)])  # type: ignore[arg-type]
    assert not pixels.any()
    assert drawn[72:180, 118].any()
    assert drawn[101, 139].any()


def test_a_session_on_another_provider_is_refused() -> None:
    """I4, I5: whatever opens the sessions; also one that is opened later than the first."""
    device = FakeDevice(fixed_shapes=True, provider="DmlExecutionProvider")
    settings = DetectorSettings()
    with pytest.raises(DeviceUnavailable, match=r"CPUExecutionProvider was asked for.*DmlExecutionProvider"):
        FaceModel(MODEL, device, settings, Guard(1), provider="CPUExecutionProvider")
    model = FaceModel(MODEL, device, settings, Guard(1), provider="DmlExecutionProvider")
    device.provider = "CPUExecutionProvider"
    with pytest.raises(DeviceUnavailable, match="the session uses CPUExecutionProvider"):
        model.warm_up()


def test_a_detector_whose_device_fell_back_is_faulty() -> None:
    """The life of the model says so, by its own word for it."""
    with patch("actors.model_life.ready_model", return_value=MODEL):
        life = ModelLife(
            "FaceDetector",
            DetectorSettings(),
            FakeDevice(provider="AnotherExecutionProvider"),
        )
        life.start()
        assert life.starting.result(10) is None
    assert isinstance(life.fault, DeviceUnavailable)
    assert "CPUExecutionProvider was asked for" in life.fault.detail
    life.close()
