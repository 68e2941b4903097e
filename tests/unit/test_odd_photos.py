"""Photos with odd metadata or of odd kinds: the good ones are read, and no preview is taken for the photo."""

from __future__ import annotations

import io
import re
import struct
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from actors.faces import Rejection
from actors.jpeg_damage import without_padding
from tests.unit.test_damage import chunk, modern, photo
from tests.unit.test_good_photos import near
from tests.unit.test_images import JPEG_KINDS, encoded, exif_with, picture, ready, refused

PLAIN = JPEG_KINDS["4:2:0"]
PNG = encoded(picture(640, 480), "PNG")
BOMB = zlib.compress(bytes(3_000_000))


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


ODD_SEGMENTS = {
    "a short JFIF": segment(0xE0, b"JFIF"),
    "a short Adobe": segment(0xEE, b"Adobe\0"),
    "a short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "a Photoshop block that ends too soon": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed"),
    "an EXIF block of nothing": segment(0xE1, b"Exif\0\0"),
}


@pytest.mark.parametrize("odd", ODD_SEGMENTS)
@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "CMYK"])
def test_a_segment_that_no_pixel_needs_costs_no_photo(kind: str, odd: str) -> None:
    whole = JPEG_KINDS[kind]
    assert ready(whole[:2] + ODD_SEGMENTS[odd] + whole[2:]).digest == ready(whole).digest


def test_an_odd_segment_does_not_cost_the_orientation() -> None:
    whole = JPEG_KINDS["orientation 6"]
    odd = whole[:2] + ODD_SEGMENTS["a short Adobe"] + whole[2:]
    assert ready(odd).digest == ready(whole).digest


def test_a_preview_in_a_damaged_header_is_not_the_photo() -> None:
    """What stands before the preview is overwritten, so that decoders find the preview first."""
    preview = encoded(picture(160, 100), "JPEG")
    whole = PLAIN[:2] + segment(0xE1, b"Exif\0\0" + bytes(90) + preview) + PLAIN[2:]
    assert ready(whole).width == 1600
    begin = whole.index(preview)
    for end in (begin, begin + 2, begin + 20):
        spoilt = whole[:4] + bytes(end - 4) + whole[end:]
        assert refused(spoilt).reason in (Rejection.DAMAGED, Rejection.TRUNCATED), end
    short = whole[:4] + struct.pack(">H", 20) + whole[6:]
    assert refused(short).reason in (Rejection.DAMAGED, Rejection.TRUNCATED)


def in_three_scans() -> bytes:
    """A baseline JPEG with a scan for each of its components, as some cameras write it."""
    planes = [encoded(each, "JPEG", quality=90) for each in photo().convert("YCbCr").split()]
    at = planes[0].index(b"\xff\xc0")
    frame = planes[0][at + 2 : at + 9] + b"\3" + b"".join(bytes([id_, 0x11, 0]) for id_ in (1, 2, 3))
    scans = []
    for id_, plane in enumerate(planes, 1):
        begin = plane.index(b"\xff\xda")
        scans.append(b"\xff\xda\0\x08\1" + bytes([id_, 0]) + plane[begin + 7 : -2])
    between = planes[0][at + 13 : planes[0].index(b"\xff\xda")]
    return planes[0][:at] + b"\xff\xc0\0\x11" + frame[2:] + between + b"".join(scans) + b"\xff\xd9"


def test_a_jpeg_that_lacks_a_scan_is_damaged() -> None:
    """libjpeg says nothing: it decodes a grey picture, or none at all."""
    whole = in_three_scans()
    assert near(ready(whole), ready(encoded(photo(), "PNG")))
    begins = [each.start() for each in re.finditer(rb"\xff\xda", whole)] + [len(whole) - 2]
    for at, after in pairwise(begins):
        assert refused(whole[:at] + whole[after:]).reason is Rejection.DAMAGED
    assert refused(whole[: begins[1]] + b"\xff\xd9").reason is Rejection.DAMAGED


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (4, 12, "12 bits"),
        (1, 0xC3, "lossless"),
        (1, 0xC9, "arithmetic"),
        (1, 0xCA, "arithmetic"),
        (1, 0xF7, "JPEG-LS"),
        (9, 2, "2 channels"),
    ],
)
def test_a_jpeg_of_another_kind_is_unsupported_and_not_damaged(place: int, value: int, words: str) -> None:
    at = PLAIN.index(b"\xff\xc0") + place
    fault = refused(PLAIN[:at] + bytes([value]) + PLAIN[at + 1 :])
    assert fault.reason is Rejection.UNSUPPORTED
    assert words in fault.detail


ODD_CHUNKS = {
    "much text": chunk(b"zTXt", b"a\0\0" + BOMB),
    "much text, not compressed": chunk(b"iTXt", b"a\0\0\0\0\0" + bytes(2_000_000)),
    "a large profile": chunk(b"iCCP", b"a\0\0" + BOMB),
    "a profile without a name": chunk(b"iCCP", b""),
    "a short gamma": chunk(b"gAMA", b"\0"),
    "an animation out of order": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", bytes(26)),
}


