"""Heads → face candidates, pure NumPy: one function for each family, with its formula and source.

Heads are float32, one row for each image. Coordinates of candidates are pixels of the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Heads = Mapping[str, Floats]

#: Kept per image before NMS, best first; bounds its cost on a picture that is all noise.
MAX_CANDIDATES = 5000

_STRIDES = (8, 16, 32)
_CENTERFACE_STRIDE = 4
_RETINAFACE_SIZES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
_RETINAFACE_VARIANCES = (0.1, 0.2)


class HeadsNotFinite(ArithmeticError):
    """A head holds NaN or infinity: the device computes garbage."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Face candidates of one image, best score first.

    Attributes:
        boxes: float32[n, 4], x1, y1, x2, y2.
        scores: float32[n], 0..1.
        landmarks: float32[n, 5, 2], x, y of right eye, left eye, nose, right and left corner of the mouth.
    """

    boxes: Floats
    scores: Floats
    landmarks: Floats


def dead_images(heads: Heads, num_images: int) -> list[int]:
    """Indices of the images whose heads each hold one single number: the device computed nothing for them.

    No network answers so, whatever the photo shows: padding at the tensor's edges alone makes numbers differ.
    DirectML has been seen to give zeros without an error (onnxruntime#15459).

    Args:
        heads: [n, ...] each, n at least `num_images`; later rows are padding.
        num_images: how many rows are images.
    """
    return [
        image
        for image in range(num_images)
        if all(bool((head[image] == head[image].flat[0]).all()) for head in heads.values())
    ]


def decode_centerface(heads: Heads, height: int, width: int, score_threshold: float) -> list[Candidates]:
    """CenterFace: a heat map of face centres at stride 4.

    For heat[y, x] > threshold: h = 4 exp(scale_0), w = 4 exp(scale_1), centre = 4 (x + offset_1 + 0.5) and
    4 (y + offset_0 + 0.5); x1, y1 are cut at the tensor's edges before x2 = x1 + w, y2 = y1 + h are; landmark
    j = (x1 + w lm_(2j+1), y1 + h lm_(2j)). Source: Star-Clouds/CenterFace, prj-python/centerface.py (MIT).

    Args:
        heads: heat [n, 1, h, w] (sigmoided), scale and offset [n, 2, h, w], landmarks [n, 10, h, w].
        height: height of the tensor, in pixels.
        width: width of the tensor, in pixels.
        score_threshold: least score, exclusive.

    Raises:
        HeadsNotFinite: a score, or the geometry of a candidate, is not finite.
    """
    found = []
    stride = np.float32(_CENTERFACE_STRIDE)
    heats = _scores(heads, "heat")[:, 0]
    for heat, scale, offset, points in zip(
        heats, heads["scale"], heads["offset"], heads["landmarks"], strict=True
    ):
        ys, xs = np.nonzero(heat > score_threshold)
        best = _best(heat[ys, xs])
        y, x = ys[best], xs[best]
        _finite("offset", offset[:, y, x])
        with np.errstate(over="ignore", invalid="ignore"):
            box_h, box_w = stride * np.exp(scale[0, y, x]), stride * np.exp(scale[1, y, x])
            x1 = ((x + offset[1, y, x] + 0.5) * stride - box_w / 2).clip(0, width)
            y1 = ((y + offset[0, y, x] + 0.5) * stride - box_h / 2).clip(0, height)
            boxes = np.stack([x1, y1, x1 + box_w, y1 + box_h], axis=1)
            marks = points[:, y, x].T.reshape(-1, 5, 2)[:, :, ::-1]
            landmarks = marks * np.stack([box_w, box_h], axis=1)[:, None] + boxes[:, None, :2]
        _finite("scale and offset", boxes)
        _finite("landmarks", landmarks)
        boxes[:, 2:] = np.minimum(boxes[:, 2:], (width, height))
        found.append(_candidates(boxes, heat[y, x], landmarks))
    return found


def decode_yunet(heads: Heads, height: int, width: int, score_threshold: float) -> list[Candidates]:
    """YuNet: one anchor a cell at strides 8, 16 and 32; the prior is the cell's corner.

    score = sqrt(clip(cls) clip(obj)); centre = (c + b0) s, (r + b1) s; size = s exp(b2), s exp(b3);
    landmark = (k_(2j) + c) s, (k_(2j+1) + r) s. Source: OpenCV's
    modules/objdetect/src/face_detect.cpp (Apache-2.0).

    Args:
        heads: for each stride s: cls_s and obj_s [n, A, 1] (sigmoided), bbox_s [n, A, 4], kps_s [n, A, 10],
            with A = (height / s) (width / s), row by row.
        height: height of the tensor, in pixels, a multiple of 32.
        width: width of the tensor, in pixels, a multiple of 32.
        score_threshold: least score, inclusive.

    Raises:
        HeadsNotFinite: a score, or the geometry of a candidate, is not finite.
    """
    scores = np.sqrt(
        np.concatenate(
            [
                (_scores(heads, f"cls_{s}").clip(0, 1) * _scores(heads, f"obj_{s}").clip(0, 1))[:, :, 0]
                for s in _STRIDES
            ],
            axis=1,
        )
    )
    cells, strides = _cells(height, width, 1)
    found = []
    for image, row in enumerate(scores):
        best = _above(row, score_threshold)
        raw = _picked(heads, "bbox", image, best)
        points = _picked(heads, "kps", image, best).reshape(-1, 5, 2)
        cell, stride = cells[best], strides[best, None]
        with np.errstate(over="ignore", invalid="ignore"):
            centre, size = (cell + raw[:, :2]) * stride, np.exp(raw[:, 2:]) * stride
            boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
            landmarks = (points + cell[:, None]) * stride[:, None]
        _finite("bbox", boxes)
        _finite("kps", landmarks)
        found.append(_candidates(boxes, row[best], landmarks))
    return found


def decode_scrfd(heads: Heads, height: int, width: int, score_threshold: float) -> list[Candidates]:
    """SCRFD with landmarks: two anchors a cell at strides 8, 16 and 32, centred on (c s, r s).

    x1, y1 = centre - (d0, d1) s; x2, y2 = centre + (d2, d3) s; landmark = centre + k s; the score is used
    as it is. Source: deepinsight/insightface, detection/scrfd/tools/scrfd.py (MIT).

    Args:
        heads: for each stride s: score_s [n, A, 1], bbox_s [n, A, 4], kps_s [n, A, 10], with
            A = 2 (height / s) (width / s); without the first axis where the export has no batch.
        height: height of the tensor, in pixels, a multiple of 32.
        width: width of the tensor, in pixels, a multiple of 32.
        score_threshold: least score, inclusive.

    Raises:
        HeadsNotFinite: a score, or the geometry of a candidate, is not finite.
    """
    heads = {name: head if head.ndim == 3 else head[None] for name, head in heads.items()}
    scores = np.concatenate([_scores(heads, f"score_{s}")[:, :, 0] for s in _STRIDES], axis=1)
    cells, strides = _cells(height, width, 2)
    found = []
    for image, row in enumerate(scores):
        best = _above(row, score_threshold)
        distances = _picked(heads, "bbox", image, best)
        points = _picked(heads, "kps", image, best).reshape(-1, 5, 2)
        stride = strides[best, None]
        with np.errstate(over="ignore", invalid="ignore"):
            centre = cells[best] * stride
            boxes = np.concatenate(
                [centre - distances[:, :2] * stride, centre + distances[:, 2:] * stride], axis=1
            )
            landmarks = centre[:, None] + points * stride[:, None]
        _finite("bbox", boxes)
        _finite("kps", landmarks)
        found.append(_candidates(boxes, row[best].clip(0, 1), landmarks))
    return found


def decode_retinaface(heads: Heads, height: int, width: int, score_threshold: float) -> list[Candidates]:
    """RetinaFace: two priors a cell at strides 8, 16 and 32, of sides 16, 32 | 64, 128 | 256, 512.

    With the prior's centre ((c + 0.5) s, (r + 0.5) s) and side m: centre' = centre + 0.1 m l_(0,1); size =
    m exp(0.2 l_(2,3)); landmark = centre + 0.1 m k. Source: biubug6/Pytorch_Retinaface
    (MIT), as read in yakhyo/uniface (MIT).

    Args:
        heads: loc [n, A, 4], conf [n, A, 2] (softmaxed; the face is the second), landmarks [n, A, 10].
        height: height of the tensor, in pixels, a multiple of 32.
        width: width of the tensor, in pixels, a multiple of 32.
        score_threshold: least score, inclusive.

    Raises:
        HeadsNotFinite: a score, or the geometry of a candidate, is not finite.
    """
    scores = _scores(heads, "conf")[:, :, 1]
    centres, sides = _retinaface_priors(height, width)
    near, grow = _RETINAFACE_VARIANCES
    found = []
    for image, row in enumerate(scores):
        best = _above(row, score_threshold)
        raw = heads["loc"][image][best]
        points = heads["landmarks"][image][best].reshape(-1, 5, 2)
        prior, side = centres[best], sides[best, None]
        with np.errstate(over="ignore", invalid="ignore"):
            centre = prior + near * side * raw[:, :2]
            size = side * np.exp(grow * raw[:, 2:])
            boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
            landmarks = prior[:, None] + near * side[:, None] * points
        _finite("loc", boxes)
        _finite("landmarks", landmarks)
        found.append(_candidates(boxes, row[best], landmarks))
    return found


def nms(candidates: Candidates, iou_threshold: float, max_faces: int) -> Candidates:
    """Non-maximum suppression: keep the best, drop candidates that overlap it by more than `iou_threshold`.

    Args:
        candidates: best first.
        iou_threshold: greatest IoU of two candidates that are both kept.
        max_faces: how many are kept at most.
    """
    boxes = candidates.boxes.astype(np.float64)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while left.size and len(kept) < max_faces:
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        both = (high - low).clip(0).prod(axis=1)
        left = left[both <= iou_threshold * (areas[best] + areas[left] - both)]
    return Candidates(candidates.boxes[kept], candidates.scores[kept], candidates.landmarks[kept])


def _scores(heads: Heads, name: str) -> Floats:
    _finite(name, heads[name])
    return heads[name]


def _finite(name: str, values: NDArray[np.floating]) -> None:
    if not np.isfinite(values).all():
        raise HeadsNotFinite(f"the head {name} holds NaN, infinity or an overflow")


def _above(scores: Floats, threshold: float) -> NDArray[np.intp]:
    """Indices of the scores that reach the threshold, best first."""
    indices = np.flatnonzero(scores >= threshold)
    return indices[_best(scores[indices])]


def _best(scores: Floats) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]


def _picked(heads: Heads, kind: str, image: int, indices: NDArray[np.intp]) -> Floats:
    """Rows of one image from the heads of all strides, which together are one list of anchors."""
    return np.concatenate([heads[f"{kind}_{s}"][image] for s in _STRIDES])[indices]


def _candidates(
    boxes: NDArray[np.floating], scores: NDArray[np.floating], landmarks: NDArray[np.floating]
) -> Candidates:
    return Candidates(boxes.astype(np.float32), scores.astype(np.float32), landmarks.astype(np.float32))


@lru_cache(maxsize=32)
def _cells(height: int, width: int, anchors_per_cell: int) -> tuple[Floats, Floats]:
    """Each anchor's cell (c, r), float32[A, 2], and its stride, float32[A]; row by row, stride by stride."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cell = np.stack([columns.ravel(), rows.ravel()], axis=1).repeat(anchors_per_cell, axis=0)
        cells.append(cell.astype(np.float32))
        strides.append(np.full(len(cell), stride, dtype=np.float32))
    return _frozen(np.concatenate(cells)), _frozen(np.concatenate(strides))


@lru_cache(maxsize=32)
def _retinaface_priors(height: int, width: int) -> tuple[Floats, Floats]:
    """Each prior's centre, float32[A, 2], and side, float32[A], in pixels of the tensor."""
    cells, strides = _cells(height, width, 2)
    sizes = np.array([_RETINAFACE_SIZES[int(stride)] for stride in strides[::2]], dtype=np.float32).ravel()
    return _frozen((cells + 0.5) * strides[:, None]), _frozen(sizes)


def _frozen(values: Floats) -> Floats:
    values.setflags(write=False)
    return values
