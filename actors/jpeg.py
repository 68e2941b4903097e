"""JPEG by libjpeg-turbo (simplejpeg): the decoder for most photos, and the encoder for what travels.

It says what libjpeg warned of; Pillow and cv2 decode the same pixels in about the same time and drop the
warnings. `tests/benchmarks/decoders.py` compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from actors import jpeg_damage as damage

_Answer = tuple[NDArray[np.uint8] | None, str]

_NO_END = "Premature end of JPEG file"
_END_MARKER = b"\xff\xd9"
#: What libjpeg warns of; everything else that it says is an error, after which there are no pixels at all.
_WARNINGS = ("Corrupt JPEG data", "Premature end of JPEG file", "Inconsistent progression", "Invalid SOS")
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


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded JPEG.

    Attributes:
        pixels: uint8[height, width, 3] in BGR order, or with 4 channels of ink; not turned.
        share: the share of the picture that is there, 0..1; below the first damage it is made up.
    """

    pixels: NDArray[np.uint8]
    share: float = 1.0


def decode_reduced(
    data: bytes,
    size: tuple[int, int],
    needed: tuple[int, int],
    *,
    colors: str = "BGR",
    is_progressive: bool = False,
    search_damaged: bool = False,
) -> Decoded | None:
    """Decode a JPEG of 1, 3 or 4 channels at 1/1, 1/2, 1/4 or 1/8, whichever is the smallest that suffices.

    Args:
        data: the file.
        size: width and height that its header declares, in pixels.
        needed: width and height that the result has at least, where the photo itself has them, in pixels.
        colors: "BGR", or "CMYK" for a photo in ink.
        is_progressive: whether its header says so.
        search_damaged: whether what is left of a damaged picture is wanted too.

    Returns:
        None if the file is of a kind that another decoder must judge.

    Raises:
        DamagedJpeg: libjpeg found damage in the picture's data.
    """
    room = min(size[0] // needed[0], size[1] // needed[1])
    reduction = next((each for each in _REDUCTIONS if each <= room), 1)
    decode = partial(_decoded, least=(-(-size[0] // reduction), -(-size[1] // reduction)), colors=colors)
    pixels, warning = decode(data)
    may_lack_scans = is_progressive or not damage.is_in_one_scan(data)
    if pixels is not None and not may_lack_scans and not damage.may_have_hole(data):
        return Decoded(pixels)
    if pixels is None and damage.is_preview(data):
        raise DamagedJpeg("its header is damaged, and only a preview can be read")
    if pixels is None and not warning.startswith(_WARNINGS) and not damage.is_ordinary(data):
        return None
    try:
        return Decoded(_judged(data, pixels, warning, decode))
    except DamagedJpeg:
        if not search_damaged:
            raise
        share = damage.share_above_damage(data, lambda file: _is_bad(file, colors))
        left, _ = decode(data, strict=False)
        if left is None or not 0.0 < share < 1.0:
            raise
        return Decoded(left, share)


def _judged(
    data: bytes, pixels: NDArray[np.uint8] | None, warning: str, decode: Callable[..., _Answer]
) -> NDArray[np.uint8]:
    """The pixels of a picture that is whole, though its file may be untidy."""
    is_cut_short = warning == _NO_END
    if is_cut_short:
        # Only the end marker is missing, or much more is. With a marker, libjpeg tells which of the two.
        data += _END_MARKER
        pixels, warning = decode(data)
    if pixels is None and not damage.is_damage(warning, data):
        pixels = _tidied(data, decode)
    if pixels is None:
        raise DamagedJpeg(warning, is_cut_short=is_cut_short)
    if missing := damage.is_incomplete(data):
        raise DamagedJpeg(missing, is_cut_short=is_cut_short)
    return pixels


def _tidied(data: bytes, decode: Callable[..., _Answer]) -> NDArray[np.uint8] | None:
    """The pixels of a file after tidying it; None if libjpeg finds damage in every tidy form of it."""
    for tidy in damage.tidied(data):
        pixels, warning = decode(tidy)
        if pixels is not None:
            return pixels
        if damage.is_padding(warning, tidy):
            return decode(damage.without_padding(tidy))[0]
        for completed in damage.with_restart_marker(tidy, warning):
            pixels, _ = decode(completed)
            if pixels is not None:
                return pixels
    return None


def _is_bad(data: bytes, colors: str) -> bool:
    """Whether libjpeg makes up a part of the picture; what is left over behind the last row is no damage."""
    pixels, warning = _decoded(data, least=(1, 1), colors=colors)
    return pixels is None and damage.is_made_up(warning)


def _decoded(data: bytes, *, least: tuple[int, int], colors: str, strict: bool = True) -> _Answer:
    """Return the pixels, or else the first warning or error of libjpeg: it tells of no other."""
    import simplejpeg

    try:
        pixels = simplejpeg.decode_jpeg(data, colors, min_width=least[0], min_height=least[1], strict=strict)
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
