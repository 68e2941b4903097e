"""Raw photos as cameras write them, without the sensor's values: their tags, their boxes and their JPEGs.

Where the JPEGs are: https://exiftool.org/TagNames/ (EXIF, FujiFilm RAF, Canon CR3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

#: Of a tag its type, as `struct` names it or "s" for text, and its values; a name stands for a blob's place.
Tags = dict[int, tuple[str, Any]]
Size = tuple[int, int]

_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4}
#: A sensor has some pixels more than the photo.
_BORDER = 4
_SMALL: Size = (16, 12)


def tiff(
    pages: list[Tags], subs: list[Tags], blobs: dict[str, bytes], order: str = "<", magic: int = 42
) -> bytes:
    """A TIFF of plain directories; a value that names a blob becomes its place, `#name` its length.

    Args:
        pages: the chain of directories; the first one points to `subs`.
        subs: directories behind tag 330.
        blobs: what lies in the file beside the directories.
        order: of the bytes in numbers.
        magic: 42, or what a raw photo has in its place.
    """
    places: dict[str, int] = {}
    body = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", magic, 0)
    for name, blob in blobs.items():
        places[name], body = len(body), body + blob
    # Each directory is followed by its next one's place, so they are written from the last to the first.
    sub_places = []
    for each in subs:
        body, at = _directory(body, each, places, blobs, order, 0)
        sub_places.append(at)
    following = 0
    for index, each in reversed(list(enumerate(pages))):
        tags = dict(each)
        if index == 0 and sub_places:
            tags[330] = ("I", sub_places)
        body, following = _directory(body, tags, places, blobs, order, following)
    return body[:4] + struct.pack(order + "I", following) + body[8:]


def _directory(
    body: bytes, tags: Tags, places: dict[str, int], blobs: dict[str, bytes], order: str, following: int
) -> tuple[bytes, int]:
    entries = b""
    for tag, (kind, value) in sorted(tags.items()):
        if kind == "s":
            packed, count = value + b"\0", len(value) + 1
        else:
            values = value if isinstance(value, list) else [value]
            numbers = [
                each if isinstance(each, int) else len(blobs[each[1:]]) if each[0] == "#" else places[each]
                for each in values
            ]
            packed, count = struct.pack(f"{order}{len(numbers)}{kind}", *numbers), len(numbers)
        if len(packed) > 4:
            packed, body = struct.pack(order + "I", len(body)), body + packed
        entries += struct.pack(order + "HHI", tag, _TYPES[kind], count) + packed.ljust(4, b"\0")
    at = len(body)
    return body + struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", following), at


def rgb(width: int, height: int, blob: str, **more: Any) -> Tags:
    """A directory whose pixels lie in the file as they are."""
    tags: Tags = {256: ("I", width), 257: ("I", height), 258: ("H", [8, 8, 8]), 259: ("H", 1), 262: ("H", 2)}
    tags |= {273: ("I", blob), 277: ("H", 3), 278: ("I", height), 279: ("I", "#" + blob)}
    return tags | {int(tag[1:]): value for tag, value in more.items()}


def sensor(width: int, height: int, **more: Any) -> Tags:
    """A directory of a sensor's values, which are a blob of any bytes."""
    tags: Tags = {254: ("I", 0), 256: ("I", width), 257: ("I", height), 259: ("H", 1), 262: ("H", 32803)}
    return tags | {273: ("I", "sensor"), 279: ("I", "#sensor")} | {int(k[1:]): v for k, v in more.items()}


def embedded(blob: str) -> Tags:
    """A directory that names a JPEG."""
    return {254: ("I", 1), 259: ("H", 6), 513: ("I", blob), 514: ("I", "#" + blob)}


