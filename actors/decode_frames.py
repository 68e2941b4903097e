"""What a decode worker and its owner say to each other: a header in JSON, and bytes.

It is no pickle: a picture that takes a decoder over must not take over the process that asked.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, fields
from typing import Any, BinaryIO

import numpy as np

from actors.images import Limits, PreparedImage

_SIZES = struct.Struct(">IQ")
_MAX_HEADER_BYTES = 100_000


def write_frame(pipe: BinaryIO, header: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Send one message.

    Raises:
        OSError, ValueError: the other side is gone, or the pipe is closed.
    """
    encoded = json.dumps(header).encode()
    pipe.write(_SIZES.pack(len(encoded), len(body)) + encoded)
    pipe.write(body)
    pipe.flush()


def read_frame(pipe: BinaryIO, max_body_bytes: int) -> tuple[dict[str, Any], bytes]:
    """Receive one message: its header, and its bytes.

    Raises:
        EOFError: the other side is gone.
        ValueError: this is no message of ours.
    """
    header_bytes, body_bytes = _SIZES.unpack(_read(pipe, _SIZES.size))
    if header_bytes > _MAX_HEADER_BYTES or body_bytes > max_body_bytes:
        raise ValueError(f"a message of {header_bytes:,} and {body_bytes:,} bytes is too long")
    header = json.loads(_read(pipe, header_bytes))
    return header, _read(pipe, body_bytes)


def _read(pipe: BinaryIO, num_bytes: int) -> bytes:
    read = pipe.read(num_bytes)
    if len(read) < num_bytes:
        raise EOFError
    return read


def pack_order(shapes: Any, limits: Limits, max_enlargement: float) -> dict[str, Any]:
    """How a photo is prepared, as JSON-ready values; the arguments are those of `prepare`."""
    return {
        "shapes": [list(each) for each in shapes],
        "limits": asdict(limits),
        "max_enlargement": max_enlargement,
    }


def unpack_order(header: dict[str, Any]) -> tuple[list[tuple[int, int]], Limits, float]:
    """The arguments of `pack_order`."""
    shapes = [(height, width) for height, width in header["shapes"]]
    return shapes, Limits(**header["limits"]), header["max_enlargement"]


def pack_photo(photo: PreparedImage) -> dict[str, Any]:
    """A prepared photo without its pixels, as JSON-ready values."""
    values = {each.name: getattr(photo, each.name) for each in fields(photo) if each.name != "pixels"}
    return {"photo": values, "size": photo.pixels.shape[:2]}


def unpack_photo(header: dict[str, Any], pixels: bytes) -> PreparedImage:
    """The photo of `pack_photo`, with its pixels.

    Raises:
        ValueError: the number of bytes is not that of the pixels.
    """
    height, width = header["size"]
    values = header["photo"] | {"shape": tuple(header["photo"]["shape"])}
    return PreparedImage(pixels=np.frombuffer(pixels, np.uint8).reshape(height, width, 3), **values)
