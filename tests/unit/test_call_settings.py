"""Each caller's thresholds are honoured beside others in one batch, and no other model answers than asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import model_life
from actors.call_settings import AskedImage, CallSettings, ModelChoice
from actors.face_detector import FaceDetector, start_detector
from actors.face_model import FaceModel
from actors.faces import Detected, Failed, Failure, State
from actors.guard import Guard
from actors.images import Limits, prepare
from actors.models import ReadyModel
from actors.session import OnnxSessionOpener
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice, Heads, golden_heads, prepared

SETTINGS = DetectorSettings(input_size=320, batch_sizes=(1, 2, 4), num_lanes=1, num_prepare_threads=1)
LIMITS = Limits(10**8, 10**8)
#: Scores of the faces that `three_faces` puts into each photo that is not the golden one.
SCORES = (0.9, 0.6, 0.3)


def three_faces(tensor: np.ndarray[Any, Any]) -> Heads:
    """The golden face in the golden photo, and three faces far from each other in any other photo."""
    heads = golden_heads(tensor)
    for slot in range(len(tensor)):
        # Photos of `prepared` are 8 x 8 pixels; the golden photo fills the tensor.
        if not tensor[slot, 8:, 8:].any():
            for name in heads:
                heads[name][slot] = 0
            # A cell has 4 x 4 pixels, and faces in the padding are dropped: all three lie in the first cells.
            for (y, x), score in zip(((0, 0), (0, 1), (1, 0)), SCORES, strict=True):
                heads["heat"][slot, 0, y, x] = score
                heads["scale"][slot, :, y, x] = -2
                heads["landmarks"][slot, :, y, x] = 0.5
    return heads


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)


def detector(**changes: Any) -> tuple[FaceDetector, FakeDevice]:
    device = FakeDevice(three_faces)
    return start_detector("FaceDetector", SETTINGS.model_copy(update=changes), device), device


def num_faces(outcome: object) -> int:
    assert isinstance(outcome, Detected), outcome
    return len(outcome.faces)


def test_each_caller_has_its_own_thresholds_in_one_batch() -> None:
    """Four calls at one moment run together, and each gets what it asked for."""
    asked = [
        CallSettings(score_threshold=0.2),
        CallSettings(),
        CallSettings(score_threshold=0.8),
        CallSettings(score_threshold=0.2, max_faces=2),
    ]

    device = FakeDevice(three_faces)
    model = FaceModel(MODEL, device, SETTINGS, Guard(1))
    batch = [AskedImage(prepared(n, (320, 320)), each) for n, each in enumerate(asked)]
    found, run = model.run_batch(batch)
    assert [len(faces) for faces in found] == [3, 2, 1, 2]
    assert (run.num_images, len(device.runs)) == (4, 1)

    async def story() -> list[int]:
        made, _ = detector()
        calls = [made.detect([prepared(n, (320, 320))], settings=each) for n, each in enumerate(asked)]
        return [num_faces(outcome) for (outcome,) in await asyncio.gather(*calls)]

    assert asyncio.run(story()) == [3, 2, 1, 2]


def test_a_call_without_settings_takes_those_of_the_detector() -> None:
    async def story() -> list[int]:
        made, _ = detector(score_threshold=0.2, max_faces=1)
        mine = await made.detect([prepared(1, (320, 320))])
        of_family = await made.detect([prepared(2, (320, 320))], settings=CallSettings())
        return [num_faces(mine[0]), num_faces(of_family[0])]

    assert asyncio.run(story()) == [1, 2]


def test_the_golden_photo_is_judged_by_the_familys_thresholds() -> None:
    """I4: a detector whose photos need a score of .95 is as ready as any other."""

    async def story() -> State:
        made, _ = detector(score_threshold=0.95)
        await made.health(10.0)
        return (await made.check()).state

    assert asyncio.run(story()) is State.READY


def test_a_call_for_another_model_is_not_run() -> None:
    """I1: no photo is answered by another model than asked; the failure names both."""
    others = [
        (ModelChoice("yunet", "", 320), "detector.model = centerface, and detector.model = yunet is wanted"),
        (ModelChoice("centerface", "", 640), "detector.input_size = 320, and 640 is wanted"),
        (ModelChoice("centerface", "", 320, "1" * 64), "sha256 000000000000"),
    ]

    async def story() -> None:
        made, device = detector()
        await made.health(10.0)
        before = len(device.runs)
        for wanted, words in others:
            (outcome,) = await made.detect([prepared(1, (320, 320))], settings=CallSettings(wanted=wanted))
            assert isinstance(outcome, Failed)
            assert outcome.reason is Failure.OTHER_SETTINGS
            assert words in outcome.detail
        assert len(device.runs) == before
        fits = ModelChoice("centerface", "", 320, MODEL.digest)
        (outcome,) = await made.detect([prepared(1, (320, 320))], settings=CallSettings(wanted=fits))
        assert num_faces(outcome) == 2

    asyncio.run(story())


def test_the_same_file_at_two_paths_is_one_model() -> None:
    """And one path of two files is not, where both are known."""
    here, there = ModelChoice("centerface", "/a.onnx", 640, "1"), ModelChoice("x", "/b.onnx", 640, "1")
    assert here.fits(there)
    assert not here.fits(ModelChoice("centerface", "/a.onnx", 640, "2"))
    assert here.fits(ModelChoice("another", "/a.onnx", 640))
    assert not here.fits(ModelChoice("centerface", "", 640))
    assert here.variables == "RAYFACE_DETECTOR__MODEL_PATH=/a.onnx RAYFACE_DETECTOR__INPUT_SIZE=640"


def test_a_detector_says_with_which_settings_it_was_placed() -> None:
    async def story() -> dict[str, Any] | None:
        made, _ = detector(max_faces=7)
        return made.snapshot().settings

    settings = asyncio.run(story())
    assert settings is not None
    assert DetectorSettings.model_validate(settings) == SETTINGS.model_copy(update={"max_faces": 7})


@pytest.mark.parametrize(
    "wrong",
    [{"score_threshold": 0.0}, {"score_threshold": float("nan")}, {"nms_threshold": 1.5}, {"max_faces": 0}],
)
def test_a_value_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CallSettings(**wrong)


def test_a_mixed_batch_gives_what_separate_detectors_give(centerface: ReadyModel, photos: Path) -> None:
    """With the real model: the same faces as if each caller had a detector with its own settings."""
    photo = prepare(photos / "montage_faces.jpg", [(320, 320)], LIMITS, 2.0)
    asked = [
        CallSettings(score_threshold=0.2, nms_threshold=0.3),
        CallSettings(score_threshold=0.2, nms_threshold=0.9),
        CallSettings(score_threshold=0.85),
        CallSettings(max_faces=2),
    ]

    def model(**changes: Any) -> FaceModel:
        settings = SETTINGS.model_copy(update=changes)
        return FaceModel(centerface, OnnxSessionOpener("cpu"), settings, Guard(1))

    together, _ = model().run_batch([AskedImage(photo, each) for each in asked])
    alone = [
        model(
            score_threshold=each.score_threshold,
            nms_threshold=each.nms_threshold,
            max_faces=each.max_faces,
        ).detect([photo])[0]
        for each in asked
    ]
    assert [[face.box for face in faces] for faces in together] == [
        [pytest.approx(face.box, abs=0.01) for face in faces] for faces in alone
    ]
    assert len({len(faces) for faces in together}) == len(asked)
