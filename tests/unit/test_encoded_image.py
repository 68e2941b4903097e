"""A prepared photo as a JPEG: the same picture, and nothing that a detector must fear."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors import jpeg
from actors.encoded_image import QUALITY, EncodedImage
from actors.errors import DetectorFault, ImageFault
from actors.faces import Failure
from actors.images import Limits, PreparedImage, prepare
from actors.intake import ImageIntake
from actors.settings import DetectorSettings
from tests.benchmarks.large_photos import PHOTOS

SETTINGS = DetectorSettings(num_prepare_threads=1)
PHOTO = replace(
    prepare(PHOTOS / "astronaut.jpg", SETTINGS.shapes, Limits(10**9, 10**9), 2.0), decoded_share=0.5
)
ENCODED = EncodedImage.of(PHOTO)


def taken(image: Any) -> PreparedImage:
    return asyncio.run(ImageIntake(SETTINGS).prepare(image, 0))


def progressive(pixels: Any) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", progressive=True)
    return file.getvalue()


def test_a_photo_is_the_same_picture_after_the_journey() -> None:
    """Smaller on the way; the facts are untouched, and the pixels nearly."""
    assert len(ENCODED.data) < PHOTO.pixels.nbytes / 3
    made = taken(ENCODED)
    for name in ("width", "height", "shape", "prepare_ms", "digest", "decoded_share"):
        assert getattr(made, name) == getattr(PHOTO, name)
    assert made.pixels.shape == PHOTO.pixels.shape
    assert made.pixels.dtype == np.uint8
    assert made.pixels.flags.c_contiguous
    assert np.abs(made.pixels.astype(int) - PHOTO.pixels).mean() < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 640), (17, 33)])
def test_photos_of_any_size_travel(size: tuple[int, int]) -> None:
    """The last block of a JPEG is seldom full."""
    photo = replace(PHOTO, pixels=np.full((*size, 3), (30, 120, 220), np.uint8))
    made = taken(EncodedImage.of(photo))
    assert made.pixels.shape == (*size, 3)
    assert np.abs(made.pixels.astype(int) - photo.pixels).max() <= 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no JPEG",
        ENCODED.data[: len(ENCODED.data) // 2],
        ENCODED.data[:20_000] + bytes(3000) + ENCODED.data[23_000:],
        jpeg.encode(np.zeros((4000, 4000, 3), np.uint8), QUALITY),
        progressive(PHOTO.pixels),
    ],
    ids=["empty", "other", "cut", "damaged", "larger than stated", "many scans"],
)
def test_what_no_client_of_ours_encodes_is_our_fault(data: bytes) -> None:
    """I1, I3: the photo was good, so it failed. It was not rejected, and it has not "no faces"."""
    with pytest.raises(DetectorFault) as caught:
        taken(replace(ENCODED, data=data))
    assert caught.value.failure is Failure.INTERNAL
    assert "client.wire" in caught.value.detail


@pytest.mark.parametrize(
    "change",
    [{"small_height": 20_000}, {"small_width": 0}, {"small_height": -1}, {"shape": (10_000, 10_000)}],
)
def test_a_size_beyond_the_tensor_is_refused_before_decoding(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stated size bounds what decoding costs, so it must fit a tensor of the detector."""
    monkeypatch.setattr(jpeg, "decode_ours", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageFault):
        taken(replace(ENCODED, **change))


def test_an_encoded_photo_counts_with_its_decoded_size() -> None:
    """It becomes that large in the detector, whatever it had on the way."""
    intake = ImageIntake(SETTINGS.model_copy(update={"max_queued_bytes": 2 * PHOTO.pixels.nbytes}))
    with intake.room() as take, intake.room() as other:
        take(ENCODED)
        other(ENCODED)
        with pytest.raises(DetectorFault):
            take(ENCODED)
