"""Calculates what 10 GPUs and 10 million photos need, and where the next limit is, from measured figures.

python -m tests.benchmarks.reckoning [SECONDS] [--gpus 10] [--photos 10000000] [--gpu-ms 2.0 0.5] [--quick]

Measured: processor time to make a photo of 12 megapixels small, and processor time of the client, the driver
process and the detector for an image in calls of eight. Assumed: the GPU's speed, a run of 32 images.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from actors.images import Limits, prepare
from actors.settings import DetectorSettings
from tests.benchmarks.large_photos import write_large_photos
from tests.benchmarks.loads import Figures, Load
from tests.benchmarks.report import arguments, in_turns, machine, median, parsed, ready, table
from tests.benchmarks.sides.ours import ours, simulated

_BATCH = 32
_PER_CALL = 8
#: Pixels of a photo of 4:3, as they travel.
_WIRE_MB = 640 * 480 * 3 / 1e6
_GIGABIT_MB = 118.0
_CORES = (2, 8, 16, 32, 64)


@dataclass(frozen=True)
class Costs:
    """What one photo costs.

    Attributes:
        prepare_ms: processor time to make it small.
        client_ms, driver_ms, detector_ms: processor time of those processes for an image.
        file_mb: size of the encoded photo.
        gpu_per_s: images a second of one GPU.
    """

    prepare_ms: float
    client_ms: float
    driver_ms: float
    detector_ms: float
    file_mb: float
    gpu_per_s: float

    @property
    def backend_ms(self) -> float:
        """Processor time of the backend's machine for a photo."""
        return self.prepare_ms + self.client_ms + self.driver_ms


def measured(seconds: float, rounds: int, gpu_ms: tuple[float, float], *, quick: bool) -> Costs:
    """Measure what one photo costs."""
    settings = DetectorSettings()
    limits = Limits(settings.max_image_pixels, settings.max_image_bytes)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        encoded = [path.read_bytes() for path in write_large_photos(folder, 7)]
        small = partial(
            prepare, shapes=settings.shapes, limits=limits, max_enlargement=settings.max_enlargement
        )
        small(encoded[0])
        begun, num, until = time.process_time(), 0, time.perf_counter() + seconds
        while time.perf_counter() < until or num < len(encoded):
            small(encoded[num % len(encoded)])
            num += 1
        prepare_ms = (time.process_time() - begun) * 1000 / num
        with ours("ours", simulated(folder, 640)) as side:
            ready([side], quick=quick)
            found = in_turns([side], Load(8, _PER_CALL, 640, seconds=seconds), rounds)["ours"]

    def cost_ms(process: str) -> float:
        def of_an_image(figures: Figures) -> float:
            return 1000 * figures.processor_s.get(process, 0.0) / figures.num_images

        return median(found, of_an_image)

    run_ms, image_ms = gpu_ms
    return Costs(
        prepare_ms,
        cost_ms("client"),
        cost_ms("driver process"),
        cost_ms("detector"),
        sum(map(len, encoded)) / len(encoded) / 1e6,
        1000 * _BATCH / (run_ms + image_ms * _BATCH),
    )


def main() -> None:
    """Print the figures, what follows from them, and the limit."""
    parser = arguments(__doc__)
    parser.add_argument("--gpus", type=int, default=10)
    parser.add_argument("--photos", type=int, default=10_000_000)
    parser.add_argument("--gpu-ms", type=float, nargs=2, default=(2.0, 0.5), help="a run, and each image")
    given = parsed(parser)
    costs = measured(given.seconds, given.rounds, tuple(given.gpu_ms), quick=given.quick)
    rows = [
        ("processor time to make a photo of 12 megapixels small", f"{costs.prepare_ms:.1f} ms"),
        ("processor time of the client for an image", f"{costs.client_ms:.2f} ms"),
        ("processor time of the driver process for an image", f"{costs.driver_ms:.2f} ms"),
        ("processor time of the detector for an image", f"{costs.detector_ms:.2f} ms"),
        ("the encoded photo", f"{costs.file_mb:.2f} MB"),
        ("its pixels as they travel", f"{_WIRE_MB:.2f} MB"),
        ("a GPU (assumed)", f"{costs.gpu_per_s:,.0f} images/s"),
    ]
    print(table(("figure", "value"), rows))
    print(f"\n{machine()}; {given.rounds} rounds of {given.seconds:g} s each, medians.\n")
    whole = given.gpus * costs.gpu_per_s
    hours = given.photos / whole / 3600
    rows = [
        ("time for all photos", f"{hours:.2f} h, at {whole:,.0f} photos/s"),
        ("cores that make photos small", f"{whole * costs.prepare_ms / 1000:,.0f}"),
        ("cores of clients", f"{whole * costs.client_ms / 1000:,.1f}"),
        ("cores of driver processes", f"{whole * costs.driver_ms / 1000:,.1f}"),
        ("cores of each GPU's machine", f"{costs.gpu_per_s * costs.detector_ms / 1000:.1f}"),
        ("read from disks", f"{whole * costs.file_mb / 1000:.1f} GB/s"),
        ("each GPU's link, pixels", f"{costs.gpu_per_s * _WIRE_MB / _GIGABIT_MB:.1f} gigabit links"),
        ("the backend's link, pixels", f"{whole * _WIRE_MB / _GIGABIT_MB:.0f} gigabit links"),
    ]
    print(table((f"to keep {given.gpus} GPUs busy", "needed"), rows))
    print()
    by_cores = []
    for cores in _CORES:
        per_s = 1000 * cores / costs.backend_ms
        hours = given.photos / min(per_s, whole) / 3600
        by_cores.append((cores, f"{per_s:,.0f}", f"{per_s / costs.gpu_per_s:.2f}", f"{hours:,.1f} h"))
    heading = ("cores of backends", "photos/s", "GPUs that they keep busy", f"{given.photos:,} photos")
    print(table(heading, by_cores))
    # Python runs one thread at a time, so a process of ours has no more than one core for its own part.
    limits = {
        "a client process": 1000 / costs.client_ms,
        "a driver process": 1000 / costs.driver_ms,
        "a detector process": 1000 / costs.detector_ms,
        "a gigabit link, pixels": _GIGABIT_MB / _WIRE_MB,
        "a core that makes photos small": 1000 / costs.prepare_ms,
    }
    print()
    rows = [(name, f"{per_s:,.0f}") for name, per_s in sorted(limits.items(), key=lambda each: each[1])]
    print(table(("the most that one of these carries", "photos/s"), rows))
    print(f"\nFirst limit: {rows[0][0]}, {rows[0][1]} photos/s. The next one: {rows[1][0]}, {rows[1][1]}.")


if __name__ == "__main__":
    main()
