"""What decoding a photo will cost, told before anything is decoded."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from actors import decode_cost as cost_of
from actors.decode_cost import check_cost, declared_pixels, decode_cost
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import Limits
from tests.corpus.bombs import tiff_of_scans
from tests.corpus.raws import CAMERAS

LIMITS = Limits(max_pixels=200_000_000, max_bytes=200_000_000)


def encoded(file_format: str, size: tuple[int, int] = (48, 32), mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, file_format, **options)
    return file.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(
    width: int,
    height: int,
    *,
    num_scans: int = 1,
    frame: int = 0xC2,
    depth: int = 8,
    before: bytes = b"",
    between: bytes = b"",
) -> bytes:
    """The markers of a grey JPEG; its scans hold nothing."""
    scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\x12\xff\x00\x34\xff\xd0\x56"
    head = segment(frame, struct.pack(">BHHB", depth, height, width, 1) + b"\x01\x11\x00")
    return b"\xff\xd8" + before + head + scan + (between + scan) * (num_scans - 1) + b"\xff\xd9"


def test_photos_as_cameras_save_them_are_cheap(photos: Path) -> None:
    for file in photos.glob("*.jpg"):
        cost = decode_cost(file.read_bytes())
        assert cost.is_cheap, file
        with Image.open(file) as image:
            assert cost.num_pixels == image.width * image.height


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_other_formats_go_to_a_process(file_format: str) -> None:
    """Their size is known all the same."""
    cost = decode_cost(encoded(file_format, mode="P" if file_format == "GIF" else "RGB"))
    assert (cost.is_cheap, cost.num_pixels) == (False, 48 * 32)


def test_heic_says_the_size_of_the_picture() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    assert declared_pixels(encoded("HEIF", (640, 320))) == 640 * 320


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}]
)
def test_each_kind_of_webp_says_its_size(options: dict[str, Any]) -> None:
    assert declared_pixels(encoded("WEBP", (300, 200), **options)) == 300 * 200


@pytest.mark.parametrize("num_bytes", range(40))
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG"])
def test_a_file_that_ends_in_its_header_is_left_to_a_decoder(file_format: str, num_bytes: int) -> None:
    data = encoded(file_format, mode="P" if file_format == "GIF" else "RGB")[:num_bytes]
    cost = decode_cost(data)
    assert cost.cpu_s == 0
    check_cost(cost, LIMITS)


@pytest.mark.parametrize("data", [b"", b"text", b"<svg/>", b"%PDF-1.7"])
def test_what_is_no_image_costs_nothing(data: bytes) -> None:
    """It is refused by its first bytes, so it needs no process."""
    assert decode_cost(data).is_cheap


@pytest.mark.parametrize("num_scans", [1, 2, 10, 400])
def test_scans_are_counted(num_scans: int) -> None:
    cost = decode_cost(jpeg(13_000, 13_000, num_scans=num_scans))
    assert cost.what == f"a JPEG of 169,000,000 pixels in {num_scans:,} scans"
    assert not cost.is_cheap


def test_only_scans_are_counted() -> None:
    """Not the bytes of a table that look like one, nor those of a second picture behind the first."""
    table = segment(0xFE, b"\xff\xda" * 3000)
    data = jpeg(13_000, 13_000, num_scans=3, before=table, between=table)
    assert decode_cost(data + data).what.endswith("in 3 scans")


def test_no_more_markers_are_looked_at_than_a_photo_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of empty segments would take seconds, and hold up other threads. Too many scans count then."""
    monkeypatch.setattr(cost_of, "_MAX_MARKERS", 10)
    data = jpeg(13_000, 13_000, num_scans=3, between=segment(0xE1, b"") * 20)
    assert decode_cost(data + data).what.endswith("in 6 scans")


def test_an_end_in_a_table_hides_no_scans() -> None:
    """libjpeg skips the table, and decodes what follows."""
    hidden = segment(0xFE, b"\xff\xd9")
    assert decode_cost(jpeg(13_000, 13_000, num_scans=500, between=hidden)).what.endswith("in 500 scans")


@pytest.mark.parametrize(
    ("data", "is_cheap"),
    [
        (jpeg(6000, 4000, num_scans=10), True),
        (jpeg(8000, 6000, num_scans=10), False),
        (jpeg(6000, 4000, num_scans=11), False),
        (jpeg(8000, 6000, frame=0xC0), True),
        (jpeg(12_240, 16_320, frame=0xC0), False),
        (jpeg(64, 64, num_scans=100), True),
        (jpeg(64, 64, num_scans=101), False),
        (jpeg(64, 64, frame=0xC9), False),
        (jpeg(64, 64, frame=0xC3), False),
        (jpeg(64, 64, depth=12), False),
        (jpeg(64, 0), False),
        (jpeg(64, 64, before=segment(0xC0, b"\x08\0\x40\0\x40\x01\x01\x11\0")), False),
        (jpeg(64, 64, before=segment(0xE1, b"") * 2000), False),
        (jpeg(64, 64, before=b"\0" * 10), False),
        (jpeg(64, 64, before=b"\xff\xff"), True),
        (jpeg(64, 64, before=b"\xff" * 2000), False),
    ],
)
def test_which_jpegs_are_cheap(data: bytes, is_cheap: bool) -> None:
    """8 bits in Huffman code, few pixels for its scans, and a header that is short and in order."""
    assert decode_cost(data).is_cheap is is_cheap


