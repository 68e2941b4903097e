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

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.TiffImagePlugin import TiffImageFile

_COMPRESSION, _JPEG_TABLES = 259, 347
_DEFLATE, _JPEG = (8, 32946), (7,)
#: Tags of offsets, sizes, and width and height of a piece, for tiles and for strips.
_TILES, _STRIPS = (324, 325), (273, 279)
_TILE_WIDTH, _TILE_HEIGHT, _ROWS_OF_STRIP = 322, 323, 278
_CHUNK_BYTES = 1_000_000
#: A piece that is inflated to more than so many bytes is not read to its end.
_MAX_INFLATED_BYTES = 2_000_000_000


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
    compression = image.tag_v2.get(_COMPRESSION)
    if compression in _DEFLATE:
        for number, piece in enumerate(_pieces(image, data), 1):
            if problem := _inflating_fails(piece):
                raise _damaged(number, problem)
    elif compression in _JPEG:
        tables = image.tag_v2.get(_JPEG_TABLES, b"")
        size = _piece_size(image)
        for number, piece in enumerate(_pieces(image, data), 1):
            # The tables are a JPEG without a picture; its end and the piece's beginning are left out.
            whole = tables[:-2] + piece[2:] if tables else piece
            try:
                jpeg.decode_reduced(whole, size, (1, 1))
            except jpeg.DamagedJpeg as error:
                raise _damaged(number, f"{error}") from error


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
    return image.width, min(int(tags.get(_ROWS_OF_STRIP, image.height)), image.height)


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
