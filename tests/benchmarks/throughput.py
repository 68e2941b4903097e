"""Compares FaceClient.stream with a bare loop: the same functions and threads, without Ray. Rounds alternate.

python -m tests.benchmarks.throughput [NUM_PHOTOS] [NUM_ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from actors.face_model import FaceModel
from actors.guard import Guard
from actors.images import Limits, prepare
from actors.intake import num_cores
from actors.models import ready_model
from actors.session import OnnxSessionOpener
from cluster import BlockingFaceClient, load_settings
from tests.benchmarks.large_photos import write_large_photos


def main(num_photos: int = 200, num_rounds: int = 3) -> None:
    """Print the photos per second of both, and their ratio."""
    settings = load_settings().detector
    limits = Limits(settings.max_image_pixels, settings.max_image_bytes)
    model = FaceModel(ready_model(settings), OnnxSessionOpener("cpu"), settings, Guard(num_cores()))
    model.warm_up()

    def bare(path: Path) -> int:
        return len(model.detect([prepare(path, settings.shapes, limits, settings.max_enlargement)])[0])

    ratios = []
    with tempfile.TemporaryDirectory() as folder, BlockingFaceClient() as client:
        paths = write_large_photos(Path(folder), num_photos)
        print(f"{num_photos} photos of 12 megapixels, {num_cores()} threads")
        for number in range(num_rounds):
            begun = time.perf_counter()
            with ThreadPoolExecutor(num_cores()) as threads:
                num_bare = sum(threads.map(bare, paths))
            middle = time.perf_counter()
            num_ours = sum(len(outcome.as_dict()["faces"] or ()) for outcome in client.stream(paths))
            ended = time.perf_counter()
            assert num_bare == num_ours, (num_bare, num_ours)
            ratios.append((middle - begun) / (ended - middle))
            print(
                f"round {number + 1}: bare loop {num_photos / (middle - begun):.1f}/s, "
                f"stream {num_photos / (ended - middle):.1f}/s, ratio {ratios[-1]:.3f}, {num_ours} faces"
            )
    print(f"stream : bare loop, median of {num_rounds} = {statistics.median(ratios):.3f} (wanted: 0.85)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
