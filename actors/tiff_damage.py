"""Damage in a TIFF that libtiff says nothing of: in strips and tiles of Deflate or JPEG.

libtiff stops reading a Deflate stream when it has the pixels, before the checksum, and it drops what libjpeg
warns of.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from actors import jpeg
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.tiff_tags import directories

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.TiffImagePlugin import TiffImageFile

_WIDTH, _HEIGHT, _COMPRESSION, _PLANAR, _JPEG_TABLES = 256, 257, 259, 284, 347
#: Channels that libtiff decodes from a JPEG, and the decoder that tells of damage does not.
_GREY_AND_ALPHA = 2
_BITS, _SAMPLES, _SEPARATE, _PACKBITS = 258, 277, 2, 32773
_DEFLATE, _JPEG = (8, 32946), (7,)
#: Tags of offsets, sizes, and width and height of a piece, for tiles and for strips.
_TILES, _STRIPS = (324, 325), (273, 279)
_TILE_WIDTH, _TILE_HEIGHT, _ROWS_OF_STRIP = 322, 323, 278
_CHUNK_BYTES = 1_000_000
#: A piece that is inflated to more than so many bytes is not read to its end.
_MAX_INFLATED_BYTES = 2_000_000_000


def has_size(data: bytes) -> bool:
    """Whether the directory of a TIFF's first page is there, so that its end is not missing."""
    return any(each.number(_WIDTH) and each.number(_HEIGHT) for each in directories(data)[:1])


def check_pieces(image: Image, data: bytes) -> None:
    """Refuse a TIFF whose strips or tiles are damaged.

    Args:
        image: the TIFF, opened and not decoded yet.
        data: the file.

    Raises:
        ImageFault: it is damaged.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    assert isinstance(image, TiffImageFile)
    _check_that_all_are_there(image, data)
    compression = image.tag_v2.get(_COMPRESSION)
    if compression in _DEFLATE:
        for number, piece in enumerate(_pieces(image, data), 1):
            if problem := _inflating_fails(piece):
                raise _damaged(number, problem)
    elif compression == _PACKBITS:
        pieces = zip(_pieces(image, data), _unpacked(image), strict=False)
        for number, (piece, num_bytes) in enumerate(pieces, 1):
            if _unpacks_to(piece, num_bytes) != num_bytes:
                raise _damaged(number, "whose data is too long or too short")
    elif compression in _JPEG and len(image.getbands()) != _GREY_AND_ALPHA:
        tables = image.tag_v2.get(_JPEG_TABLES, b"")
        size = _piece_size(image)
        for number, piece in enumerate(_pieces(image, data), 1):
            # The tables are a JPEG without a picture; its end and the piece's beginning are left out.
            whole = tables[:-2] + piece[2:] if tables else piece
            try:
                jpeg.decode_reduced(whole, size, (1, 1))
            except jpeg.DamagedJpeg as error:
                raise _damaged(number, f"{error}") from error


def _check_that_all_are_there(image: TiffImageFile, data: bytes) -> None:
    """Refuse a TIFF that lists too few pieces; Pillow leaves the others black if they are not compressed."""
    tags = image.tag_v2
    width, height = (int(tags.get(tag, 0)) for tag in (_WIDTH, _HEIGHT))
    piece_width, piece_height = _piece_size(image)
    num_pieces = -(-width // max(1, piece_width)) * -(-height // max(1, piece_height))
    num_planes = len(image.getbands()) if tags.get(_PLANAR, 1) == _SEPARATE else 1
    places = _numbers(image, _TILES[0] if _TILES[0] in tags else _STRIPS[0])[: num_pieces * num_planes]
    if len(places) < num_pieces * num_planes:
        raise _damaged(len(places) + 1, "which is missing")
    for number, at in enumerate(places, 1):
        if not 0 < at < len(data):
            raise _damaged(number, "which is missing")


def _damaged(number: int, problem: str) -> ImageFault:
    return ImageFault(
        Rejection.DAMAGED, f"A part of the image is damaged: piece {number} of the TIFF, {problem}."
    )


def _pieces(image: TiffImageFile, data: bytes) -> Iterator[bytes]:
    offsets, sizes = _TILES if _TILES[0] in image.tag_v2 else _STRIPS
    for at, size in zip(_numbers(image, offsets), _numbers(image, sizes), strict=False):
        yield data[at : at + size]


def _numbers(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    values = image.tag_v2.get(tag, ())
    return values if isinstance(values, tuple) else (int(values),)


def _piece_size(image: TiffImageFile) -> tuple[int, int]:
    """Width and height of a whole piece, in pixels."""
    tags = image.tag_v2
    if _TILES[0] in tags:
        return int(tags.get(_TILE_WIDTH, 1)), int(tags.get(_TILE_HEIGHT, 1))
    width, height = int(tags.get(_WIDTH, image.width)), int(tags.get(_HEIGHT, image.height))
    return width, min(int(tags.get(_ROWS_OF_STRIP, height)), height)


def _unpacked(image: TiffImageFile) -> Iterator[int]:
    """How many bytes each piece has when it is unpacked."""
    tags = image.tag_v2
    width, height = _piece_size(image)
    bits = tags.get(_BITS, (1,))
    is_separate = tags.get(_PLANAR, 1) == _SEPARATE
    num_bits = (
        bits[0] if is_separate else sum(bits) if len(bits) > 1 else bits[0] * int(tags.get(_SAMPLES, 1))
    )
    row_bytes = -(-width * num_bits // 8)
    is_tiled = _TILES[0] in tags
    while True:
        for top in range(0, int(tags.get(_HEIGHT, height)), height):
            rows = height if is_tiled else min(height, int(tags.get(_HEIGHT, height)) - top)
            yield row_bytes * rows


def _unpacks_to(piece: bytes, num_bytes: int) -> int:
    """How many bytes a piece in PackBits has when it is unpacked (TIFF 6.0, section 9).

    Args:
        piece: its data; three bytes behind its end are padding.
        num_bytes: that it should have.
    """
    at = unpacked = 0
    while at < len(piece) and (unpacked < num_bytes or at < len(piece) - 3):
        count = piece[at]
        if count < 128:
            at += 2 + count
            unpacked += 1 + count
        else:
            at += 1 if count == 128 else 2
            unpacked += 0 if count == 128 else 257 - count
    return unpacked if at <= len(piece) else 0


def _inflating_fails(piece: bytes) -> str:
    """What is wrong with a Deflate stream; empty if its checksum is right, or it is too long to tell."""
    inflating = zlib.decompressobj()
    num_bytes, rest = 0, piece
    try:
        while not inflating.eof:
            inflated = len(inflating.decompress(rest, _CHUNK_BYTES))
            rest, num_bytes = inflating.unconsumed_tail, num_bytes + inflated
            if num_bytes > _MAX_INFLATED_BYTES:
                return ""
            if not inflated and not rest and not inflating.eof:
                return "whose data ends too soon"
    except zlib.error as error:
        return f"{error}"
    return ""
