"""The images of a call, and when they travel in more than one question."""

from __future__ import annotations

import numpy as np
import pytest

from actors.faces import Failed, Failure, Priority, Stamp
from actors.images import PreparedImage
from cluster.client.call import MAX_QUESTION_BYTES, Call, CallImage, in_questions
from cluster.node.contract import COMMON
from cluster.settings import load_settings
from tests.unit.clients import client_on, photos
from tests.unit.fake_cluster import FakeCluster, detected, health
from tests.virtual_time import run


def prepared(size: int) -> CallImage:
    """A photo that fills a square tensor; its memory is never touched."""
    pixels = np.broadcast_to(np.zeros(1, np.uint8), (size, size, 3))
    return CallImage(b"", photo=PreparedImage(pixels, size, size, (size, size), 0.0, "digest"))


def test_a_call_keeps_what_is_known_of_each_image_in_the_callers_order() -> None:
    call = Call.of([b"1", b"2", b"3"], Priority.BULK, 5.0)
    assert (call.prepared, call.outcomes) == ([], [])
    first, second, third = call.images
    third.photo = prepared(8).photo
    second.outcome = Failed(stamp=Stamp("client"), reason=Failure.BUSY, detail="")
    assert call.prepared == [third]
    first.outcome, third.outcome = detected(1), detected(3)
    assert call.outcomes == [first.outcome, second.outcome, third.outcome]
    call.settle(detected(9))
    assert call.outcomes == [detected(9)] * 3


def test_with_the_default_settings_a_call_is_one_question() -> None:
    """This holds however large the photos are."""
    settings = load_settings()
    num = settings.client.images_per_call
    assert len(in_questions([prepared(settings.detector.input_size)] * num)) == 1


@pytest.mark.parametrize(
    ("num", "size", "lengths"),
    [
        (16, 640, [8, 8]),
        (17, 640, [8, 8, 1]),
        (256, 640, [8] * 32),
        (8, 1280, [2, 2, 2, 2]),
        # One photo alone is larger than the limit; it is sent all the same.
        (3, 4096, [1, 1, 1]),
        (0, 640, []),
    ],
)
def test_larger_settings_need_several_questions(num: int, size: int, lengths: list[int]) -> None:
    images = [prepared(size) for _ in range(num)]
    questions = in_questions(images)
    assert [len(each) for each in questions] == lengths
    assert [image for each in questions for image in each] == images


def test_a_question_travels_inside_rays_call() -> None:
    """Ray would send a larger question through its object store."""
    assert int(COMMON["RAY_max_direct_call_object_size"]) > 1.1 * MAX_QUESTION_BYTES


def test_a_client_divides_a_call_that_is_too_large() -> None:
    """The client puts the answers together in the order of the images."""

    async def story() -> None:
        cluster = FakeCluster()
        cluster.healths["FaceDetector"] = health(shapes=((1600, 1600),))
        settings = {"images_per_call": 3}
        enlarged = {"max_enlargement": 100.0}
        async with client_on(cluster, client=settings, detector=enlarged) as client:
            outcomes = await client.detect([photo.repeat(100, axis=0) for photo in photos(3)])
        assert [each.as_dict()["width"] for each in outcomes] == [1, 2, 3]
        assert cluster.calls == [3]

    run(story())
