"""Small files that declare much: to decode one would take minutes or gigabytes, and so it is refused before.

The PNG, the BMP and the JPEGs really hold what they declare; of the others the declared size is enough.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from PIL import Image

from tests.corpus.raws import CAMERAS, Tags
from tests.corpus.raws import tiff as tiff_file

_SIDE = 13_300
_CHUNK_BYTES = 1_000_000


def bombs() -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """The name of each bomb, what makes it, and the reason for which it is rejected."""
    yield "PNG in colours, 13,300 x 13,300", partial(png, _SIDE, _SIDE), "too_costly"
    yield "PNG in colours, 20,000 x 20,000", partial(png, 20_000, 20_000), "too_large"
    yield "JPEG of 4,000 scans", partial(jpeg_of_scans, _SIDE, _SIDE, 4000), "too_costly"
    yield "BMP in run-length code", bmp_in_runs, "too_costly"
    yield "TIFF in colours, 13,300 x 13,300", partial(tiff, _SIDE), "too_costly"
    yield "TIFF in colours, 60,000 x 60,000", partial(tiff, 60_000), "too_large"
    yield "TIFF with a JPEG of 4,000 scans", partial(tiff_of_scans, 5000, 5000, 4000), "too_costly"
    yield "WebP, 13,000 x 13,000", webp, "too_costly"
    yield "AVIF, 13,300 x 13,300", partial(heif, "AVIF"), "too_costly"
    yield "HEIC, 13,300 x 13,300", partial(heif, "HEIF"), "too_costly"
    yield "GIF, 65,535 x 65,535", gif, "too_large"
    for kind, camera in CAMERAS.items():
        name = f"{kind} with a JPEG of 4,000 scans"
        yield name, partial(raw, camera), "too_costly"


def png(width: int, height: int) -> bytes:
    """A black PNG in colours. Equal pieces of Deflate are packed once, so this takes no time."""
    num_bytes = height * (3 * width + 1)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(_CHUNK_BYTES)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(num_bytes % _CHUNK_BYTES)) + packer.flush()
    # Adler-32 of so many zeros.
    checksum = (num_bytes % 65_521) << 16 | 1
    data = b"\x78\x9c" + piece * (num_bytes // _CHUNK_BYTES) + rest + struct.pack(">I", checksum)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(each)) + kind + each + struct.pack(">I", zlib.crc32(kind + each))
        for kind, each in chunks
    )


def jpeg_of_scans(width: int, height: int, num_scans: int) -> bytes:
    """A grey progressive JPEG of which each scan says in a few bytes that no value changes."""
    plain = _saved("JPEG", "L", progressive=True)
    first_scan = plain.index(b"\xff\xda")
    head = re.sub(
        rb"(\xff\xc2..\x08)....",
        lambda found: found[1] + struct.pack(">HH", height, width),
        plain[:first_scan],
        flags=re.DOTALL,
    )
    # A table whose only code, one bit, stands for a run of 16,384 blocks or more without values.
    table = b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1] + [0] * 15) + b"\xe0"
    num_blocks, bits = -(-width // 8) * -(-height // 8), ""
    while num_blocks > 0:
        run = min(num_blocks, 32_767)
        bits += "0" + format(max(0, run - 16_384), "014b")
        num_blocks -= max(run, 16_384)
    bits += "1" * (-len(bits) % 8)
    values = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x10" + bytes([1, 63, 0]) + values
    return head + table + scan * num_scans + b"\xff\xd9"


def bmp_in_runs() -> bytes:
    """A row of 170 million pixels, which ends at once."""
    data = bytearray(_saved("BMP", "P")[:1078])
    struct.pack_into("<ii", data, 18, 170_000_000, 1)
    data[30] = 1
    return bytes(data) + b"\x01\0\0\0\0\1"


def tiff(side: int) -> bytes:
    """A TIFF that declares other sides than it has."""
    data = _saved("TIFF", compression="tiff_adobe_deflate")
    for tag in (256, 257):
        # A short number becomes a long one.
        at = data.index(struct.pack("<HHIHH", tag, 3, 1, 64, 0))
        data = data[:at] + struct.pack("<HHII", tag, 4, 1, side) + data[at + 12 :]
    return data


def tiff_of_scans(width: int, height: int, num_scans: int) -> bytes:
    """A grey TIFF of one strip, which is a JPEG of many scans."""
    tags: Tags = {256: ("I", width), 257: ("I", height), 258: ("H", 8), 259: ("H", 7), 262: ("H", 1)}
    tags |= {273: ("I", "strip"), 277: ("H", 1), 278: ("I", height), 279: ("I", "#strip")}
    return tiff_file([tags], [], {"strip": jpeg_of_scans(width, height, num_scans)})


def webp() -> bytes:
    """A lossless WebP that declares other sides than it has."""
    data = bytearray(_saved("WEBP", lossless=True))
    struct.pack_into("<I", data, 21, 12_999 | 12_999 << 14)
    return bytes(data)


def heif(file_format: str) -> bytes:
    """An AVIF or HEIC that declares another size than it has."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    data = _saved(file_format)
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", _SIDE, _SIDE) + data[at + 8 :]


def gif() -> bytes:
    """A GIF with the largest screen that it can declare."""
    data = _saved("GIF", "P")
    return data[:6] + b"\xff\xff\xff\xff" + data[10:]


def raw(camera: Callable[[bytes, tuple[int, int], int], bytes]) -> bytes:
    """A raw photo whose preview is a bomb."""
    return camera(jpeg_of_scans(_SIDE, _SIDE, 4000), (_SIDE, _SIDE), 1)


def _saved(file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (64, 64)).save(file, file_format, **options)
    return file.getvalue()
