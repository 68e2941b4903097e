"""Heads → face candidates, pure NumPy: one function for each family, with its formula and source.

A session answers with the family's plain heads, or with two heads that the prepared graph makes from them on
the device (`graph_ends`): `top`, the best candidates, and `check`, a summary. Each decoder takes both kinds.

Heads are float32, one row for each image. All images are decoded at once. Coordinates of candidates are
pixels of the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from actors.heads import (
    STRIDES,
    TOP,
    Floats,
    Heads,
    Picked,
    best,
    finite,
    finite_scores,
    of_strides,
    pick_anchors,
    pick_top,
    top_scores,
)

_CENTERFACE_STRIDE = 4
_RETINAFACE_SIZES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
_RETINAFACE_VARIANCES = (0.1, 0.2)


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


def decode_centerface(
    heads: Heads, height: int, width: int, score_threshold: float | Floats
) -> list[Candidates]:
    """CenterFace: a heat map of face centres at stride 4.

    For heat[y, x] > threshold: h = 4 exp(scale_0), w = 4 exp(scale_1), centre = 4 (x + offset_1 + 0.5) and
    4 (y + offset_0 + 0.5); x1, y1 are cut at the tensor's edges before x2 = x1 + w, y2 = y1 + h are; landmark
    j = (x1 + w lm_(2j+1), y1 + h lm_(2j)). Source: Star-Clouds/CenterFace, prj-python/centerface.py (MIT).

    Args:
        heads: heat [n, 1, h, w] (sigmoided), scale and offset [n, 2, h, w], landmarks [n, 10, h, w]; or `top`
            and `check`.
        height: height of the tensor, in pixels.
        width: width of the tensor, in pixels.
        score_threshold: least score, exclusive; of all images, or of each: float32[n, 1].

    Raises:
        HeadsWrong: a score, or the geometry of a candidate, is not finite; or `top` and `check` disagree.
    """
    columns = width // _CENTERFACE_STRIDE
    if TOP in heads:
        scores = top_scores(heads)
        picked = pick_top(heads, scores, scores > score_threshold, height // _CENTERFACE_STRIDE * columns)
    else:
        num = len(heads["heat"])
        scores = finite_scores(heads, "heat").reshape(num, -1)
        image, anchor = best(scores, scores > score_threshold)
        scale, offset, points = (
            heads[name].reshape(num, size, -1)[image, :, anchor]
            for name, size in (("scale", 2), ("offset", 2), ("landmarks", 10))
        )
        box = np.concatenate([scale, offset], axis=1)
        picked = Picked(num, image, anchor, scores[image, anchor], box, points)
    stride = np.float32(_CENTERFACE_STRIDE)
    offset = picked.box[:, 2:]
    finite("offset", offset)
    y, x = np.divmod(picked.anchor, columns)
    with np.errstate(over="ignore", invalid="ignore"):
        box_h, box_w = (stride * np.exp(picked.box[:, :2])).T
        x1 = ((x + offset[:, 1] + 0.5) * stride - box_w / 2).clip(0, width)
        y1 = ((y + offset[:, 0] + 0.5) * stride - box_h / 2).clip(0, height)
        boxes = np.stack([x1, y1, x1 + box_w, y1 + box_h], axis=1)
        marks = picked.points.reshape(-1, 5, 2)[:, :, ::-1]
        landmarks = marks * np.stack([box_w, box_h], axis=1)[:, None] + boxes[:, None, :2]
    finite("scale and offset", boxes)
    finite("landmarks", landmarks)
    boxes[:, 2:] = np.minimum(boxes[:, 2:], (width, height))
    return _by_image(picked, boxes, picked.scores, landmarks)


def decode_yunet(heads: Heads, height: int, width: int, score_threshold: float | Floats) -> list[Candidates]:
    """YuNet: one anchor a cell at strides 8, 16 and 32; the prior is the cell's corner.

    score = sqrt(clip(cls) clip(obj)); centre = (c + b0) s, (r + b1) s; size = s exp(b2), s exp(b3);
    landmark = (k_(2j) + c) s, (k_(2j+1) + r) s. Source: OpenCV's
    modules/objdetect/src/face_detect.cpp (Apache-2.0).

    Args:
        heads: for each stride s: cls_s and obj_s [n, A, 1] (sigmoided), bbox_s [n, A, 4], kps_s [n, A, 10],
            with A = (height / s) (width / s), row by row; or `top`, whose scores are not rooted, and `check`.
        height: height of the tensor, in pixels, a multiple of 32.
        width: width of the tensor, in pixels, a multiple of 32.
        score_threshold: least score, inclusive; of all images, or of each: float32[n, 1].

    Raises:
        HeadsWrong: a score, or the geometry of a candidate, is not finite; or `top` and `check` disagree.
    """
    cells, strides = _cells(height, width, 1)
    if TOP in heads:
        scores = np.sqrt(top_scores(heads).clip(0, 1))
        picked = pick_top(heads, scores, scores >= score_threshold, len(cells))
    else:
        both = (finite_scores(heads, *of_strides(kind)).clip(0, 1) for kind in ("cls", "obj"))
        scores = np.sqrt(np.multiply(*both)[:, :, 0])
        picked = pick_anchors(heads, scores, scores >= score_threshold, "bbox", "kps")
    cell, stride = cells[picked.anchor], strides[picked.anchor, None]
    with np.errstate(over="ignore", invalid="ignore"):
        centre, size = (cell + picked.box[:, :2]) * stride, np.exp(picked.box[:, 2:]) * stride
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        landmarks = (picked.points.reshape(-1, 5, 2) + cell[:, None]) * stride[:, None]
    finite("bbox", boxes)
    finite("kps", landmarks)
    return _by_image(picked, boxes, picked.scores, landmarks)


def decode_scrfd(heads: Heads, height: int, width: int, score_threshold: float | Floats) -> list[Candidates]:
    """SCRFD with landmarks: two anchors a cell at strides 8, 16 and 32, centred on (c s, r s).

    x1, y1 = centre - (d0, d1) s; x2, y2 = centre + (d2, d3) s; landmark = centre + k s; the score is used
    as it is. Source: deepinsight/insightface, detection/scrfd/tools/scrfd.py (MIT).

    Args:
        heads: for each stride s: score_s [n, A, 1], bbox_s [n, A, 4], kps_s [n, A, 10], with
            A = 2 (height / s) (width / s); without the first axis where the export has no batch; or `top` and
            `check`.
        height: height of the tensor, in pixels, a multiple of 32.
        width: width of the tensor, in pixels, a multiple of 32.
        score_threshold: least score, inclusive; of all images, or of each: float32[n, 1].

    Raises:
        HeadsWrong: a score, or the geometry of a candidate, is not finite; or `top` and `check` disagree.
    """
    cells, strides = _cells(height, width, 2)
    if TOP in heads:
        scores = top_scores(heads)
        picked = pick_top(heads, scores, scores >= score_threshold, len(cells))
    else:
        heads = {name: head if head.ndim == 3 else head[None] for name, head in heads.items()}
        scores = finite_scores(heads, *of_strides("score"))[:, :, 0]
        picked = pick_anchors(heads, scores, scores >= score_threshold, "bbox", "kps")
    stride = strides[picked.anchor, None]
    with np.errstate(over="ignore", invalid="ignore"):
        centre = cells[picked.anchor] * stride
        boxes = np.concatenate(
            [centre - picked.box[:, :2] * stride, centre + picked.box[:, 2:] * stride], axis=1
        )
        landmarks = centre[:, None] + picked.points.reshape(-1, 5, 2) * stride[:, None]
    finite("bbox", boxes)
    finite("kps", landmarks)
    return _by_image(picked, boxes, picked.scores.clip(0, 1), landmarks)


def decode_retinaface(
    heads: Heads, height: int, width: int, score_threshold: float | Floats
) -> list[Candidates]:
    """RetinaFace: two priors a cell at strides 8, 16 and 32, of sides 16, 32 | 64, 128 | 256, 512.

    With the prior's centre ((c + 0.5) s, (r + 0.5) s) and side m: centre' = centre + 0.1 m l_(0,1); size =
    m exp(0.2 l_(2,3)); landmark = centre + 0.1 m k. Source: biubug6/Pytorch_Retinaface
    (MIT), as read in yakhyo/uniface (MIT).

    Args:
        heads: loc [n, A, 4], conf [n, A, 2] (softmaxed; the face is the second), landmarks [n, A, 10]; or
            `top` and `check`.
        height: height of the tensor, in pixels, a multiple of 32.
        width: width of the tensor, in pixels, a multiple of 32.
        score_threshold: least score, inclusive; of all images, or of each: float32[n, 1].

    Raises:
        HeadsWrong: a score, or the geometry of a candidate, is not finite; or `top` and `check` disagree.
    """
    centres, sides = _retinaface_priors(height, width)
    near, grow = _RETINAFACE_VARIANCES
    if TOP in heads:
        scores = top_scores(heads)
        picked = pick_top(heads, scores, scores >= score_threshold, len(centres))
    else:
        scores = finite_scores(heads, "conf")[:, :, 1]
        image, anchor = best(scores, scores >= score_threshold)
        box, points = heads["loc"][image, anchor], heads["landmarks"][image, anchor]
        picked = Picked(len(scores), image, anchor, scores[image, anchor], box, points)
    prior, side = centres[picked.anchor], sides[picked.anchor, None]
    with np.errstate(over="ignore", invalid="ignore"):
        centre = prior + near * side * picked.box[:, :2]
        size = side * np.exp(grow * picked.box[:, 2:])
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        landmarks = prior[:, None] + near * side[:, None] * picked.points.reshape(-1, 5, 2)
    finite("loc", boxes)
    finite("landmarks", landmarks)
    return _by_image(picked, boxes, picked.scores, landmarks)


def nms(candidates: Candidates, iou_threshold: float, max_faces: int) -> Candidates:
    """Non-maximum suppression: keep the best, drop candidates that overlap it by more than `iou_threshold`.

    Args:
        candidates: best first.
        iou_threshold: greatest IoU of two candidates that are both kept.
        max_faces: how many are kept at most.
    """
    if len(candidates.scores) <= min(1, max_faces):
        return candidates
    # One row for each side: NumPy works on whole rows much faster than on pairs of numbers.
    sides = candidates.boxes.T.astype(np.float64)
    areas = (sides[2] - sides[0]).clip(0) * (sides[3] - sides[1]).clip(0)
    left = np.arange(len(areas))
    kept: list[int] = []
    while left.size and len(kept) < max_faces:
        first = int(left[0])
        kept.append(first)
        left = left[1:]
        x1, y1, x2, y2 = sides[:, left]
        width = np.minimum(x2, sides[2, first]) - np.maximum(x1, sides[0, first])
        height = np.minimum(y2, sides[3, first]) - np.maximum(y1, sides[1, first])
        both = width.clip(0) * height.clip(0)
        left = left[both <= iou_threshold * (areas[first] + areas[left] - both)]
    return Candidates(candidates.boxes[kept], candidates.scores[kept], candidates.landmarks[kept])


def _by_image(
    picked: Picked,
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    landmarks: NDArray[np.floating],
) -> list[Candidates]:
    bounds: Sequence[int] = np.searchsorted(picked.image, np.arange(picked.num_images + 1)).tolist()
    arrays = [values.astype(np.float32, copy=False) for values in (boxes, scores, landmarks)]
    return [Candidates(*(values[begin:end] for values in arrays)) for begin, end in pairwise(bounds)]


@lru_cache(maxsize=32)
def _cells(height: int, width: int, anchors_per_cell: int) -> tuple[Floats, Floats]:
    """Each anchor's cell (c, r), float32[A, 2], and its stride, float32[A]; row by row, stride by stride."""
    cells, strides = [], []
    for stride in STRIDES:
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
