"""Photos that must not be refused: with odd metadata, many pixels, missing codecs, or deep pixels."""

from __future__ import annotations

import struct
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from actors import codecs
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import Limits, PreparedImage
from tests.unit.test_images import LIMITS, encoded, exif_with, jpeg_file, picture, ready, refused

PLAIN = jpeg_file(quality=95)


def with_exif(*tags: tuple[int, int, int, bytes], order: str = "<", marker: bytes = b"Exif\0\0") -> bytes:
    """The plain JPEG with an EXIF block of these tags: number, type, count and packed value."""
    block = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    rest, at = b"", 14 + 12 * len(tags)
    for tag, kind, count, value in sorted(tags):
        block += struct.pack(order + "HHI", tag, kind, count)
        block += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", at + len(rest))
        rest += value if len(value) > 4 else b""
    body = marker + block + bytes(4) + rest
    return PLAIN[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + PLAIN[2:]


UPRIGHT = (0x112, 3, 1, struct.pack("<H", 6))
ODD = {
    "nothing odd": (0x131, 2, 2, b"x"),
    "XResolution as BYTE": (0x11A, 1, 1, b"\x48"),
    "Compression as LONG 70000": (0x103, 4, 1, struct.pack("<I", 70000)),
    "DateTime as DOUBLE": (0x132, 12, 1, struct.pack("<d", 1.5)),
    "Make as RATIONAL": (0x10F, 5, 1, struct.pack("<II", 72, 1)),
    "ImageWidth as SBYTE": (0x100, 6, 1, b"\xff"),
    "unknown type": (0x110, 99, 1, b"\1"),
    "beyond the end": (0x111, 2, 4_000_000_000, b"\1"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_one_odd_tag_costs_no_photo_its_orientation(odd: tuple[int, int, int, bytes]) -> None:
    """The pixels are turned; nothing is written again."""
    made, tidy = ready(with_exif(UPRIGHT, odd)), ready(jpeg_file(quality=95, exif=exif_with(6)))
    assert (made.width, made.height) == (1000, 1600)
    assert made.digest == tidy.digest


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7, 8])
def test_other_formats_are_turned_too(format: str, orientation: int) -> None:
    made = ready(encoded(picture(400, 200), format, exif=exif_with(orientation), **_lossless(format)))
    tidy = ready(jpeg_of_lying(orientation))
    assert (made.width, made.height) == (tidy.width, tidy.height)
    assert np.abs(made.pixels.astype(int) - tidy.pixels).mean() < 5


def _lossless(format: str) -> dict[str, Any]:
    return {"quality": 95} if format in ("WEBP", "AVIF") else {}


def jpeg_of_lying(orientation: int) -> bytes:
    return encoded(picture(400, 200), "JPEG", quality=95, subsampling=0, exif=exif_with(orientation))


def test_a_tiff_with_an_odd_tag_is_turned() -> None:
    data = encoded(picture(400, 200), "TIFF", tiffinfo={274: 6, 306: "2026:01:02 03:04:05"})
    text, fraction = struct.pack("<HHI", 306, 2, 20), struct.pack("<HHI", 306, 12, 1)
    assert data.count(text) == 1
    assert ready(data.replace(text, fraction)).width == 200


def test_an_orientation_that_only_xmp_states_turns_nothing() -> None:
    """As in browsers."""
    xmp = (
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
        b"xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
        b"xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/></rdf:RDF></x:xmpmeta>"
    )
    data = PLAIN[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + PLAIN[2:]
    assert (ready(data).width, ready(data).height) == (1600, 1000)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("most", [10, 2500])
def test_the_only_limit_of_pixels_is_ours(format: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns above its limit, and refuses above twice that; the caller's Pillow keeps it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    data = encoded(picture(), format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ready(data).width == 64
        assert refused(data, Limits(64 * 48 - 1, 10**6)).reason is Rejection.TOO_LARGE
    assert most == Image.MAX_IMAGE_PIXELS


def test_no_warning_of_pillow_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Pillow warns of a palette's transparency, and of broken tags of a TIFF."""
    palette = picture().convert("P")
    tiff = bytearray(encoded(picture(), "TIFF", tiffinfo={270: "x" * 40}))
    tiff[-60:-20] = bytes(40)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ready(encoded(palette, "PNG", transparency=bytes(range(256))))
        for data in (bytes(tiff), bytes(tiff[:-10])):
            try:
                ready(data)
            except ImageFault as fault:
                assert fault.detail  # noqa: PT017 - whether it is read does not matter here
    assert capsys.readouterr().err == ""


def near(made: PreparedImage, other: PreparedImage) -> bool:
    return bool(np.abs(made.pixels.astype(int) - other.pixels).mean() < 8)


@pytest.mark.parametrize("brand", [b"mif1", b"msf1", b"miaf"])
@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_the_codec_decides_and_not_the_first_brand(format: str, brand: bytes) -> None:
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(picture(640, 480), format)
    assert near(ready(data[:8] + brand + data[12:]), ready(encoded(picture(640, 480), "PNG")))


@pytest.mark.parametrize(("format", "feature"), [("AVIF", "avif"), ("WEBP", "webp")])
def test_a_missing_codec_is_named_with_how_to_get_it(
    format: str, feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(picture(), format)
    monkeypatch.setattr(features, "check", lambda name: name != feature)
    fault = refused(data)
    assert fault.reason is Rejection.UNSUPPORTED
    assert feature in fault.detail.lower()
    assert "pip install" in fault.detail


def test_heic_under_another_brand_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    fault = refused(b"\0\0\0\x18ftypmiaf\0\0\0\0mif1heic" + bytes(40))
    assert "rayface[heic]" in fault.detail


@pytest.mark.parametrize("codec", [b"vvc1", b"avc1", b"j2k1"])
def test_another_codec_in_a_heif_container_is_named(codec: bytes) -> None:
    item = b"\0\0\0\x15infe\2\0\0\0\0\1\0\0" + codec + b"\0"
    fault = refused(b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf" + item)
    assert fault.reason is Rejection.UNSUPPORTED
    assert codecs._ITEM_CODECS[codec] in fault.detail


@pytest.mark.parametrize(("number", "name"), [(50001, "WebP"), (50000, "Zstandard"), (34712, "JPEG 2000")])
def test_a_codec_that_libtiff_lacks_is_named(number: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_tiff_encodes", lambda _: False)
    data = encoded(picture(), "TIFF", compression="tiff_lzw")
    entry = struct.pack("<HHIH", 259, 3, 1, 5)
    assert data.count(entry) == 1
    fault = refused(data.replace(entry, struct.pack("<HHIH", 259, 3, 1, number)))
    assert fault.reason is Rejection.UNSUPPORTED
    assert name in fault.detail


RAMP = np.linspace(0.0, 1.0, 64 * 48).reshape(48, 64)


def test_32_bit_pixels_are_scaled_by_their_range() -> None:
    """Clipping at 255 would make all of it white."""
    for most, dtype in ((2**31 - 1, np.int32), (2**20 - 1, np.int32), (65535, np.int32), (255, np.int32)):
        grey = ready(encoded(Image.fromarray((RAMP * most).astype(dtype)), "TIFF")).pixels
        assert grey[0].mean() < 10, most
        assert 110 < grey.mean() < 145, most
        assert grey[-1].mean() > 245, most


def test_32_bit_pixels_without_a_sign_are_no_negative_ones() -> None:
    """Pillow reads them as signed numbers."""
    signed = encoded(Image.fromarray((RAMP * (2**32 - 1)).astype(np.uint32).view(np.int32)), "TIFF")
    unsigned = signed.replace(struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1))
    assert signed != unsigned
    grey = ready(unsigned).pixels
    assert grey[0].mean() < 10
    assert grey[-1].mean() > 245
    assert LIMITS.max_pixels > grey.size
