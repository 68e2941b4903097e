"""A decoded image of any depth → 8-bit pixels in RGB order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from actors.errors import ImageFault
from actors.faces import Rejection

if TYPE_CHECKING:
    from PIL.Image import Image

_SAMPLE_FORMAT_TAG = 339


def converter(image: Image) -> Callable[[Image], NDArray[np.uint8]]:
    """What makes uint8[h, w, 3] in RGB order of a decoded image, or of any part of it.

    Raises:
        ImageFault: its pixels are floating-point numbers, whose range nobody knows.
    """
    if image.mode == "F":
        raise ImageFault(
            Rejection.UNSUPPORTED,
            "The pixels are floating-point numbers without a known range; send 8-bit pixels.",
        )
    if image.mode.startswith("I;16"):
        return partial(_grey, shift=8)
    if image.mode == "I":
        least, shift = _range(image)
        return partial(_grey_of_32_bits, least=least, shift=shift)
    return _rgb


def bgr_of_ink(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of a JPEG in ink → uint8[h, w, 3] in BGR order, as Pillow makes them.

    Args:
        ink: uint8[h, w, 4], cyan, magenta, yellow and black as Adobe stores them: 255 is no ink.
    """
    product = ink[:, :, 2::-1].astype(np.uint16) * ink[:, :, 3:] + 128
    return ((product + (product >> 8)) >> 8).astype(np.uint8)


def _range(image: Image) -> tuple[int, int]:
    """How 32-bit pixels become 8-bit ones: what is subtracted, and by how many bits they are shifted then.

    That follows the range that their values use, of 8, 16 or up to 32 bits. Pillow keeps them as signed
    numbers, also where the file says that they have no sign.
    """
    least, most = cast(tuple[int, int], image.getextrema())
    tags = getattr(image, "tag_v2", {})
    has_sign = image.format != "TIFF" or tags.get(_SAMPLE_FORMAT_TAG, (1,)) in (2, (2,))
    if least < 0 and not has_sign:
        return 0, 24
    least = min(least, 0)
    num_bits = (most - least).bit_length()
    return least, 0 if num_bits <= 8 else max(8, num_bits - 8)


def _grey(image: Image, shift: int) -> NDArray[np.uint8]:
    # Pillow's own conversion would make everything above 255 white.
    grey = (np.asarray(image) >> shift).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _grey_of_32_bits(image: Image, least: int, shift: int) -> NDArray[np.uint8]:
    # Unsigned numbers wrap around, so the difference is right for the whole range.
    deep = np.asarray(image).astype(np.uint32) - np.uint32(least % 2**32)
    return np.repeat((deep >> np.uint32(shift)).astype(np.uint8)[:, :, None], 3, axis=2)


def _rgb(image: Image) -> NDArray[np.uint8]:
    if image.mode == "LAB":
        return _rgb_of_lab(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _rgb_of_lab(image: Image) -> NDArray[np.uint8]:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
