"""Where the coded pictures lie in a HEIC or AVIF file.

Such a file also holds EXIF and XMP blocks, which may have long runs of equal bytes, in the same box as its
pictures. Structure: ISO/IEC 14496-12, section 8.11 (`iinf` and `iloc`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

#: Types of items that are pictures, or tiles of them.
_PICTURES = (b"hvc1", b"hev1", b"av01")
_MAX_ITEMS = 10_000


def is_cut_short(data: bytes) -> bool:
    """Whether a part of a picture lies behind the end of the file."""
    try:
        return any(begin + size > len(data) for begin, size in _extents(data))
    except (struct.error, IndexError):
        return False


def without_exif(data: bytes) -> bytes:
    """The same file, whose EXIF block has become an item of an unknown type, which decoders pass over."""
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            for name, at, stop in _boxes(data, begin + 4, end):
                if name == b"iinf":
                    return data[:at] + data[at:stop].replace(b"Exif", b"free") + data[stop:]
    return data


def coded_pictures(data: bytes) -> Iterator[bytes]:
    """The coded bytes of each picture; of a file that is built oddly, those that are found.

    Args:
        data: the file.
    """
    try:
        found = list(_extents(data))
    except (struct.error, IndexError):
        return
    for begin, size in found:
        yield data[begin : begin + size] if size else data[begin:]


def _extents(data: bytes) -> Iterator[tuple[int, int]]:
    """Begin and size of each part of each picture; a size of 0 reaches to the end of the file."""
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            # Four bytes of version and flags go before its boxes.
            inner = {name: (start, stop) for name, start, stop in _boxes(data, begin + 4, end)}
            if b"iinf" in inner and b"iloc" in inner:
                pictures = set(_pictures(data, *inner[b"iinf"]))
                for item, start, size in _locations(data, inner[b"iloc"][0]):
                    if item in pictures:
                        yield start, size


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each box, and where its contents begin and end."""
    while at + 8 <= end:
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or end - at
        if size < head:
            return
        yield data[at + 4 : at + 8], at + head, min(at + size, end)
        at += size


def _pictures(data: bytes, begin: int, end: int) -> Iterator[int]:
    """The numbers of the items that are pictures, from `iinf`."""
    head = 6 if data[begin] == 0 else 8
    for kind, at, _ in _boxes(data, begin + head, end):
        version = data[at]
        if kind == b"infe" and version in (2, 3):
            item, _, name = struct.unpack_from(">HH4s" if version == 2 else ">IH4s", data, at + 4)
            if name in _PICTURES:
                yield item


def _locations(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """The number, begin and size of each part of each item that lies in the file itself, from `iloc`."""
    version, sizes, more_sizes = data[at], data[at + 4], data[at + 5]
    offset_bytes, length_bytes, base_bytes = sizes >> 4, sizes & 15, more_sizes >> 4
    index_bytes = more_sizes & 15 if version else 0
    at += 6

    def number(num_bytes: int) -> int:
        nonlocal at
        at += num_bytes
        if at > len(data):
            raise IndexError
        return int.from_bytes(data[at - num_bytes : at], "big")

    id_bytes = 4 if version == 2 else 2
    for _ in range(min(number(id_bytes), _MAX_ITEMS)):
        item = number(id_bytes)
        # 0 is the file itself; the others are other boxes.
        method = number(2) & 15 if version else 0
        # The data's place: 0 is this file.
        source = number(2)
        base = number(base_bytes)
        for _ in range(number(2)):
            number(index_bytes)
            offset, size = number(offset_bytes), number(length_bytes)
            if method == 0 and source == 0:
                yield item, base + offset, size
