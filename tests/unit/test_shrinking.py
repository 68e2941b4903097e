"""Large pictures: shrunk in strips to the same pixels, and refused before they are decoded."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from actors.decode_memory import needed_bytes
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import Limits, PreparedImage, prepare
from actors.shrinking import shrunk_by_strips

LIMITS = Limits(max_pixels=200_000_000, max_bytes=200_000_000)
SHAPES = ((128, 128), (96, 128), (128, 96))


def scene(width: int, height: int) -> np.ndarray:
    """Soft colours, RGB: neighbours differ little, and no two corners are alike."""
    corners = np.array([[[250, 10, 30], [20, 220, 40]], [[60, 30, 240], [200, 200, 90]]], np.uint8)
    return np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def prepared(
    picture: Image.Image, file_format: str = "PNG", limits: Limits = LIMITS, **options: object
) -> PreparedImage:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return prepare(file.getvalue(), SHAPES, limits, 2.0)


def test_strips_give_the_pixels_of_the_whole() -> None:
    """Sides that no strip divides: no row is lost, and no border shows."""
    pixels = scene(3001, 2503)
    strips = shrunk_by_strips(Image.fromarray(pixels), (128, 107), np.asarray)
    assert 256 <= strips.shape[1] < 300
    from_strips = cv2.resize(strips, (128, 107), interpolation=cv2.INTER_AREA).astype(int)
    from_whole = cv2.resize(pixels, (128, 107), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(from_strips - from_whole).max() <= 2


def test_a_narrow_picture_is_not_shrunk_too_far() -> None:
    """The shorter side decides: it may be a few pixels only."""
    strips = shrunk_by_strips(Image.fromarray(scene(4000, 3)), (128, 1), np.asarray)
    assert strips.shape == (3, 4000, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_picture_is_turned_as_a_small_one(orientation: int) -> None:
    """Large ones are turned after they were shrunk."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = prepared(Image.fromarray(scene(3200, 2600)), exif=exif, compress_level=1)
    small = prepared(Image.fromarray(scene(320, 260)), exif=exif)
    assert (large.width, large.height) == (10 * small.width, 10 * small.height)
    assert np.abs(large.pixels.astype(int) - small.pixels.astype(int)).max() <= 6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_a_large_picture_of_each_kind_of_pixels_is_like_a_small_one(mode: str) -> None:
    file_format = "TIFF" if mode == "CMYK" else "PNG"
    large = prepared(Image.fromarray(scene(3200, 2600)).convert(mode), file_format)
    small = prepared(Image.fromarray(scene(320, 260)).convert(mode), file_format)
    # Dithering in "1" and "P" differs from size to size; a blurred look does not.
    looks = [
        cv2.resize(each.pixels, (4, 4), interpolation=cv2.INTER_AREA).astype(int) for each in (large, small)
    ]
    assert np.abs(looks[0] - looks[1]).max() <= 12


def test_large_grey_of_16_bits_keeps_its_range() -> None:
    """One bright pixel far down must not change how the rest is read."""
    deep = np.full((2600, 3200), 40_000, np.uint16)
    deep[-1, -1] = 65_535
    photo = prepared(Image.fromarray(deep))
    assert np.unique(photo.pixels[:-1]).tolist() == [40_000 >> 8]


def test_a_palette_with_transparency_is_like_its_colours() -> None:
    """It is turned into colours strip by strip."""
    palette = Image.new("P", (3200, 2600), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    photo = prepared(palette, transparency=0)
    assert np.unique(photo.pixels.reshape(-1, 3), axis=0).tolist() == [[30, 200, 10]]


def test_a_picture_that_needs_too_much_memory_is_refused() -> None:
    """Before it is decoded: it says what it would take, and which setting allows more."""
    few = Limits(max_pixels=1_000_000, max_bytes=1_000_000, max_decode_bytes=50_000)
    with pytest.raises(ImageFault, match=r"200 x 100 .* PNG .* 100,000 bytes .* 50,000 \(detector") as caught:
        prepared(Image.new("RGB", (200, 100)), limits=few)
    assert caught.value.reason is Rejection.TOO_COSTLY
    assert prepared(Image.new("L", (200, 100)), limits=few).width == 200


def test_a_jpeg_is_not_judged_by_its_size() -> None:
    """It is decoded at a reduced size."""
    few = Limits(max_pixels=1_000_000, max_bytes=1_000_000, max_decode_bytes=1000)
    assert prepared(Image.new("RGB", (200, 100)), "JPEG", limits=few).width == 200
    assert needed_bytes("MPO", "RGB", 10**9) == 0
