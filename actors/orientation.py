"""Which way up a photo is, by its EXIF block, and turning its pixels. It never writes metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actors.tiff_tags import directories

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION_TAG = 0x0112
#: Orientations whose width is the height of the upright photo.
SWAPPED = (5, 6, 7, 8)
_EXIF_PREFIX = b"Exif\0\0"


def orientation_in(exif: bytes) -> int:
    """EXIF's orientation, 1..8; 1 if the block has none, or is broken.

    An orientation that only XMP states is ignored, as browsers do.
    """
    # Pillow puts one before the block of a PNG, which may have its own.
    while exif.startswith(_EXIF_PREFIX):
        exif = exif.removeprefix(_EXIF_PREFIX)
    for each in directories(exif)[:1]:
        stated = each.number(ORIENTATION_TAG) or each.text(ORIENTATION_TAG)
        if str(stated) in "12345678" and str(stated):
            return int(stated)
    return 1


def orientation_of(image: Image) -> int:
    """The orientation of an opened image. Pillow and pillow-heif turn TIFF and HEIC by themselves."""
    if image.format in ("TIFF", "HEIF"):
        return 1
    exif = image.info.get("exif")
    return orientation_in(exif) if isinstance(exif, bytes) else 1


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn upright, by EXIF's orientation; the result is contiguous. An unknown orientation turns nothing."""
    import cv2

    turns: dict[int, Callable[[NDArray[np.uint8]], Any]] = {
        2: lambda lying: cv2.flip(lying, 1),
        3: lambda lying: cv2.rotate(lying, cv2.ROTATE_180),
        4: lambda lying: cv2.flip(lying, 0),
        5: cv2.transpose,
        6: lambda lying: cv2.rotate(lying, cv2.ROTATE_90_CLOCKWISE),
        7: lambda lying: cv2.rotate(cv2.transpose(lying), cv2.ROTATE_180),
        8: lambda lying: cv2.rotate(lying, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }
    return np.asarray(turns[orientation](pixels), dtype=np.uint8) if orientation in turns else pixels
