"""The golden photo shows one known face; a device is trusted only after it has found that face.

The photo is NASA's portrait of an astronaut (public domain), cut to a square. A person marked the face, so
that no model decides where it lies. Every family stays within the tolerances; a device that computes garbage
does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from actors.faces import Box, Face, Point
from actors.images import Limits, PreparedImage, prepare

_PHOTO = Path(__file__).with_name("golden.jpg")
_LIMITS = Limits(max_pixels=1_000_000, max_bytes=1_000_000)

#: In pixels of the photo.
BOX: Box = (118.0, 72.0, 204.0, 180.0)
LANDMARKS: tuple[Point, ...] = (
    (139.0, 101.0),
    (183.0, 103.0),
    (162.0, 127.0),
    (140.0, 141.0),
    (180.0, 142.0),
)

_MIN_SCORE = 0.5
_MIN_IOU = 0.5
_MAX_LANDMARK_OFF = 0.2  # of the box's width


def photos(num_images: int, shape: tuple[int, int]) -> list[PreparedImage]:
    """The golden photo `num_images` times, prepared for a tensor of (height, width) pixels."""
    return [_prepared(shape)] * num_images


def problem(faces: Sequence[Face]) -> str:
    """What is wrong with the faces found in the golden photo, in words; empty if they are right."""
    if len(faces) != 1:
        return f"{len(faces)} faces instead of 1"
    face = faces[0]
    numbers = np.array([*face.box, *(value for point in face.landmarks for value in point)])
    if not np.isfinite(numbers).all():
        return "coordinates that are not finite"
    if not _MIN_SCORE <= face.score <= 1:
        return f"a score of {face.score:.3f}"
    if (overlap := iou(face.box, BOX)) < _MIN_IOU:
        return f"the face in the wrong place (IoU {overlap:.2f})"
    off = np.hypot(*(np.array(face.landmarks) - np.array(LANDMARKS)).T).max() / (BOX[2] - BOX[0])
    if off > _MAX_LANDMARK_OFF:
        return f"a landmark off by {off:.2f} of the face's width"
    return ""


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return float(both / (sum(areas) - both))


@cache
def _prepared(shape: tuple[int, int]) -> PreparedImage:
    return prepare(_PHOTO, [shape], _LIMITS, max_enlargement=2.0)