@pytest.mark.parametrize("odd", ODD_CHUNKS)
def test_a_chunk_that_no_pixel_needs_costs_no_photo(odd: str) -> None:
    """Pillow has limits of its own for texts and profiles, which programs that make pictures exceed."""
    for at in (33, len(PNG) - 12):
        assert ready(PNG[:at] + ODD_CHUNKS[odd] + PNG[at:]).digest == ready(PNG).digest


def test_a_png_whose_last_chunk_is_spoilt_is_whole() -> None:
    for end in (-12, -4, -1):
        assert ready(PNG[:end]).digest == ready(PNG).digest
    assert ready(PNG[:-4] + b"junk").digest == ready(PNG).digest


@pytest.mark.parametrize("at", [33, -12])
def test_the_orientation_of_a_png_may_stand_behind_its_pixels(at: int) -> None:
    """The PNG specification allows both; Pillow would read the second one too late."""
    exif = chunk(b"eXIf", exif_with(6).tobytes().removeprefix(b"Exif\0\0"))
    made = ready(PNG[:at] + exif + PNG[at:])
    assert (made.width, made.height) == (480, 640)


def test_a_png_of_an_iphones_program_is_unsupported() -> None:
    fault = refused(PNG[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + PNG[8:])
    assert fault.reason is Rejection.UNSUPPORTED
    assert "iPhone" in fault.detail


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_broken_exif_block_costs_no_modern_photo(format: str, orientation: int) -> None:
    """Their boxes say the orientation; Pillow fails when it writes the block of an AVIF again."""
    exif = exif_with(orientation)
    exif[0x010F] = "A maker of cameras with a long name"
    block = exif.tobytes()
    data = modern(format, picture(640, 480), exif=block, quality=90)
    at = data.index(b"A maker") - 40
    begin = max(data.rfind(b"II*\0", 0, at + 40), data.rfind(b"MM\0*", 0, at + 40))
    for spoilt in (
        data[:begin] + b"junk" + data[begin + 4 :],
        data[: begin + 4] + b"\xff" * 4 + data[begin + 8 :],
    ):
        made = ready(spoilt)
        assert (made.width, made.height) == (ready(data).width, ready(data).height)
        assert made.digest == ready(data).digest


def test_the_thumbnail_of_a_heic_is_not_searched_in_place_of_the_photo() -> None:
    """It may be of another picture, or whole where the photo is damaged."""
    image = photo((1600, 1200))
    plain = ready(modern("HEIF", image, quality=80))
    assert ready(modern("HEIF", image, quality=80, thumbnails=[1000])).digest == plain.digest


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_heic_in_tiles_that_is_cut_short_is_truncated(share: float) -> None:
    """So do phones write it. libheif leaves the missing tiles grey, and says nothing."""
    data = modern("HEIF", photo((800, 600)), quality=90, tile_size=256)
    assert ready(data).width == 800
    assert refused(data[: int(len(data) * share)]).reason is Rejection.TRUNCATED
    middle = len(data) // 2
    assert refused(data[:middle] + data[middle + 300 :]).reason is Rejection.TRUNCATED


def test_a_photo_in_ink_without_its_end_marker_is_whole() -> None:
    whole = JPEG_KINDS["CMYK"]
    for untidy in (whole[:-2], whole[:-1], whole[:2] + b"\xff\xff" + whole[2:]):
        assert ready(untidy).digest == ready(whole).digest


def test_a_stuffed_zero_at_the_end_of_a_scan_is_no_padding() -> None:
    assert without_padding(b"scan\xff\0" + bytes(9) + b"\xff\xd9") == b"scan\xff\0\xff\xd9"
    assert without_padding(b"scan" + bytes(9) + b"\xff\xd9") == b"scan\xff\xd9"
    assert without_padding(b"scan\x20\x20\xff\xd9") == b"scan\xff\xd9"


def test_one_byte_before_the_end_marker_is_padding_only_if_it_is_zero() -> None:
    """A picture that came out of step often leaves one byte over."""
    whole = JPEG_KINDS["grey"]
    for padding in (b"\0", b"\x5a\x5a\x5a"):
        assert ready(whole[:-2] + padding + whole[-2:]).digest == ready(whole).digest
    assert refused(whole[:-2] + b"\x5a" + whole[-2:]).reason is Rejection.DAMAGED


def test_a_png_whose_pixels_have_the_wrong_checksum_is_damaged() -> None:
    """That of the chunk is right, so whoever wrote the file had the damage already."""
    rows = b"".join(b"\0" + bytes(each) for each in np.asarray(picture()))
    packed = zlib.compress(rows, 0)
    header = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0))
    end = chunk(b"IEND", b"")
    assert ready(header + chunk(b"IDAT", packed) + end).digest == ready(picture()).digest
    spoilt = packed[:3000] + bytes(2000) + packed[5000:]
    assert refused(header + chunk(b"IDAT", spoilt) + end).reason is Rejection.DAMAGED


