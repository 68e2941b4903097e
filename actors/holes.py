"""Damage in PNG, WebP, AVIF and HEIC that their decoders say nothing of.

PNG has checksums. WebP ends where its picture ends, so a picture that does not need its last bytes came out
of step before. AVIF and HEIC have neither: only a run of equal bytes that no encoder writes tells of a hole.
The longest run in 57 pictures, flat and synthetic ones among them, was 8 bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

from actors.errors import ImageFault
from actors.faces import Rejection

#: Equal bytes in a row that arithmetic coding does not write.
_RUN = re.compile(rb"(.)\1{31}", re.DOTALL)
#: A WebP that is shorter by so many bytes cannot be decoded.
_CUT_BYTES = 32
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def check_holes(name: str, data: bytes) -> None:
    """Refuse an AVIF or HEIC with a hole in the data of its pictures.

    Raises:
        ImageFault: it is damaged.
    """
    if name in ("AVIF", "HEIF"):
        for media in _media(data):
            if (hole := _RUN.search(media)) is not None:
                raise ImageFault(
                    Rejection.DAMAGED,
                    f"A part of the image is damaged: its data has a hole, from byte {hole.start():,} on.",
                )


def check_webp(data: bytes, decodes: Callable[[bytes], bool]) -> None:
    """Refuse a WebP whose picture does not need its last bytes.

    Args:
        data: the file, which decodes.
        decodes: whether a file decodes.

    Raises:
        ImageFault: it is damaged.
    """
    shorter = _shorter_webp(data)
    if shorter is not None and decodes(shorter):
        raise ImageFault(
            Rejection.DAMAGED,
            "A part of the image is damaged: the picture ends before its data does.",
        )


def tidy_png(data: bytes) -> bytes:
    """A PNG without the chunks that no pixel needs and whose checksums are wrong.

    Raises:
        ImageFault: a chunk of the picture has a wrong checksum.
    """
    parts, at, is_tidy = [data[:8]], 8, True
    while data.startswith(_PNG_HEAD) and at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        chunk = data[at:end]
        if zlib.crc32(memoryview(chunk)[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            parts.append(chunk)
        elif kind[:1].islower() and kind != b"tRNS":
            is_tidy = False
        else:
            raise ImageFault(
                Rejection.DAMAGED,
                f"A part of the image is damaged: the checksum of {kind.decode('latin-1')!r} is wrong.",
            )
        at = end
        if kind == b"IEND":
            break
    return data if is_tidy else b"".join([*parts, data[at:]])


def _media(data: bytes) -> Iterator[bytes]:
    """The contents of the boxes `mdat` of an ISO container."""
    at = 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or len(data) - at
        if size < head:
            return
        if data[at + 4 : at + 8] == b"mdat":
            yield data[at + head : at + size]
        at += size


def _shorter_webp(data: bytes) -> bytes | None:
    """A WebP whose picture lacks its last bytes; None if it is too small, or has several pictures."""
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        after = at + 8 + size + (size & 1)
        if kind in (b"VP8 ", b"VP8L"):
            if size < 4 * _CUT_BYTES or after > len(data):
                return None
            less = (size - _CUT_BYTES) & ~1
            whole = data[: at + 4] + less.to_bytes(4, "little") + data[at + 8 : at + 8 + less] + data[after:]
            return whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:]
        if kind == b"ANMF":
            return None
        at = after
    return None
