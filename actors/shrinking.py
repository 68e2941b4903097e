"""A large picture made smaller strip by strip, so that its copies in other depths are never whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pictures of fewer pixels are converted at once: their copies take no more than some 100 MB.
MIN_PIXELS = 8_000_000
_STRIP_PIXELS = 2_000_000


def shrunk_by_strips(
    image: Image, needed: tuple[int, int], to_rgb: Callable[[Image], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Convert a decoded picture to RGB, and shrink it by a whole number on the way.

    Args:
        image: decoded, not turned.
        needed: width and height that are needed in the end. The result is at least twice as large where the
            picture is: it is shrunk once more, and the borders of the strips must not show.
        to_rgb: converts a part of the picture to uint8[h, w, 3].

    Returns:
        uint8[height, width, 3] in RGB order, not turned.
    """
    import cv2

    width, height = image.size
    divisor = max(1, min(width // (2 * needed[0]), height // (2 * needed[1])))
    small_w = -(-width // divisor)
    num_rows = divisor * max(1, _STRIP_PIXELS // (width * divisor))
    strips = []
    for top in range(0, height, num_rows):
        bottom = min(top + num_rows, height)
        strip = to_rgb(image.crop((0, top, width, bottom)))
        size = (small_w, -(-(bottom - top) // divisor))
        strips.append(strip if divisor == 1 else cv2.resize(strip, size, interpolation=cv2.INTER_AREA))
    return np.concatenate(strips).astype(np.uint8, copy=False)
