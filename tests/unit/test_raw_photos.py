"""Raw photos and TIFFs whose first picture is a small one: never faces of a thumbnail."""

from __future__ import annotations

import struct
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
from tests.unit.test_images import LIMITS, SHAPES, encoded, exif_with, picture, ready, refused

FULL = encoded(picture(1200, 800), "JPEG", quality=95)
THUMB = encoded(picture(160, 106), "JPEG")
_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4}
Tags = dict[int, tuple[str, Any]]


def tiff(
    pages: list[Tags], subs: list[Tags], blobs: dict[str, bytes], order: str = "<", magic: int = 42
) -> bytes:
    """A TIFF of plain directories; a value that names a blob becomes its place, `#name` its length.

    Args:
        pages: the chain of directories; the first one points to `subs`.
        subs: directories behind tag 330.
        blobs: what lies in the file beside the directories.
        order: of the bytes in numbers.
        magic: 42, or what a raw photo has in its place.
    """
    places: dict[str, int] = {}
    body = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", magic, 0)
    for name, blob in blobs.items():
        places[name], body = len(body), body + blob
    # Each directory is followed by its next one's place, so they are written from the last to the first.
    sub_places = []
    for each in subs:
        body, at = _directory(body, each, places, blobs, order, 0)
        sub_places.append(at)
    following = 0
    for index, each in reversed(list(enumerate(pages))):
        tags = dict(each)
        if index == 0 and sub_places:
            tags[330] = ("I", sub_places)
        body, following = _directory(body, tags, places, blobs, order, following)
    return body[:4] + struct.pack(order + "I", following) + body[8:]


def _directory(
    body: bytes, tags: Tags, places: dict[str, int], blobs: dict[str, bytes], order: str, following: int
) -> tuple[bytes, int]:
    entries = b""
    for tag, (kind, value) in sorted(tags.items()):
        if kind == "s":
            packed, count = value + b"\0", len(value) + 1
        else:
            values = value if isinstance(value, list) else [value]
            numbers = [
                each if isinstance(each, int) else len(blobs[each[1:]]) if each[0] == "#" else places[each]
                for each in values
            ]
            packed, count = struct.pack(f"{order}{len(numbers)}{kind}", *numbers), len(numbers)
        if len(packed) > 4:
            packed, body = struct.pack(order + "I", len(body)), body + packed
        entries += struct.pack(order + "HHI", tag, _TYPES[kind], count) + packed.ljust(4, b"\0")
    at = len(body)
    return body + struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", following), at


def rgb(width: int, height: int, blob: str, **more: Any) -> Tags:
    """A directory whose pixels lie in the file as they are."""
    tags: Tags = {256: ("I", width), 257: ("I", height), 258: ("H", [8, 8, 8]), 259: ("H", 1), 262: ("H", 2)}
    tags |= {273: ("I", blob), 277: ("H", 3), 278: ("I", height), 279: ("I", "#" + blob)}
    return tags | {int(tag[1:]): value for tag, value in more.items()}


def sensor(width: int, height: int, **more: Any) -> Tags:
    tags: Tags = {254: ("I", 0), 256: ("I", width), 257: ("I", height), 259: ("H", 1), 262: ("H", 32803)}
    return tags | {273: ("I", "sensor"), 279: ("I", "#sensor")} | {int(k[1:]): v for k, v in more.items()}


def embedded(blob: str) -> Tags:
    return {254: ("I", 1), 259: ("H", 6), 513: ("I", blob), 514: ("I", "#" + blob)}


SMALL = np.asarray(picture(160, 106)).tobytes()
BLOBS = {"small": SMALL, "sensor": bytes(64), "full": FULL, "thumb": THUMB}
DNG = ("B", [1, 4, 0, 0])


def raw(*previews: str, order: str = "<", magic: int = 42, **main: Any) -> bytes:
    first = rgb(160, 106, "small", t254=("I", 1), **main)
    return tiff([first], [sensor(1216, 808), *map(embedded, previews)], BLOBS, order, magic)


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


