"""Makes files of pictures, good and bad ones, and says for each what must come: known from how it was made.

Everything that looks random comes from the seed, so a case is the same in every run.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.corpus.bombs import bombs
from tests.corpus.raws import CAMERAS

PHOTOS = Path(__file__).parents[1] / "photos"
ORIENTATIONS = range(1, 9)
_ORIENTATION_TAG = 0x0112
_HOLE_PERCENT = 10
#: Raw photos that each say their orientation in another way; the others do as DNG.
_TURNED_RAWS = ("DNG", "CR3", "RAF")

#: How an upright picture is stored so that each EXIF orientation turns it upright again.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Expected:
    """What must come.

    Attributes:
        is_whole: whether the picture is all there. Then it is detected, without a mark, with its face at its
            place. If not, it is rejected, or else detected with the mark that a part is missing.
        reasons: those that are right for a file that is no whole picture; empty for every reason.
        size: width and height of the upright picture, in pixels.
    """

    is_whole: bool
    reasons: frozenset[str] = frozenset()
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: says how it was made.
        kind: the row of the summary: the format, and how it is written.
        group: the column of the summary.
        make: makes the bytes of the file.
        expected: what must come.
    """

    name: str
    kind: str
    group: str
    make: Callable[[], bytes]
    expected: Expected


@dataclass(frozen=True)
class Writer:
    """One way to write a picture.

    Attributes:
        kind: its name.
        write: the picture and options of Pillow → a file.
        has_orientation: whether the format carries an EXIF orientation that viewers follow.
        has_profile: whether it carries a colour profile.
        shows_holes: whether a hole in its data can be known at all. In data that is not compressed, or that
            has no checksum and no order that a hole breaks, every byte is a legal picture.
        first_picture: percent of the file that the first picture takes at least. Damage behind it is none.
    """

    kind: str
    write: Callable[..., bytes]
    has_orientation: bool = True
    has_profile: bool = True
    shows_holes: bool = True
    first_picture: int = 100


def cases(seed: int = 13) -> Iterator[Case]:
    """Every file of the corpus, in an order that stays the same."""
    upright = Image.open(PHOTOS / "grace_hopper.jpg").convert("RGB").resize((256, 300))
    for writer in writers():
        yield from _whole(writer, upright)
        yield from _damaged(writer, upright, seed)
    for name, make in _untidy(upright).items():
        expected = Expected(is_whole=True, size=upright.size)
        yield Case(name, name.partition(",")[0], "untidy", make, expected)
    for name, (data, reason) in _no_pictures(upright, seed).items():
        yield Case(
            name, "no picture", "no picture", partial(bytes, data), Expected(False, frozenset([reason]))
        )
    for kind in CAMERAS:
        make = partial(_with_small_preview, kind, upright)
        expected = Expected(False, frozenset(["unsupported"]))
        yield Case(f"{kind} with a small preview only", kind, "small preview", make, expected)
    for name, bomb, reason in bombs():
        yield Case(f"bomb: {name}", "bomb", "bomb", bomb, Expected(False, frozenset([reason])))


def _whole(writer: Writer, upright: Image.Image) -> Iterator[Case]:
    for orientation in ORIENTATIONS if writer.has_orientation else [1]:
        for profile in ("none", "sRGB", "broken") if writer.has_profile else ("none",):
            yield Case(
                f"{writer.kind}, orientation {orientation}, profile {profile}",
                writer.kind,
                "whole",
                partial(_written, writer, upright, orientation, profile),
                Expected(is_whole=True, size=upright.size),
            )


def _written(writer: Writer, upright: Image.Image, orientation: int, profile: str) -> bytes:
    options: dict[str, Any] = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = orientation
        options["exif"] = exif
    if profile != "none":
        options["icc_profile"] = _profile(profile)
    stored = upright.transpose(_STORED[orientation]) if orientation in _STORED else upright
    return writer.write(stored, **options)


