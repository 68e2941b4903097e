"""Photos with a number and a known answer: a real face, at a place that depends on the number.

CenterFace finds the face as in any photo, so the CPU's answers can be checked too. The number stands at the
upper edge as black and white squares; the simulated device reads it and computes the answer from it. The
photos are not square, so that an answer with swapped sides is seen.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from actors import golden
from actors.faces import Box, Detected, Outcome
from tests.pixels import read_pixels

#: The size of the photo; its width is the input size that the suite sets, so it is not shrunk.
WIDTH, HEIGHT = 320, 240

_TILE = 160
_NUM_COLUMNS, _NUM_ROWS = 5, 3
_STEP_X, _STEP_Y = 40, 36
#: Below the squares.
_FIRST_Y = 8
_SQUARE = 4
_NUM_BITS = 32
_MAGIC = (1, 0, 1, 0, 0, 1, 0, 1)
_MIN_IOU = 0.5

Pixels = NDArray[np.uint8]


def photo(number: int) -> bytes:
    """Make the photo of a number, as a PNG.

    Args:
        number: 0 to 2**32 - 1.
    """
    pixels = np.full((HEIGHT, WIDTH, 3), (90, 110, 100), np.uint8)
    x, y = _place(number)
    pixels[y : y + _TILE, x : x + _TILE] = _tile()
    bits = np.array([*_MAGIC, *(number >> bit & 1 for bit in range(_NUM_BITS))], np.uint8) * 255
    squares = np.repeat(bits, _SQUARE)[None, :, None]
    pixels[:_SQUARE, : squares.shape[1]] = squares
    return bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def number_of(pixels: Pixels) -> int | None:
    """The number of the photo in one slot of a tensor, uint8[height, width, 3]; None if the slot has none.

    A photo lies in the upper left corner of its slot.
    """
    if pixels.shape[0] < HEIGHT or pixels.shape[1] < WIDTH:
        return None
    middle = _SQUARE // 2
    squares = pixels[middle, middle : _SQUARE * (len(_MAGIC) + _NUM_BITS) : _SQUARE, 0]
    if not np.isin(squares, (0, 255)).all() or tuple(squares[: len(_MAGIC)] // 255) != _MAGIC:
        return None
    return int(sum(1 << bit for bit, square in enumerate(squares[len(_MAGIC) :]) if square))


def box_of(number: int) -> Box:
    """The box of a photo's face, in pixels of the photo."""
    x, y = _place(number)
    x1, y1, x2, y2 = (value * _TILE / 320 for value in golden.BOX)
    return (x1 + x, y1 + y, x2 + x, y2 + y)


def landmarks_of(number: int) -> tuple[tuple[float, float], ...]:
    """The five landmarks of a photo's face, in pixels of the photo."""
    x, y = _place(number)
    return tuple((px * _TILE / 320 + x, py * _TILE / 320 + y) for px, py in golden.LANDMARKS)


def is_right(number: int, outcome: Outcome) -> bool:
    """Whether an outcome is the photo's own answer: its width and height, and one face at its place."""
    return (
        isinstance(outcome, Detected)
        and (outcome.width, outcome.height) == (WIDTH, HEIGHT)
        and len(outcome.faces) == 1
        and golden.iou(outcome.faces[0].box, box_of(number)) >= _MIN_IOU
    )


def _place(number: int) -> tuple[int, int]:
    row, column = divmod(number % (_NUM_COLUMNS * _NUM_ROWS), _NUM_COLUMNS)
    return column * _STEP_X, _FIRST_Y + row * _STEP_Y


@cache
def _tile() -> Any:
    whole = read_pixels(Path(golden.__file__).with_name("golden.jpg"))
    return cv2.resize(whole, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
