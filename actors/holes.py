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
from actors.iso_items import coded_pictures, is_cut_short

#: Equal bytes in a row that arithmetic coding does not write.
_RUN = re.compile(rb"(.)\1{31}", re.DOTALL)
#: A WebP that is shorter by so many bytes cannot be decoded.
_CUT_BYTES = 32
_WEBP_PICTURES = (b"VP8 ", b"VP8L")
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_INFLATED_AT_ONCE = 1_000_000
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def check_holes(name: str, data: bytes) -> None:
    """Refuse an AVIF or HEIC with a hole in its pictures or without a part of them, and a PNG with a hole.

    Raises:
        ImageFault: it is damaged or cut short.
    """
    if name == "PNG":
        _check_inflating(data)
    if name in ("AVIF", "HEIF"):
        if is_cut_short(data):
            # libheif leaves the tiles that are missing grey.
            raise ImageFault(Rejection.TRUNCATED, "The image is cut short: a part of its data is missing.")
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


def tidy_webp(data: bytes) -> bytes:
    """A WebP of those chunks alone that are whole, with the right size; libwebp refuses any other size.

    Only metadata or later pictures can be missing in it; a file without a whole picture stays as it is.
    """
    if len(data) == 8 + int.from_bytes(data[4:8], "little"):
        return data
    chunks = list(_webp_chunks(data, 12, len(data)))
    if not any(name in (*_WEBP_PICTURES, b"ANMF") for name, _, _ in chunks):
        return data
    body = data[8 : chunks[-1][2]]
    body += bytes(len(body) & 1)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def tidy_png(data: bytes) -> bytes:
    """A PNG of those chunks alone that its pixels need, with its orientation before them.

    Texts, colour profiles and animations are left out, because Pillow refuses a picture for what is in them.

    Raises:
        ImageFault: a chunk of the picture has a wrong checksum.
    """
    view = memoryview(data)
    picture: list[bytes | memoryview] = []
    exif: list[bytes | memoryview] = []
    at = 8
    while data.startswith(_PNG_HEAD) and at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            if kind != b"IDAT" and any(each[4:8] == b"IDAT" for each in picture):
                # All pixels were before it.
                picture.append(_PNG_END)
                at = len(data)
            break
        is_right = zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if kind == b"IEND":
            picture.append(_PNG_END)
        elif kind[:1].isupper() or kind == b"tRNS":
            if not is_right:
                raise ImageFault(
                    Rejection.DAMAGED,
                    f"A part of the image is damaged: the checksum of {kind.decode('latin-1')!r} is wrong.",
                )
            picture.append(view[at:end])
        elif kind == b"eXIf" and is_right:
            exif.append(view[at:end])
        at = end
        if kind == b"IEND":
            break
    return b"".join([view[:8], *picture[:1], *exif[:1], *picture[1:], view[at:]])


def _check_inflating(data: bytes) -> None:
    """Refuse a PNG whose pixels inflate to something else than its checksum says; Pillow stops before that.

    Args:
        data: tidy.

    Raises:
        ImageFault: it is damaged.
    """
    view, at = memoryview(data), 8
    inflating = zlib.decompressobj()
    width, height = (int.from_bytes(data[begin : begin + 4], "big") for begin in (16, 20))
    # No pixel has more than eight bytes. What inflates to more is not looked at to its end.
    num_bytes, max_bytes = 0, 8 * width * height + 16 * height
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        rest: bytes | memoryview = view[at + 8 : end - 4] if data[at + 4 : at + 8] == b"IDAT" else b""
        try:
            while rest and not inflating.eof and num_bytes <= max_bytes:
                num_bytes += len(inflating.decompress(rest, _INFLATED_AT_ONCE))
                rest = inflating.unconsumed_tail
        except zlib.error as error:
            raise ImageFault(Rejection.DAMAGED, f"A part of the image is damaged: {error}.") from error
        at = end


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
