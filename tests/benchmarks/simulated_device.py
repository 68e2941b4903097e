"""A simulated GPU for benchmarks: a run sleeps and leaves the cores free, so that only our own cost shows.

The setting `detector.opener = "tests.benchmarks.simulated_device:SleepingOpener"` selects it. It finds the
golden face in each image. The file in RAYFACE_TEST_GAUGE holds what it has done so far (`Gauge`).
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from actors.heads import CHECK, TOP
from tests.benchmarks.heartbeat import beat_in_every_loop
from tests.fakes import golden_heads

OPENER = "tests.benchmarks.simulated_device:SleepingOpener"
GAUGE_VARIABLE = "RAYFACE_TEST_GAUGE"
RUN_VARIABLE = "RAYFACE_TEST_RUN_MS"
#: Milliseconds of a run, and more milliseconds for each image of it.
RUN_MS, IMAGE_MS = 2.0, 0.5
_NUM_TOP = 1024


@dataclass(frozen=True)
class Gauge:
    """What a device has done so far.

    Attributes:
        busy_s: seconds in which a run was under way.
        num_runs: runs.
        num_slots: batch slots in those runs, empty ones too.
    """

    busy_s: float
    num_runs: int
    num_slots: int

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a device's file; all zeros while there is none."""
        if not file.exists():
            return cls(0.0, 0, 0)
        busy_s, num_runs, num_slots = np.fromfile(file, dtype=np.float64, count=3)
        return cls(float(busy_s), int(num_runs), int(num_slots))


def on_the_device(heads: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The heads that a prepared graph gives in place of CenterFace's plain heads (`actors.graph_ends`)."""
    num, _, height, width = heads["heat"].shape
    order = ("heat", "scale", "offset", "landmarks")
    flat = [heads[name].reshape(num, heads[name].shape[1], -1) for name in order]
    anchors = np.argsort(-flat[0][:, 0], axis=1, kind="stable")[:, : min(_NUM_TOP, height * width)]
    rows = [np.take_along_axis(head, anchors[:, None], axis=2) for head in flat]
    top = np.concatenate([rows[0], anchors[:, None].astype(np.float32), *rows[1:]], axis=1)
    summaries = [getattr(head, kind)(axis=(1, 2)) for kind in ("sum", "max", "min") for head in flat]
    check = np.stack([*summaries, flat[0].max(axis=(1, 2))], axis=1)
    return {TOP: np.ascontiguousarray(top.transpose(0, 2, 1)), CHECK: check}


class SleepingDevice:
    """Counts runs and sleeps for as long as each takes; one run at a time."""

    def __init__(self) -> None:
        run_ms, image_ms = (os.environ.get(RUN_VARIABLE) or f"{RUN_MS},{IMAGE_MS}").split(",")
        self._run_s, self._image_s = float(run_ms) / 1000, float(image_ms) / 1000
        self._lock = threading.Lock()
        file = os.environ.get(GAUGE_VARIABLE)
        # A mapped file, so that counting costs no system call.
        self._counts = np.memmap(file, np.float64, "w+", shape=3) if file else np.zeros(3)

    def run(self, num_slots: int) -> None:
        """Sleep for one run of so many images."""
        with self._lock:
            begun = time.perf_counter()
            time.sleep(self._run_s + self._image_s * num_slots)
            self._counts += (time.perf_counter() - begun, 1, num_slots)


class SleepingOpener:
    """Opens sessions on the one simulated GPU of this process; each bucket has its own, as on DirectML."""

    fixed_shapes = True

    def __init__(self, provider: str, device_id: int) -> None:
        self._device = SleepingDevice()
        beat_in_every_loop("detector")

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> SleepingSession:
        """One more session."""
        return SleepingSession(self._device)


class SleepingSession:
    """Finds the golden face in every slot."""

    provider = "DmlExecutionProvider"

    def __init__(self, device: SleepingDevice) -> None:
        self._device = device
        self._heads: dict[tuple[int, ...], dict[str, np.ndarray[Any, Any]]] = {}

    def run(self, tensor: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Sleep, and return fresh heads as a runtime would."""
        if tensor.shape not in self._heads:
            self._heads[tensor.shape] = on_the_device(golden_heads(tensor))
        self._device.run(len(tensor))
        return {name: head.copy() for name, head in self._heads[tensor.shape].items()}
