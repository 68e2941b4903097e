"""Files that nobody made on purpose: whatever is in them, they cost no more than is allowed, and harm nobody.

A run takes about a minute. `RAYFACE_TEST_FUZZ_EXAMPLES=100000` makes it longer, and other at each run.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from functools import cache

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image

from actors.decode_worker import DecodeWorker
from actors.errors import ImageFault
from actors.images import PreparedImage
from actors.limits import Limits
from actors.settings import DetectorSettings
from actors.sole_worker import SoleWorker
from tests.corpus.maker import PHOTOS, writers
from tests.corpus.verdict import STILL_WRONG

pytestmark = pytest.mark.live

_EXAMPLES = os.environ.get("RAYFACE_TEST_FUZZ_EXAMPLES")
_FUZZ = settings(
    max_examples=int(_EXAMPLES or 4000),
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
_DETECTOR = DetectorSettings()
_LIMITS = Limits(
    _DETECTOR.max_image_pixels, _DETECTOR.max_image_bytes, _DETECTOR.max_decode_bytes, max_decode_s=5.0
)
#: Of the worker, with the libraries that it has loaded.
_MAX_RESIDENT_BYTES = 1_100_000_000
#: Processor time counts whole seconds, and the worker begins and ends too.
_MAX_WALL_S = 4 * _LIMITS.max_decode_s
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@cache
def seeds() -> Sequence[bytes]:
    """A small picture in every format and kind that is read."""
    upright = Image.open(PHOTOS / "grace_hopper.jpg").convert("RGB").resize((128, 150))
    return [each.write(upright) for each in writers()]


class Workers:
    """A worker at a time; remembers how much memory the last one took."""

    def __init__(self) -> None:
        self._sole = SoleWorker(self._started)
        self._last: DecodeWorker | None = None

    def prepared(self, data: bytes) -> PreparedImage | ImageFault:
        """What becomes of a file; every other error is a failure of ours."""
        begun = time.monotonic()
        try:
            return self._sole.prepare_apart(data, _DETECTOR.shapes, _LIMITS, _DETECTOR.max_enlargement)
        except ImageFault as fault:
            return fault
        finally:
            assert time.monotonic() - begun < _MAX_WALL_S
            if self._last is not None and self._last.is_alive:
                assert psutil.Process(self._last.pid).memory_info().rss < _MAX_RESIDENT_BYTES

    def end(self) -> None:
        """End the worker."""
        if self._last is not None:
            self._last.end()

    def _started(self, max_decode_bytes: int) -> DecodeWorker:
        self._last = DecodeWorker.start(max_decode_bytes)
        return self._last


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.end()


@some.composite
def spoilt_files(draw: some.DrawFn) -> bytes:
    """A picture of any format with a few changes: bytes, numbers, holes, other files, an early end."""
    data = bytearray(draw(some.sampled_from(seeds())))
    for _ in range(draw(some.integers(1, 4))):
        # Headers matter most, and are short.
        at = draw(some.one_of(some.integers(0, min(400, len(data))), some.integers(0, len(data))))
        change = draw(some.sampled_from(["byte", "number", "hole", "noise", "cut", "out", "in", "splice"]))
        size = draw(some.sampled_from([1, 2, 16, 64, 512, 4096]))
        if change == "byte":
            data[at : at + 1] = bytes([draw(some.integers(0, 255))])
        elif change == "number":
            width = draw(some.sampled_from([1, 2, 4]))
            order = draw(some.sampled_from(["big", "little"]))
            number = draw(some.sampled_from(_EXTREMES)) % 256**width
            data[at : at + width] = number.to_bytes(width, "big" if order == "big" else "little")
        elif change == "hole":
            data[at : at + size] = bytes([draw(some.sampled_from([0, 0x55, 0xFF]))]) * size
        elif change == "noise":
            data[at : at + size] = random.Random(draw(some.integers(0, 999))).randbytes(size)
        elif change == "cut":
            del data[at:]
        elif change == "out":
            del data[at : at + size]
        elif change == "in":
            data[at:at] = data[: 4 * size]
        else:
            other = draw(some.sampled_from(seeds()))
            data[at:] = other[at:]
    return bytes(data)


@_FUZZ
@given(data=spoilt_files())
def test_a_spoilt_file_is_a_photo_or_is_refused(workers: Workers, data: bytes) -> None:
    workers.prepared(data)


@settings(parent=_FUZZ, max_examples=_FUZZ.max_examples // 4)
@given(data=some.binary(max_size=3000), kind=some.sampled_from([0, 4, 12, 40]), seed=some.integers(0, 99))
def test_any_bytes_behind_the_beginning_of_a_picture_are_refused_or_read(
    workers: Workers, data: bytes, kind: int, seed: int
) -> None:
    workers.prepared(seeds()[seed % len(seeds())][:kind] + data)


@settings(parent=_FUZZ, max_examples=_FUZZ.max_examples // 4)
@given(
    seed=some.integers(0, 99),
    begin=some.floats(0.2, 0.6),
    share=some.floats(0.1, 0.3),
    fill=some.sampled_from([0, 0xFF]),
)
def test_a_large_hole_is_never_no_faces(
    workers: Workers, seed: int, begin: float, share: float, fill: int
) -> None:
    """In every format that shows each such hole."""
    numbers = [
        number
        for number, each in enumerate(writers())
        if each.shows_holes and each.first_picture == 100 and (each.kind, "hole") not in STILL_WRONG
    ]
    data = seeds()[numbers[seed % len(numbers)]]
    at, size = int(len(data) * begin), int(len(data) * share)
    found = workers.prepared(data[:at] + bytes([fill]) * size + data[at + size :])
    assert isinstance(found, ImageFault) or found.decoded_share < 1.0
