"""What the ends of the graph save: bytes that leave the session, and processor time of decoding a batch.

python -m tests.benchmarks.ends [SECONDS] [--rounds N] [--quick] [--model FILE ...] [--size SIDE]

The same photos run through two graphs of one model, on the CPU. One gives the plain heads, the other the best
candidates of each image. "Decode" is everything that follows a run: checks, candidates and suppression. The
two take turns for SECONDS, N turns at least. The figures are medians of processor time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from actors.decoding import nms
from actors.families import Family
from actors.graph import prepare_graph, recognise_file
from actors.heads import Heads, dead_images
from actors.images import Limits, prepare
from actors.models import CATALOGUE, fetch
from actors.session import OnnxSessionOpener, Session, Tensor
from tests.benchmarks.report import arguments, machine, parsed, table

PHOTOS = Path(__file__).parents[1] / "photos"
_BATCHES = (1, 8, 32)


def _decode(family: Family, heads: Heads, num_images: int, side: int) -> list[int]:
    """The number of faces of each image, by the steps that a detector takes after a run."""
    found = family.decode(heads, side, side, family.score_threshold)
    assert dead_images(heads, num_images) == []
    return [len(nms(candidates, family.nms_threshold, 1000).scores) for candidates in found]


def _batch(num_images: int, side: int) -> Tensor:
    tensor = np.zeros((num_images, side, side, 3), dtype=np.uint8)
    paths = sorted(PHOTOS.glob("*.jpg"))
    for slot in range(num_images):
        pixels = prepare(paths[slot % len(paths)], [(side, side)], Limits(10**9, 10**9), 2.0).pixels
        tensor[slot, : pixels.shape[0], : pixels.shape[1]] = pixels
    return tensor


class _Way:
    """One of the two graphs, and what its rounds cost: milliseconds of processor time."""

    def __init__(self, family: Family, session: Session) -> None:
        self._family = family
        self._session = session
        self.run_ms: list[float] = []
        self.decode_ms: list[float] = []
        self.num_bytes = 0

    def round(self, tensor: Tensor) -> list[int]:
        begun = time.process_time()
        heads = self._session.run(tensor)
        ran = time.process_time()
        faces = _decode(self._family, heads, len(tensor), tensor.shape[1])
        self.run_ms.append((ran - begun) * 1000)
        self.decode_ms.append((time.process_time() - ran) * 1000)
        self.num_bytes = sum(head.nbytes for head in heads.values()) // len(tensor)
        return faces


def _row(plain: _Way, ends: _Way, tensor: Tensor, seconds: float, rounds: int) -> list[str]:
    until = time.perf_counter() + seconds
    number = 0
    # The first turn warms up.
    while number <= rounds or time.perf_counter() < until:
        # What runs second may find a warmer cache, so they change places.
        faces = [way.round(tensor) for way in ((plain, ends) if number % 2 else (ends, plain))]
        assert faces[0] == faces[1], faces
        number += 1
    before, after = statistics.median(plain.decode_ms[1:]), statistics.median(ends.decode_ms[1:])
    run = statistics.median(ends.run_ms[1:]) / statistics.median(plain.run_ms[1:])
    return [
        f"{len(tensor)}",
        f"{plain.num_bytes / 1000:,.0f}",
        f"{ends.num_bytes / 1000:,.0f}",
        f"{plain.num_bytes / ends.num_bytes:.0f}",
        f"{before:.2f}",
        f"{after:.2f}",
        f"{before / after:.1f}",
        f"{run:.3f}",
    ]


_HEADING = (
    "model",
    "images a batch",
    "KB an image: plain",
    "ends",
    "ratio",
    "decode, ms a batch: plain",
    "ends",
    "ratio",
    "run on a CPU, ends : plain",
)


def main() -> None:
    """Print the table, with a row for each model and batch size."""
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--model", nargs="+", default=["centerface"], help="names or .onnx files")
    parser.add_argument("--size", type=int, default=640, help="side of the tensor in pixels")
    given = parsed(parser)
    rows: list[list[str]] = []
    for model in given.model:
        source = fetch(CATALOGUE[model]) if model in CATALOGUE else Path(model)
        family, _ = recognise_file(source)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("plain.onnx", "ends.onnx")]
            for path in paths:
                prepare_graph(source, path, with_ends=path is paths[1])
            sessions = [OnnxSessionOpener("cpu").open(path, None) for path in paths]
        for num_images in _BATCHES:
            plain, ends = (_Way(family, session) for session in sessions)
            tensor = _batch(num_images, given.size)
            rows.append([family.name, *_row(plain, ends, tensor, given.seconds, given.rounds)])
    print(table(_HEADING, rows))
    print(f"\nTensors of {given.size} x {given.size} pixels; {machine()}.")


if __name__ == "__main__":
    main()