def lossless(width: int, height: int) -> bytes:
    """The beginning of a lossless JPEG of two components side by side, as Canon writes a sensor's values."""
    frame = struct.pack(">BHHB", 14, height, width // 2, 2) + bytes([1, 17, 0, 2, 17, 0])
    return b"\xff\xd8\xff\xc3" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def raf(jpeg: bytes, size: Size) -> bytes:
    """Fujifilm's file with a JPEG; `size` is the sensor's, in pixels."""
    tags = struct.pack(">IHHHH", 1, 0x100, 4, size[1], size[0])
    head = b"FUJIFILMCCD-RAW 0201FF".ljust(84, b"\0") + struct.pack(
        ">IIII", 100, len(jpeg), 100 + len(jpeg), 12
    )
    return head + jpeg + tags


def box(kind: bytes, *inner: bytes) -> bytes:
    """A box of an ISO container."""
    content = b"".join(inner)
    return struct.pack(">I", 8 + len(content)) + kind + content


def cr3(jpeg: bytes, size: Size, orientation: int) -> bytes:
    """Canon's container with a JPEG; `size` is the sensor's, in pixels."""
    begin = box(b"ftyp", b"crx ", bytes(4), b"crx ")
    exif = tiff([{274: ("H", orientation)}], [], {})
    entry = bytes(24) + struct.pack(">HH", *size) + bytes(50)

    def moov(place: int) -> bytes:
        table = box(b"stsd", bytes(8), box(b"CRAW", entry))
        sizes = box(b"stsz", struct.pack(">III", 0, len(jpeg), 1))
        track = box(b"stbl", table, sizes, box(b"co64", struct.pack(">IIQ", 0, 1, place)))
        about = box(b"uuid", bytes(16), box(b"CMT1", exif))
        return box(b"moov", about, box(b"trak", box(b"mdia", box(b"minf", track))))

    return begin + moov(len(begin + moov(0)) + 8) + box(b"mdat", jpeg)


def _sensor_size(size: Size) -> Size:
    return size[0] + _BORDER, size[1] + _BORDER


def _camera(order: str, magic: int, main: Tags, compression: int = 1) -> Callable[[bytes, Size, int], bytes]:
    """A camera whose files begin with a small picture, and name the sensor's values and the preview apart."""

    def write(jpeg: bytes, size: Size, orientation: int) -> bytes:
        blobs = {"small": bytes(_SMALL[0] * _SMALL[1] * 3), "sensor": bytes(64), "preview": jpeg}
        first = rgb(*_SMALL, "small", t254=("I", 1), t274=("H", orientation)) | main
        values = sensor(*_sensor_size(size), t259=("H", compression))
        return tiff([first], [values, embedded("preview")], blobs, order, magic)

    return write


def _cr2(jpeg: bytes, size: Size, orientation: int) -> bytes:
    blobs = {"CR": b"CR\2\0", "preview": jpeg, "values": lossless(*_sensor_size(size))}
    first: Tags = {256: ("I", size[0]), 257: ("I", size[1]), 259: ("H", 6), 274: ("H", orientation)}
    first |= {273: ("I", "preview"), 279: ("I", "#preview")}
    return tiff([first, {259: ("H", 6), 273: ("I", "values"), 279: ("I", "#values")}], [], blobs)


def _rw2(jpeg: bytes, size: Size, orientation: int) -> bytes:
    width, height = _sensor_size(size)
    main: Tags = {46: ("B", list(jpeg)), 256: ("I", width), 257: ("I", height), 274: ("H", orientation)}
    return tiff([main], [], {}, magic=0x55)


def _raf(jpeg: bytes, size: Size, orientation: int) -> bytes:
    """Its preview says its orientation itself."""
    exif = b"Exif\0\0" + tiff([{274: ("H", orientation)}], [], {})
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return raf(jpeg[:2] + segment + jpeg[2:], _sensor_size(size))


def _cr3(jpeg: bytes, size: Size, orientation: int) -> bytes:
    return cr3(jpeg, _sensor_size(size), orientation)


#: Of each kind what makes a file: the preview, the size of the photo as it is stored, and its orientation.
CAMERAS: dict[str, Callable[[bytes, Size, int], bytes]] = {
    "DNG": _camera("<", 42, {50706: ("B", [1, 4, 0, 0])}),
    "NEF": _camera(">", 42, {271: ("s", b"NIKON CORPORATION")}, compression=34713),
    "ARW": _camera("<", 42, {271: ("s", b"SONY")}, compression=32767),
    "ORF": _camera("<", 0x4F52, {271: ("s", b"OLYMPUS")}),
    "RW2": _rw2,
    "CR2": _cr2,
    "CR3": _cr3,
    "RAF": _raf,
}
