"""Encoded photo → small upright pixels; and each kind of bad image its own clear refusal (I3)."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from actors import jpeg
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import Limits, PreparedImage, fit, prepare

LIMITS = Limits(max_pixels=200_000_000, max_bytes=50_000_000)
SHAPES = ((640, 640), (480, 640), (640, 480))


def ready(source: Any, limits: Limits = LIMITS) -> PreparedImage:
    return prepare(source, SHAPES, limits, max_enlargement=2.0)


def refused(source: Any, limits: Limits = LIMITS) -> ImageFault:
    with pytest.raises(ImageFault) as caught:
        ready(source, limits)
    assert caught.value.detail.endswith(".")
    return caught.value


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Red at the left, green at the right, blue at the bottom: shows which way up it is."""
    image = Image.new("RGB", (width, height), "red")
    image.paste((0, 255, 0), (width // 2, 0, width, height))
    image.paste((0, 0, 255), (0, height * 3 // 4, width, height))
    return image


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_declaring(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_is_read_in_bgr(format: str) -> None:
    """Size of the original, and red at the left as BGR."""
    made = ready(encoded(picture(), format))
    assert (made.width, made.height) == (64, 48)
    assert made.pixels.dtype == np.uint8
    blue, green, red = made.pixels[10, 10].astype(int)
    assert red > 200
    assert max(blue, green) < 60


def test_heic_is_read_with_the_extra() -> None:
    """pillow-heif does the work."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    made = ready(encoded(picture(), "HEIF"))
    assert (made.width, made.height) == (64, 48)


def test_heic_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsupported, with the command that helps."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    fault = refused(b"\0\0\0\x18ftypheic" + bytes(40))
    assert fault.reason is Rejection.UNSUPPORTED
    assert "rayface[heic]" in fault.detail


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_come_out_upright(orientation: int) -> None:
    """Pixels and size are those of the upright photo."""
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, 1)
    tag = Image.Exif()
    tag[0x0112] = undo
    turned = picture(400, 200)
    turned.getexif()[0x0112] = undo
    lying = ImageOps.exif_transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(lying, "JPEG", exif=exif, quality=95)
    made = ready(data)
    assert (made.width, made.height) == (400, 200)
    height, width = made.pixels.shape[:2]
    assert width == 2 * height
    assert made.pixels[height // 4, width // 4, 2] > 200
    assert made.pixels[height // 4, 3 * width // 4, 1] > 200
    assert made.pixels[-5, width // 2, 0] > 200


def test_a_large_photo_is_never_decoded_below_the_tensor() -> None:
    """Reduced decode, then shrinking to fit: never enlarging what was decoded too small."""
    data = encoded(picture(4000, 3000), "JPEG")
    made = ready(data)
    assert made.pixels.shape == (480, 640, 3)
    tracemalloc.start()
    ready(data)
    assert tracemalloc.get_traced_memory()[1] < 4000 * 3000 * 3 / 2
    tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_small_photo_fits_its_tensor(width: int, height: int) -> None:
    """At least a pixel, never beyond the tensor, its sides in proportion."""
    shape, (small_w, small_h) = fit(width, height, SHAPES, 2.0)
    assert shape in SHAPES
    assert 1 <= small_w <= shape[1]
    assert 1 <= small_h <= shape[0]
    scale = min(shape[0] / height, shape[1] / width, 2.0)
    assert abs(small_w - width * scale) <= 1
    assert abs(small_h - height * scale) <= 1


@pytest.mark.parametrize(
    ("size", "shape"), [((4000, 3000), (480, 640)), ((3000, 4000), (640, 480)), ((900, 900), (640, 640))]
)
def test_the_tensor_with_the_least_padding_is_taken(size: tuple[int, int], shape: tuple[int, int]) -> None:
    """Padding is paid for like pixels."""
    assert fit(*size, SHAPES, 2.0)[0] == shape


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16))


@pytest.mark.parametrize(
    "data",
    [
        encoded(sixteen_bit(), "PNG"),
        encoded(picture().convert("L"), "JPEG"),
        encoded(picture().convert("CMYK"), "JPEG"),
        encoded(picture().convert("RGBA"), "PNG"),
        encoded(picture().convert("P"), "PNG", transparency=0),
        encoded(picture().convert("1"), "PNG"),
        encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)]),
        encoded(picture(), "WEBP", save_all=True, append_images=[picture().rotate(180)]),
        encoded(picture(1, 1), "PNG"),
        encoded(picture(1, 10_000), "PNG"),
    ],
    ids=[
        "16-bit",
        "grey",
        "CMYK",
        "RGBA",
        "palette",
        "1-bit",
        "GIF",
        "WebP",
        "1x1",
        "strip",
    ],
)
def test_unusual_images_are_read(data: bytes) -> None:
    """Three channels of 8 bits within the tensor."""
    made = ready(data)
    assert made.pixels.ndim == 3
    assert made.pixels.shape[2] == 3
    assert made.pixels.flags.c_contiguous


def test_sixteen_bits_keep_their_range() -> None:
    """Dark stays dark and bright stays bright; clipping at 255 would make all white."""
    pixels = ready(encoded(sixteen_bit(), "PNG")).pixels
    assert pixels[0].mean() < 10
    assert 110 < pixels.mean() < 145


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Rejection.ZERO_SIZED),
        (b"This is a letter, not a photo.", Rejection.NOT_AN_IMAGE),
        (png_declaring(50_000, 50_000), Rejection.TOO_LARGE),
        (png_declaring(0, 10), Rejection.TRUNCATED),
        (b"%PDF-1.7 and so on", Rejection.UNSUPPORTED),
        (b"8BPS and so on", Rejection.UNSUPPORTED),
        (b"\xff\xd8\xff\xe0 nothing", Rejection.TRUNCATED),
        (encoded(Image.new("F", (10, 10)), "TIFF"), Rejection.UNSUPPORTED),
    ],
    ids=["empty", "text", "bomb", "no-width", "pdf", "psd", "jpeg-start", "float-tiff"],
)
def test_each_bad_image_is_refused_for_its_own_reason(data: bytes, reason: Rejection) -> None:
    """I3: the refusal names the fault, and costs no memory."""
    tracemalloc.start()
    assert refused(data).reason is reason
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused_not_half_detected(format: str, share: float) -> None:
    """cv2 would fill the rest with grey and say nothing."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    data = encoded(noise, format)
    assert refused(data[: int(len(data) * share)]).reason is Rejection.TRUNCATED


def test_limits_are_those_of_the_settings(tmp_path: Path) -> None:
    """Too many pixels or bytes are refused before anything is decoded."""
    data = encoded(picture(), "PNG")
    assert "max_image_pixels" in refused(data, Limits(1000, 10_000)).detail
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png"):
        assert "max_image_bytes" in refused(source, Limits(100_000, 10)).detail


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a folder, a pipe: unreadable, and never waited for."""
    assert refused(tmp_path / "missing.jpg").reason is Rejection.UNREADABLE
    assert refused(str(tmp_path)).reason is Rejection.UNREADABLE
    assert refused("a\0b").reason is Rejection.UNREADABLE
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert refused(tmp_path / "pipe").reason is Rejection.UNREADABLE


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((10, 10, 3), np.float32), Rejection.UNSUPPORTED),
        (np.zeros((10, 10), np.uint8), Rejection.UNSUPPORTED),
        (np.zeros((10, 10, 4), np.uint8), Rejection.UNSUPPORTED),
        (np.zeros((0, 10, 3), np.uint8), Rejection.ZERO_SIZED),
    ],
)
def test_arrays_that_are_no_photo(array: np.ndarray[Any, Any], reason: Rejection) -> None:
    """The message says what was passed."""
    assert refused(array).reason is reason


def test_an_array_is_taken_as_it_is() -> None:
    """BGR in, BGR out; a file of the same picture gives the same pixels."""
    array = np.asarray(picture())[:, :, ::-1]
    np.testing.assert_array_equal(ready(array).pixels, ready(encoded(picture(), "PNG")).pixels)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=200),
    st.integers(0, 5000),
    st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]),
)
def test_damaged_bytes_never_raise_anything_else(noise: bytes, place: int, format: str) -> None:
    """I3: whatever the bytes, it is pixels or an `ImageFault`."""
    data = encoded(picture(), format)
    place %= len(data)
    for source in (noise, data[:place] + noise + data[place + len(noise) :]):
        with suppress(ImageFault):
            ready(source)


def jpeg_file(**options: Any) -> bytes:
    """A JPEG of 1600 x 1000 pixels with gradients and edges, so that a wrong turn or channel shows."""
    down, across = np.mgrid[0:1000, 0:1600]
    array = np.stack([across * 255 // 1599, down * 255 // 999, (across // 40 + down // 40) % 2 * 200], 2)
    return encoded(
        Image.fromarray(array.astype(np.uint8)).convert(options.pop("mode", "RGB")), "JPEG", **options
    )


def exif_with(orientation: int) -> Image.Exif:
    tag = Image.Exif()
    tag[0x0112] = orientation
    return tag


JPEG_KINDS = {
    "4:2:0": jpeg_file(quality=90),
    "4:2:2": jpeg_file(quality=90, subsampling=1),
    "4:4:4": jpeg_file(quality=90, subsampling=0),
    "progressive": jpeg_file(progressive=True),
    "grey": jpeg_file(mode="L"),
    "CMYK": jpeg_file(mode="CMYK"),
    "RGB without transform": jpeg_file(keep_rgb=True),
    "restart markers": jpeg_file(restart_marker_rows=1),
    "unknown orientation": jpeg_file(exif=exif_with(9)),
} | {f"orientation {each}": jpeg_file(exif=exif_with(each)) for each in range(1, 9)}


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_both_decoders_of_a_jpeg_give_the_same_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning after shrinking instead of before it changes a pixel by at most the rounding."""
    by_turbo = ready(JPEG_KINDS[kind])
    monkeypatch.setattr(jpeg, "decode_reduced", lambda *_, **__: None)
    by_pillow = ready(JPEG_KINDS[kind])
    assert (by_turbo.width, by_turbo.height) == (by_pillow.width, by_pillow.height)
    assert by_turbo.pixels.flags.c_contiguous
    assert by_turbo.pixels.shape == by_pillow.pixels.shape
    assert np.abs(by_turbo.pixels.astype(int) - by_pillow.pixels).max() <= 1


@pytest.mark.parametrize(
    ("kind", "is_decoded"), [("4:2:0", True), ("grey", True), ("progressive", True), ("CMYK", True)]
)
def test_libjpegs_warnings_are_asked_for_each_jpeg(
    kind: str, is_decoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a photo in ink, libjpeg's warnings count, and Pillow makes the colours."""
    asked: list[bool] = []

    def watched(*args: Any, **options: Any) -> Any:
        pixels = decode_reduced(*args, **options)
        asked.append(pixels is not None)
        return pixels

    decode_reduced = jpeg.decode_reduced
    monkeypatch.setattr(jpeg, "decode_reduced", watched)
    ready(JPEG_KINDS[kind])
    assert asked == ([True] if is_decoded else [])


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        ((640, 400), (800, 500)),
        ((200, 125), (200, 125)),
        ((201, 100), (400, 250)),
        ((3000, 2000), (1600, 1000)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_suffices(
    needed: tuple[int, int], expected: tuple[int, int]
) -> None:
    """1/1, 1/2, 1/4 or 1/8, and never below what the tensor needs."""
    decoded = jpeg.decode_reduced(JPEG_KINDS["4:2:0"], (1600, 1000), needed)
    assert decoded is not None
    assert decoded.pixels.shape == (expected[1], expected[0], 3)


def with_damage(kind: str) -> bytes:
    whole = JPEG_KINDS["4:2:0"]
    size, scan = len(whole), whole.index(b"\xff\xda") + 14
    return {
        "a third is zeros": whole[: size * 4 // 10] + bytes(size // 3) + whole[size * 4 // 10 + size // 3 :],
        "all is zeros": whole[:scan] + bytes(size - scan - 2) + whole[-2:],
        "end marker at a quarter": whole[: size // 4] + b"\xff\xd9" + whole[size // 4 + 2 :],
        "cut at a half": whole[: size // 2],
    }[kind]


@pytest.mark.parametrize(
    "kind", ["a third is zeros", "all is zeros", "end marker at a quarter", "cut at a half"]
)
def test_a_jpeg_with_damaged_data_is_refused(kind: str) -> None:
    """I1: the decoder makes up the missing part, in which no face can be found."""
    fault = refused(with_damage(kind))
    cut = kind == "cut at a half"
    assert fault.reason is (Rejection.TRUNCATED if cut else Rejection.DAMAGED)
    assert ("cut short" if cut else "damaged") in fault.detail


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole + bytes(5000),
        lambda whole: whole[:-2] + bytes(300) + whole[-2:],
        lambda whole: whole[:-2],
    ],
    ids=["zeros behind the end", "bytes before the end", "no end marker"],
)
def test_a_jpeg_that_is_only_untidy_is_read(change: Callable[[bytes], bytes]) -> None:
    """All its pixels are there: they are those of the tidy file."""
    tidy = JPEG_KINDS["4:2:0"]
    np.testing.assert_array_equal(ready(change(tidy)).pixels, ready(tidy).pixels)
