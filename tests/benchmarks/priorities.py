"""A person's wait while a scan runs at full load, compared with the wait alone; on a simulated GPU.

python -m tests.benchmarks.priorities [NUM_ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from cluster import BlockingFaceClient
from tests.chaos.device import FOLDER_VARIABLE, OPENER, notes, tell
from tests.chaos.photos import photo
from tests.chaos.report import percentile

HERE = Path(__file__).parents[2]
_NUM_PHOTOS = 60
_RUN_S, _IMAGE_S = 0.02, 0.004
_NUMBERS = count(1)


def _waits(client: BlockingFaceClient) -> list[float]:
    """The waits of a person who asks for one photo after another, in seconds."""
    waits = []
    for _ in range(_NUM_PHOTOS):
        encoded = photo(next(_NUMBERS))
        begun = time.perf_counter()
        (outcome,) = client.detect([encoded], deadline_s=30.0)
        waits.append(time.perf_counter() - begun)
        assert outcome.status == "detected", outcome
        time.sleep(0.02)
    return waits


def main(num_rounds: int = 3) -> None:
    """Print both 95th percentiles, the batches that ran meanwhile, and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        device = Path(folder)
        os.environ |= {
            FOLDER_VARIABLE: folder,
            "RAYFACE_DETECTOR__OPENER": OPENER,
            "RAYFACE_DETECTOR__INPUT_SIZE": "320",
            "RAYFACE_DETECTOR__PROVIDER": "directml",
            "RAYFACE_DETECTOR__DEVICE_ID": "78",
            "PYTHONPATH": str(HERE),
        }
        tell(device, run_s=_RUN_S, image_s=_IMAGE_S)
        with BlockingFaceClient() as client:
            ratios = [_round(client, device, number) for number in range(1, num_rounds + 1)]
    print(f"median of {num_rounds}: {statistics.median(ratios):.2f} (wanted: at most 2)")


def _round(client: BlockingFaceClient, device: Path, number: int) -> float:
    alone = percentile(_waits(client), 0.95)
    over = threading.Event()
    encoded = [photo(next(_NUMBERS)) for _ in range(64)]

    def scan() -> None:
        while not over.is_set():
            client.detect(encoded, priority="bulk", deadline_s=60.0)

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(scan)
        time.sleep(2.0)
        begun = len(notes(device))
        beside = percentile(_waits(client), 0.95)
        runs = [len(note["numbers"]) for note in notes(device)[begun:] if note["event"] == "ran"]
        over.set()
    batch = _RUN_S + _IMAGE_S * max(runs)
    ratio = (beside - batch) / alone
    print(
        f"round {number}: p95 alone {alone * 1000:.0f} ms, beside a scan {beside * 1000:.0f} ms, "
        f"its largest batch {max(runs)} images, {batch * 1000:.0f} ms: (beside - batch) / alone = {ratio:.2f}"
    )
    return ratio


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
