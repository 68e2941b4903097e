"""The memory that decoding takes in a format that has no reduced size: it holds the whole picture at once."""

from __future__ import annotations

from actors.errors import ImageFault
from actors.faces import Rejection

#: Bytes for each pixel that these decoders take, with all their copies; measured with Pillow 13 and
#: pillow-heif 1.8 for 25 megapixels.
_BYTES_PER_PIXEL = {"WEBP": 17, "AVIF": 11, "HEIF": 9}
#: And Pillow's own decoders, which hold one copy of the pixels; pixels of any other kind have four bytes.
_BYTES_PER_PIXEL_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
#: JPEGs are decoded at a reduced size, so their size says little.
_REDUCIBLE = ("JPEG", "MPO")


def needed_bytes(image_format: str, mode: str, num_pixels: int) -> int:
    """Bytes of memory that decoding takes; 0 for a format that can be decoded at a reduced size.

    Args:
        image_format: Pillow's name of it.
        mode: Pillow's name of the kind of pixels.
        num_pixels: width times height.
    """
    if image_format in _REDUCIBLE:
        return 0
    # One byte more for the encoded rows that are being decoded.
    per_pixel = _BYTES_PER_PIXEL.get(image_format) or _BYTES_PER_PIXEL_OF_MODE.get(mode, 4) + 1
    return num_pixels * per_pixel


def check_memory(image_format: str, mode: str, size: tuple[int, int], max_bytes: int) -> None:
    """Refuse a picture before it is decoded, if that would take too much memory.

    Args:
        image_format: Pillow's name of it.
        mode: Pillow's name of the kind of pixels.
        size: width and height in pixels.
        max_bytes: memory that decoding may take.

    Raises:
        ImageFault: it is too costly; says what it would cost.
    """
    num_bytes = needed_bytes(image_format, mode, size[0] * size[1])
    if num_bytes > max_bytes:
        raise ImageFault(
            Rejection.TOO_COSTLY,
            f"Decoding {size[0]:,} x {size[1]:,} pixels of a {image_format} would take some {num_bytes:,} "
            f"bytes of memory; the limit is {max_bytes:,} (detector.max_decode_bytes). "
            "Send a smaller one, or a JPEG, which can be decoded at a reduced size.",
        )