def test_a_jpeg_of_too_many_scans_is_refused_with_what_it_would_cost() -> None:
    cost = decode_cost(jpeg(13_300, 13_300, num_scans=4000))
    with pytest.raises(ImageFault, match=r"354 s .* 176,890,000 pixels in 4,000 scans; .* 20 s") as caught:
        check_cost(cost, LIMITS)
    assert caught.value.reason is Rejection.TOO_COSTLY


def test_a_progressive_photo_of_many_channels_is_refused_for_its_memory() -> None:
    """libjpeg holds all its coefficients, two bytes each."""
    data = jpeg(16_000, 12_000, num_scans=2).replace(
        b"\x01\x01\x11\x00\xff\xda", b"\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xda"
    )
    data = data.replace(struct.pack(">H", 11), struct.pack(">H", 17), 1)
    with pytest.raises(ImageFault, match=r"1,152,000,000 bytes of memory") as caught:
        check_cost(decode_cost(data), LIMITS)
    assert caught.value.reason is Rejection.TOO_COSTLY


@pytest.mark.parametrize("compression", [1, 2])
def test_a_large_bmp_in_run_length_code_is_refused(compression: int) -> None:
    """Pillow decodes it in Python: a kilobyte would take a minute."""
    data = bytearray(encoded("BMP", mode="P"))
    struct.pack_into("<ii", data, 18, 170_000_000, -1)
    data[30] = compression
    with pytest.raises(ImageFault, match=r"42 s .* BMP of 170,000,000 pixels in run-length code"):
        check_cost(decode_cost(bytes(data)), LIMITS)


def test_runs_of_no_pixel_in_a_bmp_cost_time_too() -> None:
    data = bytearray(encoded("BMP", mode="P"))
    data[30] = 1
    assert decode_cost(bytes(data) + b"\x02\0" * 4_000_000).cpu_s > 1.0


@pytest.mark.parametrize("kind", CAMERAS)
def test_a_raw_photo_costs_what_its_preview_costs(kind: str) -> None:
    """Not what the small picture costs with which it begins."""
    cost = decode_cost(CAMERAS[kind](jpeg(13_300, 13_300, num_scans=4000), (13_300, 13_300), 1))
    assert (cost.is_cheap, cost.what) == (False, "a JPEG of 176,890,000 pixels in 4,000 scans")


def test_the_scans_of_a_tiff_in_jpeg_are_counted() -> None:
    """libtiff decodes a JPEG of many scans too."""
    cost = decode_cost(tiff_of_scans(5000, 5000, 4000))
    assert (cost.num_pixels, cost.what) == (25_000_000, "a TIFF of 25,000,000 pixels in 4,000 scans")
    with pytest.raises(ImageFault, match="50 s of processor time"):
        check_cost(cost, LIMITS)
    strips = decode_cost(encoded("TIFF", (2000, 2000), compression="jpeg"))
    assert strips.what.endswith("in 1 scans")


def test_a_raw_photo_that_is_refused_by_its_tags_costs_nothing() -> None:
    assert decode_cost(CAMERAS["DNG"](b"", (4000, 3000), 1)).num_pixels == 0


def test_a_large_webp_is_refused_before_it_is_opened() -> None:
    """Opening it takes the memory already."""
    data = bytearray(encoded("WEBP", lossless=True))
    struct.pack_into("<I", data, 21, 12_999 | 12_999 << 14)
    with pytest.raises(
        ImageFault, match="bytes of memory or more, because it is a WEBP of 169,000,000 pixels"
    ):
        check_cost(decode_cost(bytes(data)), LIMITS)


def test_a_heic_with_absurdly_many_sizes_is_left_to_a_decoder() -> None:
    sizes = (b"ispe" + bytes(12)) * 5000
    meta = struct.pack(">I4s", len(sizes) + 8, b"meta") + sizes
    assert declared_pixels(b"\0\0\0\x10ftypheic\0\0\0\0" + meta) is None


def test_letters_of_a_box_in_the_pixels_of_a_heic_are_no_size() -> None:
    """Compressed data may hold any four letters; a good photo must not be refused for that."""
    data = encoded("AVIF", (64, 32))
    assert declared_pixels(data + b"ispe" + struct.pack(">III", 0, 60_000, 60_000)) == 64 * 32
