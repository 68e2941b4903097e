"""How a client sends its photos: as pixels or as JPEGs, and what the CPU gets."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from actors.encoded_image import EncodedImage, SentImage
from actors.faces import Failure, Outcome
from actors.images import PreparedImage
from tests.unit.clients import Cpus, by_cpu, client_on, photos, seen
from tests.unit.fake_cluster import FakeCluster, detected, failed, health, lost
from tests.virtual_time import run

#: One call of pixels that is large enough to tell of a link.
LARGE = [np.full((640, 640, 3), 90, np.uint8)] * 8


class Watched(FakeCluster):
    """Remembers what it was sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[SentImage] = []

    def answer(self, images: Sequence[SentImage]) -> list[Outcome] | Exception:
        self.sent += images
        return super().answer(images)


@pytest.mark.parametrize(("wire", "kind"), [("pixels", PreparedImage), ("jpeg", EncodedImage)])
def test_photos_travel_as_the_setting_says(wire: str, kind: type) -> None:
    """The outcomes are the same, and the status says how they travelled."""
    cluster = Watched()

    async def story() -> None:
        async with client_on(cluster, client={"wire": wire}) as client:
            outcomes = await client.detect(photos(3))
            assert [each.as_dict()["width"] for each in outcomes] == [1, 2, 3]
            assert client.status().detectors[0].wire == wire

    run(story())
    assert {type(each) for each in cluster.sent} == {kind}


def test_a_photo_that_is_asked_for_again_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy detector must not cost the client's processor."""
    made: list[PreparedImage] = []
    encode = EncodedImage.of

    def counted(photo: PreparedImage) -> EncodedImage:
        made.append(photo)
        return encode(photo)

    monkeypatch.setattr(EncodedImage, "of", counted)
    answers = iter([failed(Failure.BUSY, retry_after_s=1.0), detected(1)])
    cluster = FakeCluster()
    cluster.script = lambda images: [next(answers)]

    async def story() -> None:
        async with client_on(cluster, client={"wire": "jpeg"}) as client:
            assert seen(await client.detect(photos(1))) == ["FaceDetector on a test"]

    run(story())
    assert len(made) == 1


def test_the_cpu_gets_the_pixels() -> None:
    """They are here still; a JPEG of them would be a detour."""
    cluster = FakeCluster()
    cluster.script = lambda images: lost()
    given: list[Any] = []

    def answer(image: PreparedImage) -> Outcome:
        given.append(image)
        return by_cpu(image.width)

    async def story() -> None:
        fallback = {"policy": "after_s", "after_s": 1.0}
        async with client_on(
            cluster, cpus=Cpus(answer), client={"wire": "jpeg"}, fallback=fallback
        ) as client:
            assert seen(await client.detect(photos(1))) == ["fallback on CPU"]

    run(story())
    assert [type(each) for each in given] == [PreparedImage]


@pytest.mark.parametrize(("host", "expected"), [("elsewhere", "jpeg"), (platform.node(), "pixels")])
def test_auto_finds_out_that_a_link_is_slow(host: str, expected: str) -> None:
    """After a few calls as pixels; a detector of the same machine always gets pixels."""
    cluster = Watched(seconds=5.0)
    cluster.healths = {name: health(host=host, shapes=((640, 640),)) for name in cluster.healths}

    async def story() -> None:
        async with client_on(cluster) as client:
            for _ in range(4):
                await client.detect(LARGE)
            seen_by_client = client.status().detectors[0]
            assert seen_by_client.wire == expected
            assert seen_by_client.link_mbit_s == pytest.approx(8 * 640 * 640 * 3 / 5 * 8 / 1e6, rel=0.1)

    run(story())
    assert type(cluster.sent[0]) is PreparedImage
