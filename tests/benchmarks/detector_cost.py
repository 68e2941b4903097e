"""Processor time of a detector, a call and an image: `python -m tests.benchmarks.detector_cost`.

A `FaceDetector` in this process, without Ray, on a simulated GPU that computes nothing: its runs sleep, and
give the same heads each time. So what is left is the cost of the detector's own steps: check, queue,
assemble, record, decode, answer. Images are prepared pixels. Prints a row for each load: microseconds of this
process's processor time for a call and for an image, the share of time that the device ran, how full the
batches were, and images a second.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from actors.face_detector import FaceDetector, start_detector
from actors.faces import Detected, State
from actors.images import Limits, PreparedImage, prepare
from actors.settings import DetectorSettings
from tests.fakes import Heads, golden_heads

_LIMITS = Limits(10**8, 10**8)
#: Concurrent calls, images a call, side of the tensor in pixels.
_LOADS = ((1, 1, 160), (1, 8, 160), (8, 8, 160), (64, 1, 160), (8, 8, 640), (64, 1, 640))


@dataclass
class SimulatedGpu:
    """Opens sessions on itself; a run sleeps `start_ms` + `image_ms` for each slot, one run at a time."""

    start_ms: float = 2.0
    image_ms: float = 0.5
    fixed_shapes: bool = True
    provider: str = "DmlExecutionProvider"
    busy_s: float = 0.0
    slots: Counter[int] = field(default_factory=Counter)
    _heads: dict[tuple[int, ...], Heads] = field(default_factory=dict)

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> SimulatedGpu:
        return self

    def run(self, tensor: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Heads:
        if tensor.shape not in self._heads:
            self._heads[tensor.shape] = golden_heads(tensor)
        begun = time.perf_counter()
        time.sleep((self.start_ms + self.image_ms * len(tensor)) / 1000)
        self.busy_s += time.perf_counter() - begun
        self.slots[len(tensor)] += 1
        return self._heads[tensor.shape]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _images(side: int) -> list[PreparedImage]:
    random = np.random.default_rng(1)
    shapes = DetectorSettings(input_size=side).shapes
    made = (random.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(64))
    return [prepare(pixels, shapes, _LIMITS, 2.0) for pixels in made]


async def _load(
    detector: FaceDetector, gpu: SimulatedGpu, load: tuple[int, int, int], seconds: float
) -> dict[str, object]:
    num_callers, per_call, side = load
    images = _images(side)
    await detector.detect(images[:per_call])
    num_calls = 0
    before_s, busy_s, slots, begun = _cpu_s(), gpu.busy_s, gpu.slots.copy(), time.perf_counter()

    async def caller(at: int) -> None:
        nonlocal num_calls
        while time.perf_counter() - begun < seconds:
            asked = [images[(at + each) % len(images)] for each in range(per_call)]
            outcomes = await detector.detect(asked, deadline_s=30.0)
            if not all(isinstance(each, Detected) for each in outcomes):
                raise RuntimeError(f"An image got no faces: {outcomes}")
            num_calls += 1
            at += per_call

    await asyncio.gather(*(caller(each * per_call) for each in range(num_callers)))
    took_s, used_s = time.perf_counter() - begun, _cpu_s() - before_s
    ran = gpu.slots - slots
    num_images = num_calls * per_call
    return {
        "callers": num_callers,
        "images a call": per_call,
        "side": side,
        "us a call": f"{used_s / num_calls * 1e6:.0f}",
        "us an image": f"{used_s / num_images * 1e6:.0f}",
        "busy": f"{(gpu.busy_s - busy_s) / took_s:.3f}",
        "fill": f"{num_images / sum(size * num for size, num in ran.items()):.3f}",
        "images/s": f"{num_images / took_s:.0f}",
        "runs by size": dict(sorted(ran.items())),
    }


async def _measure(seconds: float, free: bool) -> None:
    header = False
    for load in _LOADS:
        gpu = SimulatedGpu(0.0, 0.0) if free else SimulatedGpu()
        settings = DetectorSettings(provider="directml", exclusive=False, input_size=load[2])
        with tempfile.TemporaryDirectory() as folder:
            # As in a cluster: the device's images are recorded, and runs are watched.
            detector = start_detector("FaceDetector", settings, gpu, records=Path(folder), end=sys.exit)
            health = await detector.health(wait_s=60.0)
            if health.state is not State.READY:
                raise RuntimeError(f"The detector did not start: {health.detail}")
            row = await _load(detector, gpu, load, seconds)
            await detector.drain()
        if not header:
            print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
            header = True
        print("| " + " | ".join(str(each) for each in row.values()) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds for each load")
    parser.add_argument("--free", action="store_true", help="runs take no time; only processor time counts")
    chosen = parser.parse_args()
    asyncio.run(_measure(chosen.seconds, chosen.free))


if __name__ == "__main__":
    main()
