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

from tests.hosts.link_lab import link_lab
from tests.hosts.machines import Machines

_WIRES = ("pixels", "jpeg", "auto")


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
    print(f"{given.mbit:g} Mbit/s, {given.delay_ms:g} ms each way, medians of {given.rounds} rounds")
    for wire in _WIRES:
        ratios = [one / pixels for one, pixels in zip(speeds[wire], speeds["pixels"], strict=True)]
        print(f"  {wire:<8}{median(speeds[wire]):7.1f} images/s{median(ratios):7.2f} times pixels")
    print("wanted: jpeg at least 4 times pixels")


if __name__ == "__main__":
    main()