def test_a_webp_whose_metadata_are_cut_short_is_whole() -> None:
    plain = modern("WEBP", picture(640, 480), quality=90)
    data = modern("WEBP", picture(640, 480), quality=90, xmp=b"<x/>" * 900)
    assert ready(data[:-300]).digest == ready(plain).digest
    for size in (0, len(plain) - 6, len(plain) + 20_000):
        assert ready(plain[:4] + struct.pack("<I", size) + plain[8:]).digest == ready(plain).digest
    assert refused(plain[: len(plain) // 2]).reason is Rejection.TRUNCATED


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK"])
@pytest.mark.parametrize("fill", [0, 0x55, 0xFF])
def test_a_hole_in_packbits_is_damage(mode: str, fill: int) -> None:
    """libtiff drops what is too much, and says nothing."""
    data = encoded(photo().convert(mode), "TIFF", compression="packbits")
    assert ready(data).width == 400
    for begin in (0.3, 0.5, 0.7):
        at = int(len(data) * begin)
        assert refused(data[:at] + bytes([fill]) * 300 + data[at + 300 :]).reason is not None


def test_the_orientation_of_a_tiff_may_be_one_byte() -> None:
    data = encoded(picture(640, 480), "TIFF", tiffinfo={274: 6})
    number, byte = struct.pack("<HHIH", 274, 3, 1, 6), struct.pack("<HHIH", 274, 1, 1, 6)
    assert data.count(number) == 1
    assert ready(data.replace(number, byte)).digest == ready(data).digest


def test_a_tiff_of_grey_and_transparency_in_jpeg_code_is_read() -> None:
    assert ready(encoded(photo().convert("LA"), "TIFF", compression="jpeg")).width == 400


def strips(data: bytes) -> tuple[int, int]:
    """Where the entry of the strips' places is, and where the places are."""
    at = data.index(struct.pack("<HH", 273, 4))
    return at, struct.unpack_from("<I", data, at + 8)[0]


def test_a_tiff_that_lacks_a_strip_is_damaged() -> None:
    """Pillow leaves it black."""
    data = encoded(picture(640, 480), "TIFF", tiffinfo={278: 16}, strip_size=640 * 3 * 16)
    entry, places = strips(data)
    assert struct.unpack_from("<I", data, entry + 4)[0] > 4
    assert ready(data).width == 640
    for spoilt in (
        data[: entry + 4] + struct.pack("<I", 3) + data[entry + 8 :],
        data[: places + 8] + bytes(4) + data[places + 12 :],
        data[: places + 8] + b"\xff\xff\xff\x7f" + data[places + 12 :],
    ):
        assert refused(spoilt).reason is Rejection.DAMAGED


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_a_tiff_that_is_cut_short_is_no_tiff_of_an_unknown_kind(compression: str, share: float) -> None:
    """Where its directory is at its end, that is missing."""
    data = encoded(photo(), "TIFF", compression=compression)
    assert refused(data[: int(len(data) * share)]).reason is not Rejection.UNSUPPORTED


def lab(image: Image.Image) -> Image.Image:
    srgb, lab_space = (ImageCms.createProfile(each) for each in ("sRGB", "LAB"))
    made = ImageCms.profileToProfile(image, srgb, lab_space, outputMode="LAB")
    assert made is not None
    return made


def test_a_picture_in_lab_colours_is_read() -> None:
    for source in (encoded(lab(picture()), "TIFF"), lab(picture())):
        assert np.abs(ready(source).pixels.astype(int) - ready(encoded(picture(), "PNG")).pixels).mean() < 12


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "LA", "RGBX", "YCbCr", "HSV", "1", "I;16"])
def test_every_mode_of_a_pil_image_is_read(mode: str) -> None:
    via: dict[str, Any] = {"La": "LA", "RGBa": "RGBA", "PA": "P", "I;16": "I"}
    image = picture().convert(via.get(mode, mode)).convert(mode)
    assert ready(image).width == 64


def test_an_unread_pil_image_of_a_format_that_only_pillow_knows_is_read() -> None:
    image = Image.open(io.BytesIO(encoded(picture(), "PPM")))
    assert ready(image).digest == ready(picture()).digest
    assert refused(Image.open(io.BytesIO(encoded(picture(), "PPM")[:-400]))).reason is Rejection.UNREADABLE


@pytest.mark.parametrize(
    "error", [EOFError(), RuntimeError("no more"), zlib.error("bad"), TypeError("one argument")]
)
def test_a_file_that_raises_an_error_of_its_own_is_unreadable(error: Exception) -> None:
    """As in an archive that is cut short; the fault is not ours."""

    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise error

    fault = refused(Failing())
    assert fault.reason is Rejection.UNREADABLE
    assert str(error) in fault.detail
    view = memoryview(b"abc")
    view.release()
    assert refused(view).reason is Rejection.UNREADABLE


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(300), "film"),
        (b"FOVb" + bytes(99), "Sigma"),
        (b"P6\n640 480\n255\n" + bytes(99), "anymap"),
        (b"\xffO\xffQ" + bytes(99), "JPEG 2000"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, words: str) -> None:
    fault = refused(data)
    assert fault.reason is Rejection.UNSUPPORTED
    assert words in fault.detail
