"""What decoding a photo will cost, told from its first bytes and its markers, before anything is decoded.

Nothing here decodes, and no library reads the file: a JPEG's markers are walked, and of other formats the
declared size is read. So the answer itself costs a millisecond, whatever the file holds.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

from actors.decode_memory import needed_bytes
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import Limits
from actors.raw_photos import find_embedded
from actors.tiff_tags import Directory, directories

#: A JPEG of one scan up to this size is decoded in a thread. At 1/8 of its size that takes half a second.
_MAX_CHEAP_PIXELS = 50_000_000
#: libjpeg holds all coefficients of a JPEG of several scans, so 25 megapixels take some 75 MB.
_MAX_CHEAP_PIXELS_OF_SCANS = 25_000_000
#: Scans times pixels; a 24-megapixel photo as programs save it has ten scans.
_MAX_CHEAP_SCANNED = 250_000_000
#: Where a damaged one is searched too, it is decoded once for each scan.
_MAX_CHEAP_SCANS = 100
#: Pillow reads segments in Python, one after another; photos have a few dozen.
_MAX_CHEAP_SEGMENTS = 1000
#: Seconds of processor time that libjpeg spends on an empty scan, for each pixel of the photo; measured.
_SCAN_S_PER_PIXEL = 0.5e-9
#: Seconds for each pixel of a BMP in run-length code, which Pillow decodes in Python; measured.
_BMP_RUN_S_PER_PIXEL = 0.25e-6

#: TIFF, and the raw photos that resemble it, begin with the order of their bytes; a DIB begins with a number.
_BEGINNINGS = (b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II", b"MM", b"FUJI")
_SOS, _EOI = 0xDA, 0xD9
_PROGRESSIVE = 0xC2
#: Baseline, extended and progressive, all of them in Huffman code.
_ORDINARY_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
_FRAMES = (*_ORDINARY_FRAMES, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
#: A marker in a scan's data: no stuffed zero, no restart marker and no fill byte.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
#: Tags of a TIFF, and its two compressions in JPEG.
_COMPRESSION, _STRIP_OFFSETS, _TILE_OFFSETS = 259, 273, 324
_JPEG_COMPRESSIONS = (6, 7)
#: Markers of a JPEG, and boxes of a HEIF file, that are looked at; there are some dozens, and a handful.
_MAX_MARKERS = 10_000
_MAX_BOXES = 1000


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """What decoding a photo will cost.

    Attributes:
        is_cheap: decoding takes a bounded and ordinary time and memory, so that a thread may do it.
        num_pixels: width times height as declared; None if only a decoder can tell.
        num_bytes: bytes of memory that decoding takes at least; 0 where that is not known.
        cpu_s: seconds of processor time that decoding takes at least; 0 where that is not known.
        what: names the photo, for people; empty where nothing is known of its cost.
    """

    is_cheap: bool
    num_pixels: int | None
    num_bytes: int = 0
    cpu_s: float = 0.0
    what: str = ""


def decode_cost(data: bytes) -> DecodeCost:
    """Tell what decoding an encoded photo will cost."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_cost(data)
    if not _may_be_an_image(data):
        # It is refused by its first bytes, so that costs nothing.
        return DecodeCost(True, None)
    try:
        embedded = find_embedded(data)
    except ImageFault:
        # It is refused by its tags.
        return DecodeCost(False, 0)
    if embedded is not None:
        # What a raw photo says of itself concerns its small first picture, or its sensor's values.
        return replace(_jpeg_cost(embedded.data), is_cheap=False)
    num_pixels = declared_pixels(data)
    if num_pixels is None:
        return DecodeCost(False, None)
    if data.startswith(b"BM") and data[30:34] in (b"\x01\0\0\0", b"\x02\0\0\0"):
        what = f"a BMP of {num_pixels:,} pixels in run-length code"
        # A run takes two bytes, and may stand for no pixel at all.
        cpu_s = max(num_pixels, len(data) // 2) * _BMP_RUN_S_PER_PIXEL
        return DecodeCost(False, num_pixels, cpu_s=cpu_s, what=what)
    if pages := directories(data):
        num_scans = _scans_of_a_pixel(data, pages[0])
        cpu_s = num_scans * num_pixels * _SCAN_S_PER_PIXEL
        what = f"a TIFF of {num_pixels:,} pixels in {num_scans:,} scans"
        return DecodeCost(False, num_pixels, cpu_s=cpu_s, what=what)
    # These are reckoned before a library opens the file: opening takes the memory already.
    kind = "WEBP" if data[8:12] == b"WEBP" else ("HEIF" if data[4:8] == b"ftyp" else "")
    num_bytes = needed_bytes(kind, "RGB", num_pixels) if kind else 0
    return DecodeCost(False, num_pixels, num_bytes, what=f"a {kind} of {num_pixels:,} pixels")


def check_cost(cost: DecodeCost, limits: Limits) -> None:
    """Refuse a photo that cannot be decoded within the limits.

    Raises:
        ImageFault: it is too costly; says what it would cost.
    """
    if cost.cpu_s > limits.max_decode_s:
        raise ImageFault(
            Rejection.TOO_COSTLY,
            f"Decoding would take {cost.cpu_s:,.0f} s of processor time or more, because it is {cost.what}; "
            f"the limit is {limits.max_decode_s:g} s (detector.max_decode_s). "
            "Save it again in an ordinary format.",
        )
    if cost.num_bytes > limits.max_decode_bytes:
        raise ImageFault(
            Rejection.TOO_COSTLY,
            f"Decoding would take {cost.num_bytes:,} bytes of memory or more, because it is {cost.what}; "
            f"the limit is {limits.max_decode_bytes:,} (detector.max_decode_bytes). Send a smaller one.",
        )


def declared_pixels(data: bytes) -> int | None:
    """Width times height as a PNG, BMP, GIF, WebP, AVIF, HEIC or TIFF declares them; None if not found."""
    try:
        if data.startswith(b"\x89PNG"):
            return _area(*struct.unpack_from(">II", data, 16))
        if data.startswith(b"GIF8"):
            return _area(*struct.unpack_from("<HH", data, 6))
        if data.startswith(b"BM"):
            is_old = struct.unpack_from("<I", data, 14)[0] == 12
            return _area(*struct.unpack_from("<HH" if is_old else "<ii", data, 18))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_pixels(data)
        if data[4:8] == b"ftyp":
            return _heif_pixels(data)
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff_pixels(data)
    except struct.error:
        # The file ends within its header. A decoder says so.
        return None
    return None


def _may_be_an_image(data: bytes) -> bool:
    """Whether any decoder may look further than at the first bytes."""
    return data[4:8] == b"ftyp" or data[1:4] == b"\0\0\0" or data.startswith(_BEGINNINGS)


def _jpeg_cost(data: bytes) -> DecodeCost:
    frame = _frame(data)
    if frame is None:
        return DecodeCost(False, None)
    num_pixels = frame.width * frame.height
    num_scans = 1
    if not frame.is_whole_in_one_scan:
        # This counts too many: a second picture in the file, and bytes of a table that look like a marker.
        num_scans += data.count(b"\xff\xda", frame.scan_at)
    if num_scans > 1 and not _is_cheap(num_pixels, num_scans):
        num_scans = 1 + _num_further_scans(data, frame.scan_at)
    return DecodeCost(
        is_cheap=frame.is_ordinary and _is_cheap(num_pixels, num_scans),
        num_pixels=num_pixels,
        # Two bytes for each coefficient, which libjpeg holds only where it needs all scans for a pixel.
        num_bytes=0 if frame.is_whole_in_one_scan else round(2 * frame.num_samples),
        cpu_s=num_scans * num_pixels * _SCAN_S_PER_PIXEL,
        what=f"a JPEG of {num_pixels:,} pixels in {num_scans:,} scans",
    )


def _is_cheap(num_pixels: int, num_scans: int) -> bool:
    if num_scans == 1:
        return 0 < num_pixels <= _MAX_CHEAP_PIXELS
    if num_scans > _MAX_CHEAP_SCANS:
        return False
    return 0 < num_pixels <= _MAX_CHEAP_PIXELS_OF_SCANS and num_scans * num_pixels <= _MAX_CHEAP_SCANNED


@dataclass(frozen=True, slots=True)
class _Frame:
    """A JPEG's frame header, and where its first scan begins.

    Attributes:
        num_samples: of all channels, as they are stored.
        is_ordinary: 8 bits in Huffman code, and one frame.
        is_whole_in_one_scan: the first scan has all of every channel. libjpeg refuses a further one.
        scan_at: where the header of the first scan ends.
    """

    width: int
    height: int
    num_samples: float
    is_ordinary: bool
    is_whole_in_one_scan: bool
    scan_at: int


def _frame(data: bytes) -> _Frame | None:
    """Walk the segments up to the first scan; None if they are not in order."""
    at, num_frames, frame_marker, body_of_frame = 2, 0, 0, b""
    for _ in range(_MAX_CHEAP_SEGMENTS):
        if data[at : at + 2] == b"\xff\xff":
            # Pillow reads fill bytes one after another too, so each counts as much as a segment.
            at += 1
            continue
        if len(data) < at + 4 or data[at] != 0xFF:
            return None
        marker, num_bytes = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + num_bytes]
        at += 2 + num_bytes
        if marker == _SOS:
            is_ordinary = num_frames == 1 and frame_marker in _ORDINARY_FRAMES
            has_all = frame_marker != _PROGRESSIVE and body_of_frame[5:6] == body[:1]
            return _frame_of(body_of_frame, is_ordinary, has_all, at)
        if marker in _FRAMES:
            num_frames, frame_marker, body_of_frame = num_frames + 1, marker, body
    return None


