"""I1: damage that decoders only warn about is never shown as "no faces", and mere untidiness is no damage."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors import jpeg_damage
from actors.faces import Rejection
from actors.images import PreparedImage
from actors.iso_items import coded_pictures
from actors.settings import DetectorSettings
from tests.unit.test_images import JPEG_KINDS, LIMITS, encoded, jpeg_file, picture, ready, refused

SEARCHING = replace(LIMITS, search_damaged=True)
ALL_KINDS = ["4:2:0", "progressive", "grey", "CMYK", "restart markers", "4:4:4"]


def photo(size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Noise that is smooth enough for each encoder to spend some bytes on every part of it."""
    small = np.random.default_rng(5).integers(0, 255, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size)


def with_hole(data: bytes, begin: float = 0.4, share: float = 0.3, fill: int = 0) -> bytes:
    at, size = int(len(data) * begin), int(len(data) * share)
    return data[:at] + bytes([fill]) * size + data[at + size :]


def scan_of(data: bytes) -> int:
    return data.index(b"\xff\xda") + 14


@pytest.mark.parametrize("fill", [0, 0x55, 0xFF])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_hole_in_a_jpeg_is_damage(kind: str, fill: int) -> None:
    assert refused(with_hole(JPEG_KINDS[kind], fill=fill)).reason is Rejection.DAMAGED


@pytest.mark.parametrize("begin", [0.2, 0.31, 0.45, 0.6, 0.77])
def test_zeros_that_fit_into_a_jpeg_are_damage(begin: float) -> None:
    """Zeros are codes too. Where those behind the hole come into step again, libjpeg says nothing."""
    file = encoded(photo((128, 152)).convert("L"), "JPEG", quality=92)
    for size in range(150, 260, 3):
        at = scan_of(file) + int((len(file) - scan_of(file)) * begin)
        spoilt = file[:at] + bytes(size) + file[at + size :]
        assert refused(spoilt).reason is Rejection.DAMAGED


def test_zeros_beside_the_scan_of_a_jpeg_are_no_hole() -> None:
    whole = JPEG_KINDS["4:2:0"]
    block = b"\xff\xe5" + (2002).to_bytes(2, "big") + bytes(2000)
    assert ready(whole[:2] + block + whole[2:] + bytes(3000)).digest == ready(whole).digest


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_jpeg_without_any_data_is_damage(kind: str) -> None:
    whole, at = JPEG_KINDS[kind], scan_of(JPEG_KINDS[kind])
    assert refused(whole[:at] + bytes(len(whole) - at - 2) + whole[-2:]).reason is Rejection.DAMAGED


def test_a_progressive_jpeg_that_lacks_its_last_scans_is_damage() -> None:
    """libjpeg says nothing: it decodes a coarse picture."""
    whole = JPEG_KINDS["progressive"]
    starts = [each.start() for each in re.finditer(rb"\xff\xda", whole)]
    for end in (b"\xff\xd9", b""):
        fault = refused(whole[: starts[2]] + end)
        assert fault.reason is (Rejection.DAMAGED if end else Rejection.TRUNCATED)


