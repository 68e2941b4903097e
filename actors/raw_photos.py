"""Raw photos, and TIFFs whose first picture is not the photo: a small preview must never be taken for it.

A raw photo is not developed here. Cameras put JPEGs into it, and one of them may be as large as the photo:
that one is searched. Where they are: https://exiftool.org/TagNames/ (EXIF: JpgFromRaw, PreviewImage;
FujiFilm RAF; Canon CR3), and Adobe, Digital Negative Specification 1.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from actors.errors import ImageFault
from actors.faces import Rejection
from actors.orientation import ORIENTATION_TAG
from actors.tiff_tags import BEGINNINGS, Directory, directories

Size = tuple[int, int]

_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC = 256, 257, 259, 262
_STRIP_OFFSETS, _STRIP_BYTES, _JPEG_OFFSET, _JPEG_BYTES = 273, 279, 513, 514
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _MAKE = 254, 255, 271
_DNG_VERSION, _DEFAULT_CROP, _PANASONIC_JPEG = 50706, 50720, 46
#: Photometric interpretations of a sensor's values: color filter array, and linear raw.
_SENSOR = (32803, 34892)
#: Compressions of raw photos only: of Sony, Samsung, Nikon, Kodak and Pentax.
_RAW_COMPRESSIONS = (32767, 32769, 32770, 34713, 65000, 65535)
_JPEG_COMPRESSIONS = (6, 7)
_RAW_BEGINNINGS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
_FULL_SIZE = 0.92
#: Boxes of a container, its nested ones included, and segments of a JPEG that are looked at.
_MAX_BOXES = 10_000
_MAX_SEGMENTS = 10_000
_MAX_EXIF_BYTES = 100_000


class Embedded(NamedTuple):
    """The photo inside a file.

    Attributes:
        data: an encoded photo.
        orientation: EXIF's; None if `data` says it itself.
    """

    data: bytes
    orientation: int | None


def find_embedded(data: bytes) -> Embedded | None:
    """The full-size preview of a raw photo; None for a file whose first picture is the photo.

    Raises:
        ImageFault: it is a raw photo without a preview of full size, or a TIFF whose first picture is a
            reduced one.
    """
    if data.startswith(BEGINNINGS):
        return _in_tiff(data)
    if data.startswith(b"FUJIFILMCCD-RAW"):
        return _in_raf(data)
    if data[4:12] == b"ftypcrx ":
        return _in_cr3(data)
    return None


def jpeg_size(data: bytes | memoryview, *, lossless: bool = False) -> Size | None:
    """Width and height that a JPEG declares; None if the bytes are no JPEG. ITU-T T.81, B.2.2.

    Args:
        data: the file.
        lossless: whether it has to be a lossless one, as sensors' values are written: its components stand
            side by side.
    """
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[:2] != b"\xff\xd8" or at + 10 > len(data) or data[at] != 0xFF:
            return None
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[at + 5 + i : at + 7 + i], "big") for i in (0, 2))
            if (kind == 0xC3) is not lossless:
                return None
            return (width * data[at + 9] if lossless else width), height
        # A filling byte has no length.
        at += 1 if kind == 0xFF else 2 + length
    return None


def _in_tiff(data: bytes) -> Embedded | None:
    found = directories(data)
    if not found:
        return None
    main = found[0]
    is_raw = (
        data.startswith(_RAW_BEGINNINGS)
        or data[8:10] == b"CR"
        or _DNG_VERSION in main.entries
        or any(_is_sensors(each) for each in found)
    )
    is_reduced = bool(main.number(_NEW_SUBFILE_TYPE) & 1) or main.number(_SUBFILE_TYPE) == 2
    least = 2 * _num_pixels(_size(main))
    hidden = any(each.is_sub and _num_pixels(_size(each)) > least for each in found)
    if not is_raw:
        if is_reduced or hidden:
            raise ImageFault(
                Rejection.UNSUPPORTED,
                "It is a TIFF whose first picture is a reduced one, and not the photo; send the photo as a "
                "TIFF of one picture, or as a JPEG.",
            )
        return None
    sensor = [_raw_size(each) for each in found if _is_sensors(each) or _size(each) == (0, 0)]
    largest = max([*sensor, *(_size(each) for each in found)], key=_num_pixels)
    is_developed = main.number(_PHOTOMETRIC, -1) in (1, 2, 6) and not _is_sensors(main)
    is_first = _size(main) == largest and not is_reduced
    if _DNG_VERSION in main.entries and is_developed and is_first and not any(map(any, sensor)):
        # A DNG of which the first picture is the developed photo.
        return None
    name = main.text(_MAKE) or ("DNG" if _DNG_VERSION in main.entries else "TIFF")
    orientation = main.number(ORIENTATION_TAG, 1)
    return Embedded(_full_size(_jpegs_in(found), largest, name), orientation if 1 <= orientation <= 8 else 1)


def _jpegs_in(found: Sequence[Directory]) -> Iterator[memoryview]:
    """The JPEGs that directories name: by tags of their own, or as a picture in one strip.

    They are no copies, because many directories may name one large place.
    """
    for each in found:
        offsets, lengths = each.numbers(_STRIP_OFFSETS), each.numbers(_STRIP_BYTES)
        places = [(each.number(_JPEG_OFFSET), each.number(_JPEG_BYTES))]
        if each.number(_COMPRESSION) in _JPEG_COMPRESSIONS and len(offsets) == len(lengths) == 1:
            places.append((offsets[0], lengths[0]))
        if _PANASONIC_JPEG in each.entries:
            _, length, at = each.entries[_PANASONIC_JPEG]
            places.append((at, length))
        for at, length in places:
            if at > 0 and length > 0:
                yield memoryview(each.data)[at : at + length]


def _is_sensors(directory: Directory) -> bool:
    return directory.number(_PHOTOMETRIC) in _SENSOR or directory.number(_COMPRESSION) in _RAW_COMPRESSIONS


def _size(directory: Directory) -> Size:
    return directory.number(_WIDTH), directory.number(_HEIGHT)


def _raw_size(directory: Directory) -> Size:
    """The size of a sensor's picture, without its borders where the file says so."""
    crop = directory.numbers(_DEFAULT_CROP)
    if len(crop) == 2:
        return crop[0], crop[1]
    at = directory.number(_STRIP_OFFSETS)
    # Canon says the size in the picture only, a lossless JPEG.
    return (
        _size(directory) if any(_size(directory)) else jpeg_size(directory.data[at:], lossless=True) or (0, 0)
    )


