"""Images a second over a slow link: as pixels, as JPEGs, and as `auto` chooses. Needs root (namespaces).

    python -m tests.benchmarks.link [--mbit 100] [--delay-ms 20] [--images 128] [--rounds 3]

Both machines are namespaces of this one, with a cable in user space between them; the GPU is simulated. The
ways take turns, each with a backend of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.report import machine, table, verdict
from tests.hosts.link_lab import link_lab
from tests.hosts.machines import Machines

_WIRES = ("pixels", "jpeg", "auto")
#: Images a second, as a multiple of those of pixels.
_WANTED = 4


def main() -> None:
    """Print images a second of each way, and the ratio to pixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    machines = Machines()
    speeds: dict[str, list[float]] = {wire: [] for wire in _WIRES}
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            link_lab(machines, Path(folder), given.mbit, given.delay_ms) as lab,
        ):
            for _ in range(given.rounds):
                for wire in _WIRES:
                    speeds[wire].append(float(lab.images_per_s(wire, given.images)["images_per_s"]))
    finally:
        machines.close()
    ratios = {
        wire: median(one / pixels for one, pixels in zip(speeds[wire], speeds["pixels"], strict=True))
        for wire in _WIRES
    }
    rows = [(wire, f"{median(speeds[wire]):.1f}", f"{ratios[wire]:.2f}") for wire in _WIRES]
    print(table(("wire", "images/s", "times pixels"), rows))
    cable = f"{given.mbit:g} Mbit/s, {given.delay_ms:g} ms each way"
    print(f"\n{cable}; {given.images} images, medians of {given.rounds} rounds; {machine()}")
    for wire in ("jpeg", "auto"):
        ratio = ratios[wire]
        verdict(f"{wire}, times pixels", f"≥ {_WANTED:.2f}", f"{ratio:.2f}", ratio >= _WANTED)


if __name__ == "__main__":
    main()