def _frame_of(body: bytes, is_ordinary: bool, has_all: bool, scan_at: int) -> _Frame | None:
    """Read a frame header (ITU-T T.81, B.2.2); None if it is cut short."""
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        return None
    depth, height, width, num_channels = struct.unpack_from(">BHHB", body)
    factors = [(body[at] >> 4) * (body[at] & 15) for at in range(7, 6 + 3 * num_channels, 3)]
    # The channel with the most samples has one for each pixel.
    num_samples = width * height * sum(factors) / max(1, *factors, 1)
    return _Frame(width, height, num_samples, is_ordinary and depth == 8, has_all, scan_at)


def _num_further_scans(data: bytes, at: int) -> int:
    """Walk the markers behind the first scan's header up to the end of the photo, and count the scans."""
    num_scans = 0
    for _ in range(_MAX_MARKERS):
        if (found := _MARKER.search(data, at)) is None or found[1][0] == _EOI:
            return num_scans
        num_scans += found[1][0] == _SOS
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    # No photo has so many markers, so it does not matter that this may count too many.
    return num_scans + data.count(b"\xff\xda", at)


def _webp_pixels(data: bytes) -> int | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return _area(width, height)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return _area((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return _area(width & 0x3FFF, height & 0x3FFF)
    return None


def _heif_pixels(data: bytes) -> int | None:
    """The largest `ispe` box (ISO/IEC 23008-12, 6.5.3): the whole picture's, not one of a tile.

    Only the `meta` box is searched, because compressed data may hold the same four letters by chance.
    """
    begin, kind = 0, b""
    for _ in range(_MAX_BOXES):
        num_bytes, kind = struct.unpack_from(">I4s", data, begin)
        if kind == b"meta" or num_bytes < 8:
            break
        begin += num_bytes
    end = begin + num_bytes if kind == b"meta" else 0
    most, at = 0, begin
    for _ in range(_MAX_BOXES):
        if (at := data.find(b"ispe", at, end)) < 0:
            return most or None
        most, at = max(most, _area(*struct.unpack_from(">II", data, at + 8))), at + 16
    return None


def _tiff_pixels(data: bytes) -> int | None:
    """Width and height in the first directory (TIFF 6.0, section 2)."""
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(f"{order}I", data, 4)[0]
    found = {}
    for entry in range(struct.unpack_from(f"{order}H", data, at)[0]):
        tag, kind = struct.unpack_from(f"{order}HH", data, at + 2 + entry * 12)
        if tag in (256, 257):
            size = "H" if kind == 3 else "I"
            found[tag] = struct.unpack_from(f"{order}{size}", data, at + 10 + entry * 12)[0]
    return _area(found[256], found[257]) if len(found) == 2 else None


def _scans_of_a_pixel(data: bytes, page: Directory) -> int:
    """How many scans each piece of a TIFF in JPEG has, on average; 0 for any other TIFF.

    This counts too many: the scans of all pages.
    """
    if page.number(_COMPRESSION) not in _JPEG_COMPRESSIONS:
        return 0
    _, num_pieces, _ = page.entries.get(_TILE_OFFSETS) or page.entries.get(_STRIP_OFFSETS) or (0, 1, 0)
    return data.count(b"\xff\xda") // max(1, num_pieces)


def _area(width: int, height: int) -> int:
    return abs(width) * abs(height)