def _damaged(writer: Writer, upright: Image.Image, seed: int) -> Iterator[Case]:
    whole = cache(partial(writer.write, upright))
    for percent in (10, 30, 50, 70, 90):
        if percent <= writer.first_picture:
            name = f"{writer.kind}, cut at {percent} %"
            yield Case(name, writer.kind, "cut", partial(_cut, whole, percent), Expected(is_whole=False))
    for percent in (30, 50, 70) if writer.shows_holes else ():
        for filling in ("zeros", "noise") if percent + _HOLE_PERCENT <= writer.first_picture else ():
            name = f"{writer.kind}, {filling} at {percent} %"
            noise = random.Random(f"{seed} {name}") if filling == "noise" else None
            make = partial(_with_hole, whole, percent, noise)
            yield Case(name, writer.kind, "hole", make, Expected(is_whole=False))


def _cut(whole: Callable[[], bytes], percent: int) -> bytes:
    return whole()[: len(whole()) * percent // 100]


def _with_hole(whole: Callable[[], bytes], percent: int, noise: random.Random | None) -> bytes:
    data = whole()
    begin, length = len(data) * percent // 100, len(data) * _HOLE_PERCENT // 100
    return data[:begin] + (noise.randbytes(length) if noise else bytes(length)) + data[begin + length :]


def _untidy(upright: Image.Image) -> dict[str, Callable[[], bytes]]:
    """Untidy files whose pixels are all there."""
    jpeg, png = _saved("JPEG", quality=92)(upright), _saved("PNG")(upright)
    restarts = _saved("JPEG", quality=92, restart_marker_rows=1)(upright)
    first = restarts.index(b"\xff\xd0")
    made = {
        "JPEG, a trailer of zeros": jpeg + bytes(5000),
        "JPEG, a trailer of text": jpeg + b"a trailer as phones write it" * 40,
        "JPEG, junk before the end marker": jpeg[:-2] + bytes(64) + jpeg[-2:],
        "JPEG, no end marker": jpeg[:-2],
        "JPEG, an unknown segment": jpeg[:2] + b"\xff\xeb\x00\x06junk" + jpeg[2:],
        "JPEG, a comment": jpeg[:2] + b"\xff\xfe\x00\x06\xff\xd8\xff\xd9" + jpeg[2:],
        "JPEG, fill bytes between segments": jpeg[:2] + b"\xff\xff\xff" + jpeg[2:],
        "JPEG, a broken EXIF block": jpeg[:2] + b"\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff" + jpeg[2:],
        "JPEG, one restart marker out of turn": restarts[: first + 1] + b"\xd5" + restarts[first + 2 :],
        "PNG, a trailer": png + b"trailer" * 100,
        "PNG, a bad checksum in a text chunk": png[:33] + _chunk(b"tEXt", b"a\0b", checksum=1) + png[33:],
        "PNG, an unknown chunk": png[:33] + _chunk(b"ruSt", b"junk") + png[33:],
    }
    return {name: partial(bytes, data) for name, data in made.items()}


def _no_pictures(upright: Image.Image, seed: int) -> dict[str, tuple[bytes, str]]:
    """Files that are no pictures, each with the reason for which it is rejected."""
    noise = random.Random(seed).randbytes(5000)
    return {
        "no bytes": (b"", "zero_sized"),
        "one byte": (b"\xff", "not_an_image"),
        "text": (b"Dear all, the photos are on the drive." * 20, "not_an_image"),
        "a web page": (b"<!DOCTYPE html><html>404</html>" * 10, "not_an_image"),
        "noise": (b"N" + noise, "not_an_image"),
        "zeros": (bytes(5000), "not_an_image"),
        "a JPEG behind text": (b"text" + _saved("JPEG")(upright), "not_an_image"),
        "a PDF document": (b"%PDF-1.7\n" + noise, "unsupported"),
        "a Photoshop document": (b"8BPS\x00\x01" + noise, "unsupported"),
        "an SVG drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        "a JPEG XL image": (b"\xff\x0a" + noise, "unsupported"),
        "an icon": (b"\0\0\1\0\1\0" + noise, "unsupported"),
    }


def writers() -> list[Writer]:
    """Each way to write a picture."""
    plain = {"has_orientation": False, "has_profile": False}
    blind = {"shows_holes": False}
    return [
        Writer("JPEG baseline 4:2:0", _saved("JPEG", quality=92)),
        Writer("JPEG baseline 4:4:4", _saved("JPEG", quality=92, subsampling=0)),
        Writer("JPEG progressive", _saved("JPEG", quality=92, progressive=True)),
        Writer("JPEG with restart markers", _saved("JPEG", quality=92, restart_marker_rows=1)),
        Writer("JPEG grey", _saved("JPEG", "L", quality=92)),
        Writer("JPEG CMYK", _saved("JPEG", "CMYK", quality=92)),
        Writer("JPEG, several pictures (MPO)", _several("MPO"), has_profile=False, first_picture=80),
        Writer("PNG", _saved("PNG")),
        Writer("PNG with transparency", _saved("PNG", "RGBA")),
        Writer("PNG grey", _saved("PNG", "L")),
        Writer("PNG palette", _saved("PNG", "P")),
        Writer("PNG 16 bits grey", _deep("PNG"), has_profile=False),
        Writer("PNG animated", _several("PNG"), **plain, first_picture=80),
        Writer("WebP", _saved("WEBP", quality=92)),
        Writer("WebP lossless", _saved("WEBP", lossless=True)),
        Writer("WebP with transparency", _saved("WEBP", "RGBA", quality=92)),
        Writer("WebP animated", _several("WEBP"), **plain, first_picture=80),
        Writer("AVIF", _saved("AVIF", quality=90)),
        Writer("HEIC", _heic),
        Writer("TIFF", _saved("TIFF"), **blind),
        Writer("TIFF, LZW", _saved("TIFF", compression="tiff_lzw"), **blind),
        Writer("TIFF, Deflate", _saved("TIFF", compression="tiff_adobe_deflate")),
        Writer("TIFF, JPEG", _saved("TIFF", compression="jpeg", quality=92)),
        Writer("TIFF grey", _saved("TIFF", "L"), **blind),
        Writer("TIFF CMYK", _saved("TIFF", "CMYK"), **blind),
        Writer("TIFF 16 bits grey", _deep("TIFF"), has_profile=False, **blind),
        Writer("TIFF, several pages", _several("TIFF"), has_profile=False, **blind, first_picture=30),
        Writer("BMP", _saved("BMP"), **plain, **blind),
        Writer("BMP grey", _saved("BMP", "L"), **plain, **blind),
        Writer("GIF", _saved("GIF", "P"), **plain, **blind),
        Writer("GIF animated", _several("GIF", "P"), **plain, **blind, first_picture=80),
        *(
            Writer(kind, partial(_raw, kind), has_orientation=kind in _TURNED_RAWS, has_profile=False)
            for kind in CAMERAS
        ),
    ]


def _saved(format_: str, mode: str = "RGB", **fixed: Any) -> Callable[..., bytes]:
    def write(image: Image.Image, **options: Any) -> bytes:
        file = io.BytesIO()
        image.convert(mode).save(file, format_, **fixed, **options)
        return file.getvalue()

    return write


def _several(format_: str, mode: str = "RGB") -> Callable[..., bytes]:
    """The picture first, then two plain ones."""

    def write(image: Image.Image, **options: Any) -> bytes:
        file = io.BytesIO()
        others = [Image.new("RGB", image.size, colour).convert(mode) for colour in ("navy", "olive")]
        image.convert(mode).save(file, format_, save_all=True, append_images=others, **options)
        return file.getvalue()

    return write


def _deep(format_: str) -> Callable[..., bytes]:
    """16 bits a pixel, over the whole range."""

    def write(image: Image.Image, **options: Any) -> bytes:
        file = io.BytesIO()
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(deep).save(file, format_, **options)
        return file.getvalue()

    return write


def _heic(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    if "exif" in options:
        # It turns the picture only if it gets bytes.
        options["exif"] = options["exif"].tobytes()
    return _saved("HEIF", quality=90)(image, **options)


def _raw(kind: str, image: Image.Image, **options: Any) -> bytes:
    """A raw photo whose preview has the photo's size; mostly, its own tags say how it is turned."""
    orientation = options["exif"][_ORIENTATION_TAG] if "exif" in options else 1
    return CAMERAS[kind](_saved("JPEG", quality=92)(image), image.size, orientation)


def _with_small_preview(kind: str, image: Image.Image) -> bytes:
    small = image.resize((image.width // 2, image.height // 2))
    return CAMERAS[kind](_saved("JPEG", quality=92)(small), image.size, 1)


def _profile(which: str) -> bytes:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made if which == "sRGB" else b"broken" + made[6:200]


def _chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right)