def _in_raf(data: bytes) -> Embedded:
    """Of Fujifilm: the place of a JPEG stands at byte 84, and that of the sensor's tags at byte 92."""
    jpeg_at, jpeg_bytes, tags_at = (int.from_bytes(data[at : at + 4], "big") for at in (84, 88, 92))
    full: Size = (0, 0)
    at = tags_at + 4
    for _ in range(min(256, int.from_bytes(data[tags_at : tags_at + 4], "big"))):
        tag, length = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (0, 2))
        if tag == 0x100:
            full = (
                int.from_bytes(data[at + 6 : at + 8], "big"),
                int.from_bytes(data[at + 4 : at + 6], "big"),
            )
        at += 4 + length
    return Embedded(_full_size([memoryview(data)[jpeg_at : jpeg_at + jpeg_bytes]], full, "Fujifilm"), None)


def _in_cr3(data: bytes) -> Embedded:
    """Of Canon: an ISO container; one of its tracks holds the JPEG, and others the sensor's values."""
    full: Size = (0, 0)
    jpegs: list[memoryview] = []
    orientation = 1
    lengths: tuple[int, ...] = ()
    for kind, at, end in islice(_boxes(data, 0, len(data), 0), _MAX_BOXES):
        if kind == b"CRAW":
            size = tuple(int.from_bytes(data[at + i : at + i + 2], "big") for i in (24, 26))
            full = max(full, (size[0], size[1]), key=_num_pixels)
        elif kind == b"CMT1":
            stated = next(
                (
                    each.number(ORIENTATION_TAG, 1)
                    for each in directories(data[at : min(end, at + _MAX_EXIF_BYTES)])
                ),
                1,
            )
            orientation = stated if 1 <= stated <= 8 else 1
        elif kind == b"stsz":
            same = int.from_bytes(data[at + 4 : at + 8], "big")
            lengths = (same or int.from_bytes(data[at + 12 : at + 16], "big"),)
        elif kind in (b"co64", b"stco") and lengths:
            wide = 8 if kind == b"co64" else 4
            place = int.from_bytes(data[at + 8 : at + 8 + wide], "big")
            jpegs.append(memoryview(data)[place : place + lengths[0]])
    return Embedded(_full_size(jpegs, full, "Canon"), orientation)


def _boxes(data: bytes, at: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an ISO container, with where each one's content begins and ends. ISO/IEC 14496-12, 4.2."""
    while at + 8 <= end:
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or end - at
        if size < head:
            return
        inner, after = at + head, min(at + size, end)
        yield kind, inner, after
        # A box "uuid" begins with 16 bytes of name, "stsd" with 8 bytes of its own.
        skipped = {b"uuid": 16, b"stsd": 8}.get(kind, 0)
        if depth < 6 and (kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl") or skipped):
            yield from _boxes(data, inner + skipped, after, depth + 1)
        at += size


def _full_size(jpegs: Iterable[memoryview], full: Size, name: str) -> bytes:
    """The largest of the JPEGs, if it is as large as the photo; a sensor has borders of some pixels."""
    sizes = [(size, each) for each in jpegs if (size := jpeg_size(each)) is not None]
    size, jpeg = max(sizes, key=lambda each: _num_pixels(each[0]), default=((0, 0), memoryview(b"")))
    pairs = list(zip(sorted(size), sorted(full), strict=True))
    if jpeg and _num_pixels(full) and all(have >= _FULL_SIZE * want for have, want in pairs):
        return bytes(jpeg)
    has = f"its largest preview has {size[0]} x {size[1]} pixels" if jpeg else "it has no preview as JPEG"
    raise ImageFault(
        Rejection.UNSUPPORTED,
        f"It is a raw photo ({name}, {full[0]} x {full[1]} pixels), and {has}; send a JPEG of the photo.",
    )


def _num_pixels(size: Size) -> int:
    return size[0] * size[1]
