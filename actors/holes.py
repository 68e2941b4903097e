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
from actors.iso_items import coded_pictures

#: Equal bytes in a row that arithmetic coding does not write.
_RUN = re.compile(rb"(.)\1{31}", re.DOTALL)
#: A WebP that is shorter by so many bytes cannot be decoded.
_CUT_BYTES = 32
_WEBP_PICTURES = (b"VP8 ", b"VP8L")
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def check_holes(name: str, data: bytes) -> None:
    """Refuse an AVIF or HEIC with a hole in the data of its pictures.

    Raises:
        ImageFault: it is damaged.
    """
    if name in ("AVIF", "HEIF"):
        for picture in coded_pictures(data):
            if (hole := _RUN.search(picture)) is not None:
                raise ImageFault(
                    Rejection.DAMAGED,
                    f"A part of the image is damaged: its data has a hole from byte {hole.start():,} on.",
                )


def check_webp(data: bytes, decodes: Callable[[bytes], bool]) -> None:
    """Refuse a WebP whose picture does not need its last bytes; of an animation, whose first picture.

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


def _shorter_webp(data: bytes) -> bytes | None:
    """A WebP of the first picture alone, without its last bytes; None if there is none, or a tiny one."""
    for kind, begin, end in _webp_chunks(data, 12, len(data)):
        if kind == b"ANMF":
            # Sixteen bytes say where and how long the frame is shown; its own chunks come after them.
            chunks = list(_webp_chunks(data, begin + 16, end))
        elif kind in _WEBP_PICTURES:
            chunks = [(kind, begin, end)]
        else:
            continue
        for name, at, stop in chunks:
            if name in _WEBP_PICTURES:
                return (
                    _still_webp(name, data[at : stop - _CUT_BYTES]) if stop - at >= 4 * _CUT_BYTES else None
                )
    return None


def _webp_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk that is whole, and where its contents begin and end."""
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > end:
            return
        yield data[at : at + 4], at + 8, at + 8 + size
        at += 8 + size + (size & 1)


def _still_webp(name: bytes, contents: bytes) -> bytes:
    contents = contents[: len(contents) & ~1]
    chunk = name + len(contents).to_bytes(4, "little") + contents
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
