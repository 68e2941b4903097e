"""The way of a photo from its file to the tensor, hop by hop: copies of its pixels, and processor time.

python -m tests.benchmarks.copies [SECONDS] [--rounds N] [--quick]

Each hop calls the function or the class that a call goes through. A photo of 12 megapixels is read and made
small once; what travels is 640 x 640 pixels, 1.23 MB. To see whether a hop copies, the
benchmark changes the pixels before it, and looks at those after it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actors.face_model import FaceModel
from actors.faces import Detected, Outcome, Stamp, Times
from actors.guard import Guard
from actors.images import Limits, Pixels, prepare
from actors.settings import DetectorSettings
from cluster.connection.messages import Ask, Channel
from cluster.deployment.packed import (
    PackedCall,
    pack_call,
    pack_outcomes,
    unpack_call,
    unpack_outcomes,
)
from cluster.protocol.rows import Terms
from cluster.slabs import SlabPool, Slabs
from tests.benchmarks.large_photos import write_large_photos
from tests.benchmarks.report import arguments, machine, parsed, table
from tests.benchmarks.simulated_device import on_the_device
from tests.fakes import MODEL, golden_heads

_SIDE = 640
_MEGABYTES = _SIDE * _SIDE * 3 / 1e6


@dataclass
class Hop:
    """One step on a photo's way.

    Attributes:
        name: in the table.
        where: the process that does it.
        run: does it once; returns the pixels after it, if they are another array.
        before: the pixels before it; None where there are none.
        seconds: processor time that `run` reports by itself; None takes that of the whole `run`.
        copies: how often the pixels were copied, in words.
        costs_ms: processor time of each run.
    """

    name: str
    where: str
    run: Callable[[], Any]
    before: Pixels | None = None
    copies: str = "0"
    costs_ms: list[float] | None = None

    def measure(self, seconds: float) -> None:
        """Run for so long; notes the processor time of each run."""
        costs: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or not costs:
            begun = time.process_time()
            taken = self.run()
            costs.append((taken if isinstance(taken, float) else time.process_time() - begun) * 1000)
        self.costs_ms = [*(self.costs_ms or []), statistics.median(costs)]


def is_copied(before: Pixels, after: Pixels) -> bool:
    """Whether a change of the pixels before a hop does not reach those after it."""
    was = int(before[0, 0, 0])
    before[0, 0, 0] = was ^ 255
    seen = int(after[0, 0, 0])
    before[0, 0, 0] = was
    return seen == was


class _Pipe:
    """Both ends of the pipe between the backend and its driver process, in this process."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        spare_reading, spare_writing = os.pipe()
        self._backend: Channel[Any, Any] = Channel(os.fdopen(spare_reading, "rb"), os.fdopen(writing, "wb"))
        self._driver: Channel[Any, Any] = Channel(os.fdopen(reading, "rb"), os.fdopen(spare_writing, "wb"))

    def carry(self, photos: PackedCall) -> PackedCall:
        """Send a question, and return its photos as the other end has them."""
        question = Ask(1, "detect", ("FaceDetector", photos, Terms("interactive", 30.0)))
        # A pipe that nobody reads holds 64 KB.
        sender = threading.Thread(target=self._backend.write, args=(question,))
        sender.start()
        got: PackedCall = self._driver.read().arguments[1]
        sender.join()
        return got

    def close(self) -> None:
        self._backend.close()
        self._driver.close()


class _ProcessorAtRun:
    """A session that notes the processor time at which the device would begin."""

    provider = "DmlExecutionProvider"
    fixed_shapes = True

    def __init__(self) -> None:
        self.at = 0.0
        self._heads: dict[tuple[int, ...], Any] = {}

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> _ProcessorAtRun:
        return self

    def run(self, tensor: np.ndarray[Any, Any]) -> dict[str, Any]:
        self.at = time.process_time()
        if tensor.shape not in self._heads:
            self._heads[tensor.shape] = on_the_device(golden_heads(tensor))
        found: dict[str, Any] = self._heads[tensor.shape]
        return found


