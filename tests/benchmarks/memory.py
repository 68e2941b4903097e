"""Measures how fast the client's memory grows while it streams.

python -m tests.benchmarks.memory [NUM_PHOTOS]
"""

from __future__ import annotations

import sys
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil

from cluster import BlockingFaceClient
from cluster.settings import load_settings

PHOTOS = Path(__file__).parents[1] / "photos"


def main(num_photos: int = 10_000) -> None:
    """Print samples of the resident memory, and its slope over the last three quarters."""
    # A small tensor, so that 10,000 photos take minutes; the client's side is the same.
    settings = load_settings(detector={"input_size": 160})
    names = cycle(sorted(PHOTOS.glob("*.jpg")))
    process = psutil.Process()
    samples = []
    with BlockingFaceClient(settings) as client:
        for number, outcome in enumerate(client.stream(islice(names, num_photos)), 1):
            assert outcome.status == "detected", outcome
            if number % max(1, num_photos // 100) == 0:
                samples.append((number, process.memory_info().rss / 1e6))
                if len(samples) % 10 == 0:
                    print(f"{number:>6} photos: {samples[-1][1]:.1f} MB", flush=True)
    counts, megabytes = np.array(samples[len(samples) // 4 :]).T
    slope, _ = np.polyfit(counts, megabytes, 1)
    print(
        f"slope over the last three quarters: {slope * 1000 * 1000:.0f} KB per 1,000 photos, "
        f"{slope * (counts[-1] - counts[0]) / megabytes.mean():.3%} of the client's memory in all"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