def lossless(width: int, height: int) -> bytes:
    """The beginning of a lossless JPEG of two components side by side, as Canon writes a sensor's values."""
    frame = struct.pack(">BHHB", 14, height, width // 2, 2) + bytes([1, 17, 0, 2, 17, 0])
    return b"\xff\xd8\xff\xc3" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


@pytest.mark.parametrize(("jpeg", "is_read"), [("full", True), ("thumb", False)])
def test_canons_first_picture_is_taken_where_it_is_large(jpeg: str, is_read: bool) -> None:
    blobs = BLOBS | {"lossless": lossless(1216, 808)}
    first: Tags = {256: ("I", 1200), 257: ("I", 800), 259: ("H", 6), 273: ("I", jpeg), 279: ("I", "#" + jpeg)}
    last: Tags = {259: ("H", 6), 273: ("I", "lossless"), 279: ("I", "#lossless")}
    data = tiff([first, last], [], {"CR": b"CR\2\0", **blobs})
    assert data[8:10] == b"CR"
    if is_read:
        assert ready(data).width == 1200
    else:
        assert refused(data).reason is Rejection.UNSUPPORTED


def raf(jpeg: bytes) -> bytes:
    tags = struct.pack(">IHHHH", 1, 0x100, 4, 808, 1216)
    head = b"FUJIFILMCCD-RAW 0201FF".ljust(84, b"\0") + struct.pack(
        ">IIII", 100, len(jpeg), 100 + len(jpeg), 12
    )
    return head + jpeg + tags


def test_fujifilms_preview_is_turned_by_its_own_exif() -> None:
    turned = encoded(picture(1200, 800), "JPEG", exif=exif_with(6))
    made = ready(raf(turned))
    assert (made.width, made.height) == (800, 1200)
    assert refused(raf(THUMB)).reason is Rejection.UNSUPPORTED


def box(kind: bytes, *inner: bytes) -> bytes:
    content = b"".join(inner)
    return struct.pack(">I", 8 + len(content)) + kind + content


def cr3(jpeg: bytes) -> bytes:
    begin = box(b"ftyp", b"crx ", bytes(4), b"crx ")
    exif = tiff([{274: ("H", 6)}], [], {})
    entry = bytes(24) + struct.pack(">HH", 1216, 808) + bytes(50)

    def moov(place: int) -> bytes:
        table = box(b"stsd", bytes(8), box(b"CRAW", entry))
        sizes = box(b"stsz", struct.pack(">III", 0, len(jpeg), 1))
        track = box(b"stbl", table, sizes, box(b"co64", struct.pack(">IIQ", 0, 1, place)))
        about = box(b"uuid", bytes(16), box(b"CMT1", exif))
        return box(b"moov", about, box(b"trak", box(b"mdia", box(b"minf", track))))

    return begin + moov(len(begin + moov(0)) + 8) + box(b"mdat", jpeg)


def test_canons_newer_raw_is_a_container_of_boxes() -> None:
    made = ready(cr3(FULL))
    assert (made.width, made.height) == (800, 1200)
    assert refused(cr3(THUMB)).reason is Rejection.UNSUPPORTED


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


@pytest.mark.parametrize("maker", [lambda: raw("full", t50706=DNG), lambda: raf(FULL), lambda: cr3(FULL)])
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
    assert jpeg_size(lossless(1216, 808), lossless=True) == (1216, 808)
    assert jpeg_size(lossless(1216, 808)) is None
    assert jpeg_size(b"no JPEG") is None
    assert jpeg_size(FULL[:20]) is None


def test_the_sample_photo_is_no_raw(photos: Path) -> None:
    image = Image.open(photos / "montage_faces.jpg").convert("RGB")
    assert ready(encoded(image, "TIFF")).width == image.width