def hops(folder: Path, stack: ExitStack) -> list[Hop]:
    """Every hop, in a photo's order."""
    settings = DetectorSettings()
    limits = Limits(settings.max_image_pixels, settings.max_image_bytes)
    (file,) = write_large_photos(folder, 1)
    encoded = file.read_bytes()
    small = partial(prepare, shapes=settings.shapes, limits=limits, max_enlargement=settings.max_enlargement)
    pixels = np.random.default_rng(1).integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)
    photo = small(pixels)

    pool = SlabPool.make(_SIDE * _SIDE, 100_000_000)
    made = [
        Hop("read the file", "backend", file.read_bytes, copies="1, of the file"),
        Hop("decode, turn, shrink, hash", "backend", lambda: small(encoded), copies="decoded small"),
        Hop("of which the hash, and checks", "backend", lambda: small(pixels).pixels, pixels),
    ]
    inside, slabs = photo, None
    if pool is not None:
        stack.callback(pool.close)
        inside = replace(photo, pixels=pool.place(photo.pixels))
        slabs = Slabs.opened(pool.address)
        assert slabs is not None, "this process cannot open its own memory"

        def place_and_free() -> None:
            pool.free(pool.place(photo.pixels))

        made.append(Hop("into shared memory", "backend", place_and_free, copies="1"))
    pipe = _Pipe()
    stack.callback(pipe.close)
    call = pack_call([inside], pool)
    made += [
        Hop("pack the call", "backend", lambda: pack_call([inside], pool)),
        Hop("pipe", "backend → driver", lambda: pipe.carry(call)),
        Hop(
            "pipe without shared memory",
            "backend → driver",
            lambda: pipe.carry(pack_call([photo], None)),
            copies="4",
        ),
        Hop(
            "unpack the call",
            "detector",
            lambda: unpack_call(call.head, call.pixels, lambda address: slabs)[0].pixels,
            inside.pixels if slabs is not None else None,
        ),
    ]
    device = _ProcessorAtRun()
    model = FaceModel(MODEL, device, settings, Guard(1))
    model.warm_up()

    def assemble() -> float:
        begun = time.process_time()
        model.detect([photo])
        return device.at - begun

    made.append(Hop("into the tensor", "detector", assemble, copies="1"))
    stamp, times = Stamp("FaceDetector", "model"), Times(1.0, 1.0, 1.0)
    answer: list[Outcome] = [Detected(stamp=stamp, times=times, faces=(), width=_SIDE, height=_SIDE)]
    packed = pack_outcomes(answer)
    made.append(Hop("the outcome, there and back", "both", lambda: unpack_outcomes(pack_outcomes(answer))))
    assert unpack_outcomes(packed) == answer
    return made


def main() -> None:
    """Print the table."""
    given = parsed(arguments(__doc__, seconds=1.0, rounds=5))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        way = hops(Path(folder), stack)
        for hop in way:
            if hop.before is not None:
                hop.copies = "1" if is_copied(hop.before, hop.run()) else "0"
        for _ in range(given.rounds):
            for hop in way:
                hop.measure(given.seconds)
    rows = []
    for hop in way:
        cost_ms = statistics.median(hop.costs_ms or [])
        rows.append((hop.name, hop.where, hop.copies, f"{cost_ms:.3f}", f"{cost_ms / _MEGABYTES:.3f}"))
    heading = ("hop", "process", "copies of the pixels", "processor ms", "ms a megabyte of pixels")
    print(table(heading, rows))
    print(f"\n{machine()}; {given.rounds} rounds of {given.seconds:g} s each, medians.")
    print("Ray's own part, from driver to detector, is in `call_cost`; it carries no pixels on one machine.")


if __name__ == "__main__":
    main()