def test_end_markers_without_number_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trailer of 2 MB could hold a million, and each would be compared with what lies before it."""
    monkeypatch.setattr(jpeg_damage, "_MAX_ENDS", 3)
    said = "Corrupt JPEG data: 4 extraneous bytes before marker 0xd9"
    end, padding = b"\xff\xd9", bytes(4)
    assert jpeg_damage.is_padding(said, padding + end + b"junk" + end * 5)
    assert jpeg_damage.is_padding(said, b"junk" + end * 2 + padding + end)
    assert not jpeg_damage.is_padding(said, b"junk" + end * 5 + padding + end)


def test_no_more_markers_are_parsed_than_a_photo_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_damage, "_MAX_MARKERS", 3)
    assert len(jpeg_damage.parse(JPEG_KINDS["progressive"]).segments) <= 3


def test_absurdly_many_restart_markers_are_not_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """To number a million of them would take a hundred times the memory of the file."""
    data = JPEG_KINDS["restart markers"]
    at = data.rindex(b"\xff\xd3")
    damaged = data[:at] + data[at + 2 :]
    assert ready(damaged).width == 1600
    monkeypatch.setattr(jpeg_damage, "_MAX_RESTARTS", 10)
    assert refused(damaged).reason is Rejection.DAMAGED


def test_junk_before_the_damage_does_not_hide_it() -> None:
    """libjpeg tells of its first warning only."""
    whole = JPEG_KINDS["4:2:0"]
    assert refused(whole[:20] + b"junk" + with_hole(whole)[20:]).reason is Rejection.DAMAGED


def restarts(change: Callable[[bytearray, list[int]], None]) -> bytes:
    data = bytearray(JPEG_KINDS["restart markers"])
    places = [each.start() for each in re.finditer(rb"\xff[\xd0-\xd7]", bytes(data))]
    change(data, places)
    return bytes(data)


def misnumber(data: bytearray, places: list[int]) -> None:
    for each in places:
        data[each + 1] = 0xD0


def drop_one(data: bytearray, places: list[int]) -> None:
    del data[places[20] : places[20] + 2]


def stray(data: bytes) -> bytes:
    middle = (scan_of(data) + len(data)) // 2
    while 0xFF in data[middle - 1 : middle + 1]:
        middle += 1
    return data[:middle] + b"\xff\xd0" + data[middle:]


PLAIN = JPEG_KINDS["4:2:0"]
UNTIDY = {
    "junk between segments": (PLAIN[:20] + b"junk" + PLAIN[20:], "4:2:0"),
    "trailer": (PLAIN + b"ftypmp42" * 400, "4:2:0"),
    "no end marker": (PLAIN[:-2], "4:2:0"),
    "a panorama's film in place of the end marker": (PLAIN[:-2] + b"\xff\x19" + b"ftypmp42" * 400, "4:2:0"),
    "padding": (PLAIN[:-2] + bytes(300) + PLAIN[-2:], "4:2:0"),
    "padding, progressive": (JPEG_KINDS["progressive"][:-2] + bytes(600) + b"\xff\xd9", "progressive"),
    "stray restart marker": (stray(PLAIN), "4:2:0"),
    "restart markers announced": (PLAIN[:2] + b"\xff\xdd\0\4\0\x20" + PLAIN[2:], "4:2:0"),
    "restart markers misnumbered": (restarts(misnumber), "restart markers"),
    "a restart marker missing": (restarts(drop_one), "restart markers"),
}


@pytest.mark.parametrize("case", UNTIDY)
def test_an_untidy_jpeg_gives_all_its_pixels_without_a_mark(case: str) -> None:
    data, kind = UNTIDY[case]
    made = ready(data)
    assert made.decoded_share == 1.0
    assert made.digest == ready(JPEG_KINDS[kind]).digest


@pytest.mark.parametrize(("cut", "least", "most"), [(0.5, 0.3, 0.6), (0.9, 0.7, 0.95)])
@pytest.mark.parametrize("kind", ["4:2:0", "grey", "restart markers"])
def test_what_is_left_of_a_truncated_jpeg_may_be_searched(
    kind: str, cut: float, least: float, most: float
) -> None:
    whole = jpeg_of_photo(kind)
    made: PreparedImage = ready(whole[: int(len(whole) * cut)], SEARCHING)
    assert least < made.decoded_share < most
    good = int(made.pixels.shape[0] * made.decoded_share) - 8
    difference = np.abs(made.pixels[:good].astype(int) - ready(whole).pixels[:good])
    assert difference.max() <= 2, "the rows above the damage are those of the whole photo"


def jpeg_of_photo(kind: str) -> bytes:
    image = photo((800, 600)).convert("L" if kind == "grey" else "RGB")
    return encoded(image, "JPEG", quality=90, **({"restart_marker_rows": 1} if "restart" in kind else {}))


def test_a_hole_counts_from_where_it_begins() -> None:
    made = ready(with_hole(jpeg_of_photo("4:2:0")), SEARCHING)
    assert 0.2 < made.decoded_share < 0.45


def test_nothing_left_is_rejected_also_where_damage_is_searched() -> None:
    at = scan_of(PLAIN)
    assert (
        refused(PLAIN[:at] + bytes(len(PLAIN) - at - 2) + PLAIN[-2:], SEARCHING).reason is Rejection.DAMAGED
    )


def test_damage_is_not_searched_unless_the_settings_say_so() -> None:
    assert not DetectorSettings().search_damaged
    assert type(LIMITS).of(DetectorSettings(search_damaged=True)).search_damaged


LOSSY: dict[str, dict[str, Any]] = {"WEBP": {"quality": 90}, "AVIF": {"quality": 90}, "HEIF": {"quality": 90}}


def modern(format: str, image: Image.Image, **options: Any) -> bytes:
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    return encoded(image, format, **(options or LOSSY[format]))


@pytest.mark.parametrize("fill", [0, 0x20, 0xFF])
@pytest.mark.parametrize("format", LOSSY)
def test_a_hole_in_a_modern_format_is_damage(format: str, fill: int) -> None:
    data = modern(format, photo())
    assert refused(with_hole(data, share=0.1, fill=fill)).reason is Rejection.DAMAGED


FLAT = {
    "white": Image.new("RGB", (1500, 1000), "white"),
    "black": Image.new("RGB", (1500, 1000), "black"),
    "stripes": Image.fromarray(
        np.tile(np.array([0, 0, 0, 0, 255, 255, 255, 255], np.uint8), (400, 80))
    ).convert("RGB"),
    "picture": picture(900, 600),
    "photo on white": Image.new("RGB", (900, 700), "white"),
}
FLAT["photo on white"].paste(photo((200, 200)), (500, 400))


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("WEBP", {"quality": 90}),
        ("WEBP", {"lossless": True, "method": 0}),
        ("AVIF", {"quality": 60}),
        ("HEIF", {"quality": 90}),
    ],
)
def test_flat_pictures_have_no_holes(format: str, options: dict[str, Any], name: str) -> None:
    """An encoder writes nearly nothing for them, or many equal bytes (lossless WebP)."""
    assert ready(modern(format, FLAT[name], **options)).width == FLAT[name].width


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_zeros_in_the_metadata_of_a_modern_format_are_no_hole(format: str) -> None:
    """Cameras leave room in their EXIF blocks, which lie beside the pictures."""
    exif = Image.Exif()
    exif[0x010F], exif[0x927C] = "A maker", b"notes" + bytes(3000)
    data = modern(format, photo(), exif=exif.tobytes(), **LOSSY[format])
    assert bytes(3000) in data
    assert ready(data).width == photo().width
    begin = int(len(data) * 0.6)
    assert refused(data[:begin] + bytes(40) + data[begin + 40 :]).reason is Rejection.DAMAGED


@pytest.mark.parametrize("places", [b"", b"\x44\x00\x00\x01\x00\x01", b"\x44\x00\xff\xff" * 2, bytes(5)])
def test_an_odd_table_of_places_names_no_pictures(places: bytes) -> None:
    def box(name: bytes, contents: bytes) -> bytes:
        return (8 + len(contents)).to_bytes(4, "big") + name + contents

    entry = box(b"infe", b"\2\0\0\0\0\1\0\0hvc1\0")
    meta = box(b"meta", bytes(4) + box(b"iinf", b"\0\0\0\0\0\1" + entry) + box(b"iloc", bytes(4) + places))
    assert list(coded_pictures(box(b"ftyp", b"heic") + meta)) == []


@pytest.mark.parametrize("lossless", [False, True])
def test_a_hole_in_the_first_picture_of_an_animation_is_damage(lossless: bool) -> None:
    frames = [photo().rotate(90 * turn) for turn in range(3)]
    data = modern("WEBP", frames[0], save_all=True, append_images=frames[1:], lossless=lossless, quality=90)
    assert ready(data).width == photo().width
    begin = data.index(b"ANMF") + 2000
    assert refused(data[:begin] + bytes(300) + data[begin + 300 :]).reason is Rejection.DAMAGED


TIFF_KINDS = [
    ("RGB", "tiff_adobe_deflate"),
    ("L", "tiff_adobe_deflate"),
    ("1", "tiff_adobe_deflate"),
    ("RGB", "jpeg"),
    ("L", "jpeg"),
    ("CMYK", "jpeg"),
]


@pytest.mark.parametrize(("mode", "compression"), TIFF_KINDS)
@pytest.mark.parametrize("fill", [0, 0x55])
def test_a_hole_in_a_compressed_tiff_is_damage(mode: str, compression: str, fill: int) -> None:
    data = encoded(photo().convert(mode), "TIFF", compression=compression)
    assert ready(data).width == photo().width
    for begin in (0.2, 0.5, 0.8):
        assert refused(with_hole(data, begin, 0.02, fill)).reason is Rejection.DAMAGED


def test_a_compressed_tiff_in_one_piece_is_read_to_its_end() -> None:
    """Its rows come out before its checksum does."""
    data = encoded(photo(), "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: photo().height})
    assert ready(data).width == photo().width
    assert refused(with_hole(data, 0.5, 0.01)).reason is Rejection.DAMAGED


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_hole_in_a_png_or_gif_is_damage(format: str) -> None:
    assert refused(with_hole(encoded(photo(), format))).reason is not None


def chunk(kind: bytes, content: bytes, wrong: int = 0) -> bytes:
    checksum = zlib.crc32(kind + content) ^ wrong
    return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")


def test_a_wrong_checksum_matters_only_where_pixels_are() -> None:
    whole = encoded(photo(), "PNG")
    untidy = whole[:33] + chunk(b"tEXt", b"Title\0x", wrong=1) + whole[33:]
    assert ready(untidy).digest == ready(whole).digest
    at = whole.index(b"IDAT") + 300
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    assert refused(flipped).reason is Rejection.DAMAGED


def test_a_jpeg_of_one_flat_colour_is_whole() -> None:
    """Its data are mostly equal bytes, and so are those of a hole."""
    for options in ({"optimize": True}, {"progressive": True}):
        data = encoded(Image.new("RGB", (3000, 2000), "white"), "JPEG", **options)
        assert ready(data).decoded_share == 1.0
    assert ready(jpeg_file(progressive=True, optimize=True)).decoded_share == 1.0
