"""Raw photos and TIFFs whose first picture is a small one: never faces of a thumbnail."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import prepare
from actors.raw_photos import jpeg_size
from tests.corpus.raws import Tags, cr3, embedded, lossless, raf, rgb, sensor, tiff
from tests.unit.test_images import LIMITS, SHAPES, encoded, exif_with, picture, ready, refused

FULL = encoded(picture(1200, 800), "JPEG", quality=95)
THUMB = encoded(picture(160, 106), "JPEG")
SMALL = np.asarray(picture(160, 106)).tobytes()
BLOBS = {"small": SMALL, "sensor": bytes(64), "full": FULL, "thumb": THUMB}
SENSOR = (1216, 808)
DNG = ("B", [1, 4, 0, 0])


def raw(*previews: str, order: str = "<", magic: int = 42, **main: Any) -> bytes:
    first = rgb(160, 106, "small", t254=("I", 1), **main)
    return tiff([first], [sensor(*SENSOR), *map(embedded, previews)], BLOBS, order, magic)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("previews", "main"),
    [
        ((), {"t50706": DNG}),
        (("thumb",), {"t50706": DNG}),
        (("thumb",), {"t271": ("s", b"NIKON CORPORATION")}),
    ],
    ids=["no preview", "small preview", "no DNG"],
)
def test_a_raw_photo_without_a_full_preview_is_unsupported(
    previews: tuple[str, ...], main: dict[str, Any], order: str
) -> None:
    fault = refused(raw(*previews, order=order, **main))
    assert fault.reason is Rejection.UNSUPPORTED
    assert "raw photo" in fault.detail
    assert "send a JPEG" in fault.detail


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (1200, 800)), (6, (800, 1200)), (8, (800, 1200))])
def test_the_full_preview_of_a_raw_photo_is_searched_upright(
    orientation: int, size: tuple[int, int], order: str
) -> None:
    """The raw's own orientation turns the preview, which mostly has none."""
    data = raw("thumb", "full", order=order, t274=("H", orientation), t50706=DNG)
    made = ready(data)
    assert (made.width, made.height) == size
    upright = ready(encoded(picture(1200, 800), "JPEG", quality=95, exif=exif_with(orientation)))
    assert made.digest == upright.digest


@pytest.mark.parametrize("magic", [0x4F52, 0x5352, 0x55])
def test_raws_with_a_beginning_of_their_own_are_no_tiff(magic: int) -> None:
    assert refused(raw("thumb", magic=magic)).reason is Rejection.UNSUPPORTED
    assert ready(raw("full", magic=magic)).width == 1200


@pytest.mark.parametrize(("jpeg", "is_read"), [("full", True), ("thumb", False)])
def test_canons_first_picture_is_taken_where_it_is_large(jpeg: str, is_read: bool) -> None:
    blobs = BLOBS | {"lossless": lossless(*SENSOR)}
    first: Tags = {256: ("I", 1200), 257: ("I", 800), 259: ("H", 6), 273: ("I", jpeg), 279: ("I", "#" + jpeg)}
    last: Tags = {259: ("H", 6), 273: ("I", "lossless"), 279: ("I", "#lossless")}
    data = tiff([first, last], [], {"CR": b"CR\2\0", **blobs})
    assert data[8:10] == b"CR"
    if is_read:
        assert ready(data).width == 1200
    else:
        assert refused(data).reason is Rejection.UNSUPPORTED


def test_fujifilms_preview_is_turned_by_its_own_exif() -> None:
    turned = encoded(picture(1200, 800), "JPEG", exif=exif_with(6))
    made = ready(raf(turned, SENSOR))
    assert (made.width, made.height) == (800, 1200)
    assert refused(raf(THUMB, SENSOR)).reason is Rejection.UNSUPPORTED


def test_canons_newer_raw_is_a_container_of_boxes() -> None:
    made = ready(cr3(FULL, SENSOR, 6))
    assert (made.width, made.height) == (800, 1200)
    assert refused(cr3(THUMB, SENSOR, 6)).reason is Rejection.UNSUPPORTED


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_tiff_that_lacks_its_end_is_cut_short(compression: str | None, share: float) -> None:
    """Its directory comes last; without it nobody knows its kind."""
    data = encoded(picture(640, 424), "TIFF", compression=compression)
    assert refused(data[: round(len(data) * share)]).reason is Rejection.TRUNCATED


@pytest.mark.parametrize("marked", [{"t254": ("I", 1)}, {"t255": ("H", 2)}])
def test_a_tiff_whose_first_page_is_a_reduced_one_is_unsupported(marked: Any) -> None:
    pixels = np.asarray(picture(640, 424)).tobytes()
    pages = [rgb(160, 106, "small", **marked), rgb(640, 424, "photo")]
    fault = refused(tiff(pages, [], {"small": SMALL, "photo": pixels}))
    assert fault.reason is Rejection.UNSUPPORTED
    assert "first picture is a reduced one" in fault.detail
    assert ready(tiff(pages[::-1], [], {"small": SMALL, "photo": pixels})).width == 640


def test_a_photo_with_smaller_pictures_behind_it_is_read() -> None:
    """A pyramid, and the preview that some programs add."""
    pixels = np.asarray(picture(640, 424)).tobytes()
    data = tiff(
        [rgb(640, 424, "photo")], [rgb(160, 106, "small", t254=("I", 1))], {"small": SMALL, "photo": pixels}
    )
    assert ready(data).width == 640


def test_a_hidden_larger_picture_means_that_the_first_is_a_preview() -> None:
    pixels = np.asarray(picture(640, 424)).tobytes()
    data = tiff([rgb(160, 106, "small")], [rgb(640, 424, "photo")], {"small": SMALL, "photo": pixels})
    assert refused(data).reason is Rejection.UNSUPPORTED


@pytest.mark.parametrize(
    "maker", [lambda: raw("full", t50706=DNG), lambda: raf(FULL, SENSOR), lambda: cr3(FULL, SENSOR, 6)]
)
def test_damaged_raws_raise_nothing_but_their_fault(maker: Any) -> None:
    """I3: any byte may be wrong; directories may point at themselves."""
    data, random = maker(), np.random.default_rng(3)
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(4):
            changed[int(random.integers(0, 300))] = int(random.integers(0, 256))
            changed[-int(random.integers(1, 400))] = int(random.integers(0, 256))
        with suppress(ImageFault):
            prepare(bytes(changed), SHAPES, LIMITS, 2.0)


def test_the_size_of_a_jpeg_is_read_from_its_frame() -> None:
    assert jpeg_size(FULL) == (1200, 800)
    assert jpeg_size(lossless(*SENSOR), lossless=True) == SENSOR
    assert jpeg_size(lossless(*SENSOR)) is None
    assert jpeg_size(b"no JPEG") is None
    assert jpeg_size(FULL[:20]) is None


def test_the_sample_photo_is_no_raw(photos: Path) -> None:
    image = Image.open(photos / "montage_faces.jpg").convert("RGB")
    assert ready(encoded(image, "TIFF")).width == image.width
