"""A detector that cannot read the backend's memory is sent the pixels, and no image is asked for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from actors.images import PreparedImage
from cluster.connection.handlers import Handlers
from cluster.deployment.packed import PackedCall, pack_call, pack_outcomes, unpack_call, unpack_terms
from cluster.protocol.rows import Terms
from cluster.settings import load_settings
from cluster.slabs import SlabPool

OUTCOMES = pack_outcomes([])


class FarDetector:
    """As Ray's handle of a detector on another machine: it answers only calls that bring their pixels."""

    def __init__(self) -> None:
        self.calls: list[tuple[Terms, list[Any] | None]] = []

    @property
    def answer(self) -> FarDetector:
        return self

    def options(self, name: str) -> FarDetector:
        assert name == "FaceDetector.detect"
        return self

    async def remote(self, terms: bytes, head: bytes, *pixels: Any) -> bytes | None:
        images = unpack_call(head, pixels[0], lambda address: None) if pixels else None
        self.calls.append((unpack_terms(terms), images))
        return None if images is None else OUTCOMES


@pytest.fixture
def pool() -> Iterator[SlabPool]:
    pool = SlabPool.make(32 * 32, 100_000)
    if pool is None:
        pytest.skip("this system shares no memory")
    yield pool
    pool.close()


def photo(pool: SlabPool, value: int) -> PreparedImage:
    pixels = pool.place(np.full((32, 32, 3), value, dtype=np.uint8))
    return PreparedImage(pixels, 32, 32, (32, 32), 1.0, str(value))


def detect(handlers: Handlers, photos: PackedCall) -> bytes:
    return asyncio.run(handlers.detect("FaceDetector", photos, Terms("bulk", 30.0, "trace")))


def test_a_far_detector_gets_the_pixels_at_once_from_the_second_call_on(pool: SlabPool) -> None:
    """Nothing was run when it had none, and the time that is left is counted from the beginning."""
    detector = FarDetector()
    handlers = Handlers(load_settings(), "head:6379", pool)
    handlers._handles = {"FaceDetector": detector}
    call = pack_call([photo(pool, 7), photo(pool, 8)], pool)
    assert call.pixels == []
    assert detect(handlers, call) == OUTCOMES
    (first, nothing), (second, images) = detector.calls
    assert nothing is None
    assert images is not None
    assert [int(each.pixels[31, 31, 2]) for each in images] == [7, 8]
    assert [each.digest for each in images] == ["7", "8"]
    assert (second.priority, second.trace) == ("bulk", "trace")
    assert second.deadline_s < first.deadline_s <= 30.0
    assert detect(handlers, call) == OUTCOMES
    assert len(detector.calls) == 3
    assert detector.calls[2][1] is not None
