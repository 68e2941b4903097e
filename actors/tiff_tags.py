"""The tags of a TIFF, read leniently: EXIF blocks and raw photos have this structure too.

Structure: Adobe, TIFF Revision 6.0, section 2; BigTIFF has eight bytes where TIFF has four or two. A value
that is written oddly or lies outside the file is left out; nothing is raised, and nothing is written again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

#: How these files begin. The last four are raw photos of Olympus and Panasonic.
BEGINNINGS: Final = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"IIRO",
    b"IIRS",
    b"MMOR",
    b"IIU\0",
)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MAX_DIRECTORIES = 64
_MAX_TAGS = 1000
_MAX_VALUES = 4096
_SUB_DIRECTORIES = 330


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory of tags: one picture of the file.

    Attributes:
        data: the file.
        order: "<" for little-endian numbers, or ">".
        entries: of each tag its type, how many values it has, and where in the file they are.
        is_sub: whether another directory points to it, and it is not one of the file's pages.
    """

    data: bytes
    order: str
    entries: dict[int, tuple[int, int, int]]
    is_sub: bool = False

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The whole numbers of a tag; of fractions the rounded quotients. Empty if it has none."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        count = min(count, _MAX_VALUES)
        try:
            if kind in (5, 10):
                parts = struct.unpack_from(
                    f"{self.order}{2 * count}{'I' if kind == 5 else 'i'}", self.data, at
                )
                return tuple(round(a / b) for a, b in zip(parts[::2], parts[1::2], strict=True) if b)
            if kind in _INTEGERS:
                return struct.unpack_from(f"{self.order}{count}{_INTEGERS[kind]}", self.data, at)
        except struct.error:
            pass
        return ()

    def number(self, tag: int, default: int = 0) -> int:
        """The first whole number of a tag."""
        return next(iter(self.numbers(tag)), default)

    def text(self, tag: int) -> str:
        """The text of a tag, without what follows a zero; empty if it has none."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        if kind != 2:
            return ""
        return self.data[at : at + min(count, _MAX_VALUES)].partition(b"\0")[0].decode("latin-1").strip()


def directories(data: bytes) -> list[Directory]:
    """All directories of a file in the order of its pages, each followed by those that it points to."""
    if not data.startswith(BEGINNINGS):
        return []
    order, is_big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    if len(data) < 16:
        return []
    first = struct.unpack_from(
        f"{order}Q" if is_big else f"{order}I", data.ljust(16, b"\0"), 8 if is_big else 4
    )
    found: list[Directory] = []
    seen: set[int] = set()

    def read(at: int, is_sub: bool) -> Iterator[int]:
        """Add the directory at an offset; yield the offset of the next page."""
        if at in seen or not 0 < at < len(data) or len(found) >= _MAX_DIRECTORIES:
            return
        seen.add(at)
        directory, following = _directory(data, at, order, is_big, is_sub)
        found.append(directory)
        for each in directory.numbers(_SUB_DIRECTORIES) if not is_sub else ():
            for _ in read(each, True):
                pass
        yield following

    pages = [first[0]]
    while pages:
        pages = list(read(pages[0], False))
    return found


def _directory(data: bytes, at: int, order: str, is_big: bool, is_sub: bool) -> tuple[Directory, int]:
    count_format, entry_format, inline = ("Q", "HHQ", 8) if is_big else ("H", "HHI", 4)
    head, entry = struct.Struct(order + count_format), struct.Struct(order + entry_format)
    entries: dict[int, tuple[int, int, int]] = {}
    following = 0
    try:
        (num_tags,) = head.unpack_from(data, at)
        at += head.size
        for _ in range(min(num_tags, _MAX_TAGS)):
            tag, kind, count = entry.unpack_from(data, at)
            value_at = at + entry.size
            if _SIZES.get(kind, 0) * count > inline:
                (value_at,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, value_at)
            if kind in _SIZES:
                # The first of two tags of the same number counts, as in most readers.
                entries.setdefault(tag, (kind, count, value_at))
            at += entry.size + inline
        (following,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, at)
    except struct.error:
        # The file ends within the directory; what was read of it counts.
        pass
    return Directory(data, order, entries, is_sub), following
