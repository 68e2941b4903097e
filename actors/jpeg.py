"""JPEG by libjpeg-turbo (simplejpeg): the decoder for most photos, and the encoder for what travels.

It says what libjpeg warned of; Pillow and cv2 decode the same pixels in about the same time and drop the
warnings. `tests/benchmarks/decoders.py` compares them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: libjpeg's warnings after which a part of the picture is made up: nobody may take it for "no faces".
_DAMAGE = ("premature end of data segment", "bad Huffman code")
_NO_END = "Premature end of JPEG file"
_END_MARKER = b"\xff\xd9"
#: Begins a scan; within a scan's data, libjpeg writes no 0xFF before another byte than 0.
_SCAN = b"\xff\xda"
#: Divisors at which libjpeg decodes to fewer pixels and has fast code for it.
_REDUCTIONS = (8, 4, 2)


class DamagedJpeg(ValueError):
    """A part of the picture's data is damaged or missing; libjpeg made up the pixels.

    Attributes:
        is_cut_short: whether the file ends before the picture does.
    """

    def __init__(self, detail: str, *, is_cut_short: bool = False) -> None:
        super().__init__(detail)
        self.is_cut_short = is_cut_short


def decode_reduced(data: bytes, size: tuple[int, int], needed: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decode a JPEG of 1 or 3 channels at 1/1, 1/2, 1/4 or 1/8, whichever is the smallest that suffices.

    Args:
        data: the file.
        size: width and height that its header declares, in pixels.
        needed: width and height that the result has at least, where the photo itself has them, in pixels.

    Returns:
        uint8[height, width, 3] in BGR order, not turned; None if the file is unusual in any way, so that
        another decoder must judge it.

    Raises:
        DamagedJpeg: libjpeg found damage in the picture's data.
    """
    room = min(size[0] // needed[0], size[1] // needed[1])
    reduction = next((each for each in _REDUCTIONS if each <= room), 1)
    least_w, least_h = (-(-side // reduction) for side in size)
    pixels, warning = _decoded(data, least_w, least_h)
    if has_no_end := warning == _NO_END:
        # Only the end marker is missing, or much more is. With a marker, libjpeg tells which of the two.
        pixels, warning = _decoded(data + _END_MARKER, least_w, least_h)
    if any(words in warning for words in _DAMAGE):
        raise DamagedJpeg(warning, is_cut_short=has_no_end)
    return pixels


def _decoded(data: bytes, least_w: int, least_h: int) -> tuple[NDArray[np.uint8] | None, str]:
    """Return the pixels, or else the first warning or error of libjpeg: it tells of no other."""
    import simplejpeg

    try:
        pixels = simplejpeg.decode_jpeg(data, "BGR", min_width=least_w, min_height=least_h, strict=True)
    except ValueError as error:
        return None, str(error)
    return np.asarray(pixels, dtype=np.uint8), ""


def encode(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode uint8[height, width, 3] in BGR order, without thinning out the colours (4:4:4).

    Args:
        pixels: contiguous.
        quality: libjpeg's, 1..100.
    """
    import simplejpeg

    made = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="BGR", colorsubsampling="444")
    return bytes(made)


def decode_ours(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decode a JPEG that `encode` made.

    It takes no more memory and time than its stated size needs. So a file that declares another size is
    refused, and one of several scans too: each scan would cost a pass over the whole picture.

    Returns:
        uint8[height, width, 3] in BGR order.

    Raises:
        DamagedJpeg: these bytes are not what `encode` made, or only a part of it.
    """
    import simplejpeg

    try:
        declared = simplejpeg.decode_jpeg_header(data, strict=True)[:2]
        if declared != (height, width):
            raise DamagedJpeg(f"it declares {declared[0]} x {declared[1]} pixels and not {height} x {width}")
        if data.count(_SCAN) != 1:
            raise DamagedJpeg(f"it has {data.count(_SCAN)} scans and not one")
        return np.asarray(simplejpeg.decode_jpeg(data, "BGR", strict=True), dtype=np.uint8)
    except DamagedJpeg:
        raise
    except ValueError as error:
        raise DamagedJpeg(str(error)) from error
