"""What callers may pass as a photo, and as several; reading never takes more than the limits allow."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import Limits, PreparedImage, prepare
from actors.sources import pil_image
from cluster.client.call import refuse_one
from tests.unit.test_images import JPEG_KINDS, LIMITS, SHAPES, encoded, picture, ready, refused

DATA = JPEG_KINDS["orientation 6"]


class Socket(io.RawIOBase):
    """Gives few bytes at a time, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._data, self.num_read = data, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part, self._data = self._data[: min(size, 700)], self._data[min(size, 700) :]
        self.num_read += len(part)
        return part


def same(made: PreparedImage, other: PreparedImage) -> bool:
    return made.digest == other.digest and (made.width, made.height) == (other.width, other.height)


def test_a_binary_file_is_read_from_its_beginning_and_left_where_it_stood(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(DATA)
    with (tmp_path / "a.jpg").open("rb") as file:
        for each in (io.BytesIO(DATA), file):
            each.seek(0, io.SEEK_END)
            assert same(ready(each), ready(DATA))
            assert each.tell() == len(DATA)
    assert same(ready(Socket(DATA)), ready(DATA))


def test_no_more_of_a_file_is_read_than_the_limits_allow() -> None:
    endless = Socket(bytes(1_000_000))
    fault = refused(endless, Limits(LIMITS.max_pixels, 5000))
    assert fault.reason is Rejection.TOO_LARGE
    assert endless.num_read <= 5001
    assert refused(io.BytesIO()).reason is Rejection.ZERO_SIZED


@pytest.mark.parametrize(
    ("file", "reason", "words"),
    [
        (io.StringIO("text"), Rejection.UNSUPPORTED, "binary mode"),
        (open(__file__, "rb"), Rejection.UNREADABLE, "closed"),  # noqa: SIM115 - it is closed below
    ],
)
def test_a_file_that_cannot_be_read_says_why(file: IO[Any], reason: Rejection, words: str) -> None:
    if not isinstance(file, io.StringIO):
        file.close()
    fault = refused(file)
    assert fault.reason is reason
    assert words in fault.detail


def test_a_pil_image_is_its_pixels_upright() -> None:
    """The caller's image stays as it is."""
    for name in ("orientation 6", "grey", "CMYK"):
        image = Image.open(io.BytesIO(JPEG_KINDS[name]))
        image.load()
        size = image.size
        made, other = ready(image), ready(JPEG_KINDS[name])
        assert (made.width, made.height) == (other.width, other.height)
        assert np.abs(made.pixels.astype(int) - other.pixels).mean() < 3
        assert image.size == size
    assert same(ready(picture()), ready(encoded(picture(), "PNG")))
    assert refused(picture(), Limits(100, 100)).reason is Rejection.TOO_LARGE


def test_pillow_may_be_half_loaded_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module is listed before it has its classes."""
    monkeypatch.setitem(sys.modules, "PIL.Image", ModuleType("PIL.Image"))
    assert pil_image(b"an encoded photo") is None


def test_damage_in_a_pil_image_that_is_not_decoded_yet_is_found() -> None:
    """I1: Pillow decodes it without a word."""
    whole = JPEG_KINDS["4:2:0"]
    hole = whole[: len(whole) // 3] + bytes(len(whole) // 3) + whole[len(whole) // 3 * 2 :]
    assert refused(Image.open(io.BytesIO(hole))).reason is Rejection.DAMAGED
    with pytest.raises(ImageFault):
        prepare(Image.open(io.BytesIO(encoded(picture(), "PNG")[:-40])), SHAPES, LIMITS, 2.0)


@pytest.mark.parametrize("images", ["a.jpg", b"x", Path("a.jpg"), picture(), io.BytesIO(DATA), None, 5, 2.5])
def test_one_image_in_place_of_several_is_a_type_error(images: Any) -> None:
    """It is not asked for, letter by letter or line by line."""
    with pytest.raises(TypeError, match="list"):
        refuse_one(images)


def test_several_images_are_no_error() -> None:
    async def stream() -> Any:
        yield DATA

    asked = stream()
    for images in ([DATA], (DATA,), iter([DATA]), asked):
        refuse_one(images)
    asyncio.run(asked.aclose())


@pytest.mark.parametrize("source", [None, [1, 2], 5, 2.5, {}])
def test_a_source_of_the_wrong_type_is_the_callers_fault(source: Any) -> None:
    """The client and the detector in this process both prepare with this function."""
    with pytest.raises(ImageFault, match="pass an encoded photo as bytes") as caught:
        prepare(source, [(640, 640)], Limits(10**6, 10**6), 1.0)
    assert caught.value.reason is Rejection.UNSUPPORTED
