"""Each family's decoder against a plain-loop reading of its source; NMS likewise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import decoding
from actors.decoding import Candidates, nms
from actors.heads import MAX_CANDIDATES, HeadsWrong
from tests import reference
from tests.heads import random_heads

SIZES = [(64, 64), (96, 160), (160, 96)]


DECODERS: dict[str, tuple[Callable[..., list[Candidates]], Callable[..., list[reference.Found]]]] = {
    "centerface": (decoding.decode_centerface, reference.centerface),
    "yunet": (decoding.decode_yunet, reference.yunet),
    "scrfd": (decoding.decode_scrfd, reference.scrfd),
    "retinaface": (decoding.decode_retinaface, reference.retinaface),
}


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("size", SIZES)
def test_decodes_as_its_source_does(family: str, size: tuple[int, int]) -> None:
    """Same candidates, boxes, scores and landmarks for every image of a batch, best first."""
    decode, straight = DECODERS[family]
    heads = random_heads(family, *size, batch=2)
    found = decode(heads, *size, 0.2)
    assert len(found) == 2
    for image, candidates in enumerate(found):
        expected = straight({name: head[image : image + 1] for name, head in heads.items()}, *size, 0.2)
        expected.sort(key=lambda each: -each[1])
        assert len(expected) == len(candidates.scores) > 3
        np.testing.assert_allclose(candidates.scores, [each[1] for each in expected], rtol=1e-5)
        np.testing.assert_allclose(candidates.boxes, [each[0] for each in expected], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(candidates.landmarks, [each[2] for each in expected], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", DECODERS)
def test_nothing_above_the_threshold_is_no_candidate(family: str) -> None:
    """Empty arrays of the right shape, so that whatever follows needs no special case."""
    found = DECODERS[family][0](random_heads(family, 64, 64, batch=1), 64, 64, 0.9999)[0]
    assert (found.boxes.shape, found.scores.shape, found.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_every_head_that_is_not_finite_is_noticed(family: str, value: float) -> None:
    """I1: garbage of the device is an error, never "no faces"; and no warning of NumPy's gets out."""
    good = random_heads(family, 64, 64, batch=1)
    for name, head in good.items():
        with pytest.raises(HeadsWrong):
            DECODERS[family][0](good | {name: np.full_like(head, value)}, 64, 64, 0.0)


@pytest.mark.parametrize(
    ("family", "head"), [("centerface", "scale"), ("yunet", "bbox_8"), ("retinaface", "loc")]
)
def test_a_size_that_overflows_is_not_finite(family: str, head: str) -> None:
    """exp(1000) is no size of a face."""
    heads = random_heads(family, 64, 64, batch=1)
    with pytest.raises(HeadsWrong, match=head.split("_")[0]):
        DECODERS[family][0](heads | {head: np.full_like(heads[head], 1000)}, 64, 64, 0.4)


def test_scrfd_without_a_batch_axis_is_one_image() -> None:
    """Exports for single images give [A, C]."""
    heads = random_heads("scrfd", 64, 64, batch=1)
    with_batch = decoding.decode_scrfd(heads, 64, 64, 0.4)
    without = decoding.decode_scrfd({name: head[0] for name, head in heads.items()}, 64, 64, 0.4)
    np.testing.assert_array_equal(without[0].boxes, with_batch[0].boxes)


def test_candidates_are_bounded() -> None:
    """I6: a picture that is all noise costs no more than MAX_CANDIDATES, and the best are kept."""
    heads = random_heads("centerface", 320, 320, batch=1)
    heads["heat"] = 0.5 + heads["heat"] / 2
    found = decoding.decode_centerface(heads, 320, 320, 0.5)[0]
    assert len(found.scores) == MAX_CANDIDATES
    assert found.scores[-1] >= np.sort(heads["heat"].ravel())[-MAX_CANDIDATES]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_nms_keeps_what_a_plain_loop_keeps(num: int, seed: int, threshold: float) -> None:
    """Same faces in the same order; kept boxes never overlap more than allowed."""
    random = np.random.default_rng(seed)
    corner = random.integers(0, 60, (num, 2))
    boxes = np.concatenate([corner, corner + random.integers(1, 40, (num, 2))], axis=1).astype(np.float32)
    scores = np.sort(random.random(num).astype(np.float32))[::-1]
    marks = np.zeros((num, 5, 2), dtype=np.float32)
    kept = nms(Candidates(boxes, scores, marks), threshold, 1000)
    plain = reference.nms(
        [(list(map(float, b)), float(s), []) for b, s in zip(boxes, scores, strict=True)], threshold
    )
    assert kept.boxes.tolist() == [each[0] for each in plain]
    for one in range(len(kept.boxes)):
        for other in range(one):
            assert reference.iou(kept.boxes[one].tolist(), kept.boxes[other].tolist()) <= threshold + 1e-9


def test_nms_stops_at_max_faces() -> None:
    """The best so many are kept."""
    boxes = np.array([[0, 0, 5, 5], [10, 10, 15, 15], [20, 20, 25, 25]], dtype=np.float32)
    kept = nms(
        Candidates(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros((3, 5, 2), np.float32)), 0.3, 2
    )
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8])
