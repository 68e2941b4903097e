"""Encoded photo → small upright pixels that fit a tensor.

Pillow reads the header without decoding. libjpeg-turbo decodes most JPEGs (`actors/jpeg.py`), and Pillow
everything else: both at a reduced size where the format can, and both notice a truncated file (cv2 would fill
the rest with grey and say nothing). cv2 shrinks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from actors import jpeg
from actors.codecs import unread_jpeg
from actors.conversion import bgr_of_ink, converter
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.jpeg import Decoded
from actors.limits import Limits
from actors.named_state import by_names
from actors.opening import opened
from actors.orientation import SWAPPED, orientation_of, turned
from actors.raw_photos import Embedded, find_embedded
from actors.shrinking import MIN_PIXELS, shrunk_by_strips
from actors.sources import ImageSource, Pixels, check_pixels, encoded_bytes, is_pixels, pil_image, unread_file

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageSource",
    "Limits",
    "Pixels",
    "PreparedImage",
    "check_pixels",
    "encoded_bytes",
    "fit",
    "is_pixels",
    "prepare",
]

#: Suffixes of the files that are taken for photos in a folder.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".heic",
        ".heif",
        ".avif",
        ".dng",
        ".nef",
        ".cr2",
        ".cr3",
        ".arw",
        ".orf",
        ".raf",
        ".rw2",
    ]
)


@by_names
@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A small upright photo, as it travels to the detector.

    Attributes:
        pixels: uint8[h, w, 3], BGR, no padding; fits `shape`.
        width: width of the upright original, in pixels.
        height: height of the upright original, in pixels.
        shape: (height, width) of the tensor that it was prepared for, in pixels.
        prepare_ms: milliseconds that preparing took.
        digest: hash of the pixels (XXH3, 16 bytes in hex); a detector recognises by it a photo that ended
            its process. It is no protection against somebody who makes another photo of the same digest.
        decoded_share: share of the photo's pixels that could be decoded, 0..1; less than 1 if a part of it
            is damaged or missing.
    """

    pixels: Pixels
    width: int
    height: int
    shape: tuple[int, int]
    prepare_ms: float
    digest: str
    decoded_share: float = 1.0

    @property
    def is_intact(self) -> bool:
        """Whether `pixels` still belong to this photo; asked after they were read."""
        return True


def prepare(
    source: ImageSource,
    shapes: Sequence[tuple[int, int]],
    limits: Limits,
    max_enlargement: float,
    clock: Callable[[], float] = time.perf_counter,
) -> PreparedImage:
    """Shrink one photo so that it fits a tensor.

    Args:
        source: an encoded photo (bytes), the path of one, a binary file that holds one, a PIL image, or its
            pixels: uint8[height, width, 3] in BGR order, upright, as `cv2.imread` gives them.
        shapes: tensor sizes (height, width) to choose from.
        limits: larger photos are refused.
        max_enlargement: factor by which a small photo is enlarged at most.
        clock: returns seconds; for `prepare_ms`.

    Raises:
        ImageFault: the photo cannot be used; says why.
    """
    begun = clock()
    source = unread_file(source)
    given = _given_pixels(source, limits)
    if given is not None:
        width, height = given.shape[1::-1]
        shape, small = fit(width, height, shapes, max_enlargement)
        pixels, share = _resized(given, small), 1.0
    else:
        photo = _embedded(encoded_bytes(source, limits))
        with opened(photo.data, limits) as image:
            orientation = photo.orientation or orientation_of(image)
            swapped = orientation in SWAPPED
            width, height = image.size[::-1] if swapped else image.size
            shape, small = fit(width, height, shapes, max_enlargement)
            lying = small[::-1] if swapped else small
            reduced = _reduced(photo.data, image, lying, limits)
            share = reduced.share
            # Turning fewer pixels costs less, and the result is the same but for rounding.
            pixels = turned(_resized(reduced.pixels, lying), orientation)
    digest = xxhash.xxh3_128_hexdigest(pixels.data)
    return PreparedImage(pixels, width, height, shape, (clock() - begun) * 1000, digest, share)


def fit(
    width: int, height: int, shapes: Sequence[tuple[int, int]], max_enlargement: float
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Choose the tensor for a photo, and the photo's size in it.

    Letterbox: s = min(H / height, W / width), at most `max_enlargement`. Of the shapes that allow the largest
        s,
    the one with the least area is chosen: padding costs as much time as pixels.

    Returns:
        The shape (height, width), and the small size (width, height) in pixels, at least 1 each.
    """
    scale, _, shape = max(
        (
            min(tensor_h / height, tensor_w / width, max_enlargement),
            -tensor_h * tensor_w,
            (tensor_h, tensor_w),
        )
        for tensor_h, tensor_w in shapes
    )
    small_w = min(shape[1], max(1, round(width * scale)))
    small_h = min(shape[0], max(1, round(height * scale)))
    return shape, (small_w, small_h)


def _embedded(data: bytes) -> Embedded:
    """The photo in a file: the file itself, but of a raw photo its full-size preview."""
    return find_embedded(data) or Embedded(data, None)


def _given_pixels(source: ImageSource, limits: Limits) -> Pixels | None:
    """The pixels of a source that is no encoded photo; None for one that is."""
    if isinstance(source, np.ndarray):
        return check_pixels(source, limits)
    image = pil_image(source)
    if image is None:
        return None
    limits.check_size(*image.size)
    try:
        return _upright(image, orientation_of(image))
    except ImageFault:
        raise
    except Exception as error:
        # Which errors Pillow raises differs with the format; each of them concerns this image.
        raise ImageFault(Rejection.UNREADABLE, f"The PIL image cannot be decoded: {error}.") from error


def _upright(image: Image, orientation: int) -> Pixels:
    """Decode and turn upright: uint8[h, w, 3] in BGR order; of an animation, only the first frame."""
    image.load()
    return turned(np.ascontiguousarray(converter(image)(image)[:, :, ::-1]), orientation)


def _reduced(data: bytes, image: Image, needed: tuple[int, int], limits: Limits) -> Decoded:
    """Decode at 1/1, 1/2, 1/4 or 1/8 of the size where the format can, never below what the tensor needs.

    Returns:
        The pixels, uint8[h, w, 3] in BGR order, not turned; those of a TIFF or a HEIC are.
    """
    if image.format == "JPEG" and image.mode in ("L", "RGB", "CMYK"):
        if (fault := unread_jpeg(data)) is not None:
            raise fault
        is_ink = image.mode == "CMYK"
        decoded = jpeg.decode_reduced(
            data,
            image.size,
            needed,
            colors="CMYK" if is_ink else "BGR",
            is_progressive="progressive" in image.info,
            search_damaged=limits.search_damaged,
        )
        if decoded is not None:
            return replace(decoded, pixels=bgr_of_ink(decoded.pixels)) if is_ink else decoded
    if image.format == "JPEG":
        # pillow-heif would decode a thumbnail in place of the photo.
        image.draft("RGB", needed)
    image.load()
    to_rgb = converter(image)
    if image.width * image.height < MIN_PIXELS:
        return Decoded(np.ascontiguousarray(to_rgb(image)[:, :, ::-1]))
    return Decoded(np.ascontiguousarray(shrunk_by_strips(image, needed, to_rgb)[:, :, ::-1]))


def _resized(pixels: Pixels, small: tuple[int, int]) -> Pixels:
    import cv2

    if (pixels.shape[1], pixels.shape[0]) == small:
        return np.ascontiguousarray(pixels)
    shrinking = small[0] < pixels.shape[1] or small[1] < pixels.shape[0]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, small, interpolation=method), dtype=np.uint8)
