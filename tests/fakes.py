"""A device that does what a test tells it to: it finds the golden face, lies, fails, or waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actors import golden
from actors.faces import Box, Face
from actors.families import FAMILIES
from actors.images import PreparedImage
from actors.models import ReadyModel

Heads = dict[str, np.ndarray[Any, Any]]
MODEL = ReadyModel("fake", FAMILIES["centerface"], "0" * 64, Path("fake.onnx"))


def golden_heads(tensor: np.ndarray[Any, Any]) -> Heads:
    """CenterFace's heads for the golden face in every image, at the golden photo's scale in that tensor."""
    num, height, width = tensor.shape[:3]
    scale = min(height / 320, width / 320, 2.0)
    heads = {
        name: np.zeros((num, channels, height // 4, width // 4), dtype=np.float32)
        for name, channels in (("heat", 1), ("scale", 2), ("offset", 2), ("landmarks", 10))
    }
    x1, y1, x2, y2 = (value * scale for value in golden.BOX)
    for slot in range(num):
        heads_for(heads, slot, (x1, y1, x2, y2), [(px * scale, py * scale) for px, py in golden.LANDMARKS])
    return heads


def heads_for(heads: Heads, slot: int, box: Box, landmarks: Sequence[tuple[float, float]]) -> None:
    """Write one face, in pixels of the tensor, into the heads of one slot; it replaces what stood there."""
    x1, y1, x2, y2 = box
    x, y = (x1 + x2) / 8, (y1 + y2) / 8
    at = (slot, slice(None), int(y - 0.5), int(x - 0.5))
    for head in heads.values():
        head[slot] = 0
    heads["heat"][at] = 0.9
    heads["scale"][at] = np.log([(y2 - y1) / 4, (x2 - x1) / 4])
    heads["offset"][at] = [y - 0.5 - int(y - 0.5), x - 0.5 - int(x - 0.5)]
    heads["landmarks"][at] = [
        value for px, py in landmarks for value in ((py - y1) / (y2 - y1), (px - x1) / (x2 - x1))
    ]


@dataclass
class FakeDevice:
    """Opens sessions on itself. A test may replace `answer` at any time; `run` raises what `answer` raises.

    Attributes:
        runs: the number of images of each run so far.
        most_at_once: the greatest number of runs that were under way together.
    """

    answer: Callable[[np.ndarray[Any, Any]], Heads] = golden_heads
    fixed_shapes: bool = False
    provider: str = "CPUExecutionProvider"
    runs: list[int] = field(default_factory=list)
    opened: list[tuple[int, int, int] | None] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> FakeDevice:
        """One more session on this device."""
        self.opened.append(bucket)
        return self

    def run(self, tensor: np.ndarray[Any, Any]) -> Heads:
        """Call `answer`, and count the run."""
        with self._lock:
            self.runs.append(len(tensor))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.answer(tensor)
        finally:
            with self._lock:
                self._at_once -= 1


def prepared(mark: int = 0, shape: tuple[int, int] = (640, 640)) -> PreparedImage:
    """A tiny photo that carries a number, to tell it from its neighbours."""
    pixels = np.full((8, 8, 3), mark % 256, dtype=np.uint8)
    return PreparedImage(pixels, 80, 80 + mark, shape, 0.5, f"image {mark}")


def face(mark: float) -> Face:
    """A face that carries a number."""
    return Face((0.0, 0.0, mark, mark), 0.9, ((mark, mark),) * 5)
