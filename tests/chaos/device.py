"""A simulated device: it costs time to start and to run, and breaks in every way that it is told to.

Plugged in by `detector.opener = "tests.chaos.device:SimulatedOpener"`. The folder in RAYFACE_TEST_DEVICE
holds what it is told (`orders.json`, written by `tell`) and what it did (`record`, one JSON object a line).
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actors.errors import DeviceFailed, DeviceRemoved, OutOfMemory
from tests.chaos.photos import box_of, landmarks_of, number_of
from tests.fakes import golden_heads, heads_for

OPENER = "tests.chaos.device:SimulatedOpener"
FOLDER_VARIABLE = "RAYFACE_TEST_DEVICE"

_START_S = 0.3
_RUN_S = 0.003
_IMAGE_S = 0.001


@dataclass
class Orders:
    """What a device is told.

    Attributes:
        hang: a run with photos never ends.
        remove: a run with photos finds the adapter gone.
        garbage: "zeros" or "nan": what every run gives, the golden photo's too.
        fail: a run with photos raises an error.
        max_batch: a run of more images finds no memory.
        poison: numbers of photos that end the process.
        run_s: what a run costs.
        image_s: what each image of it costs besides.
        provider: that sessions opened from now on say they use; empty: the one asked for.
    """

    hang: bool = False
    remove: bool = False
    garbage: str = ""
    fail: bool = False
    max_batch: int | None = None
    poison: list[int] = field(default_factory=list)
    run_s: float = _RUN_S
    image_s: float = _IMAGE_S
    provider: str = ""


def tell(folder: Path, **orders: Any) -> None:
    """From its next run on the device does as it is told, and forgets what it was told before."""
    draft = folder / "orders.draft"
    draft.write_text(json.dumps(asdict(Orders(**orders))))
    draft.replace(folder / "orders.json")


def notes(folder: Path) -> list[dict[str, Any]]:
    """What the device did so far, in order: `at`, `pid`, `event` (open, run, ran, close) and `numbers`."""
    record = folder / "record"
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


class SimulatedOpener:
    """Opens sessions on the one simulated device of this machine."""

    fixed_shapes = False

    def __init__(self, provider: str, device_id: int) -> None:
        self._device = f"{provider}:{device_id}"
        self._provider = {"cpu": "CPUExecutionProvider", "directml": "DmlExecutionProvider"}[provider]

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> SimulatedSession:
        """One more session."""
        time.sleep(_START_S)
        return SimulatedSession(self._device, self._provider)


class SimulatedSession:
    """Answers the golden photo and those of `tests.chaos.photos`."""

    def __init__(self, device: str, provider: str) -> None:
        self._device = device
        self._folder = Path(os.environ[FOLDER_VARIABLE])
        self.provider = self._orders().provider or provider
        self._file = os.open(self._folder / "record", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._note("open")

    def run(self, tensor: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """As the real device would, or as it was told."""
        numbers = [number_of(pixels) for pixels in tensor]
        photos = [number for number in numbers if number is not None]
        self._note("run", photos)
        orders = self._orders()
        if orders.max_batch is not None and len(tensor) > orders.max_batch:
            raise OutOfMemory(f"No memory for {len(tensor)} images.")
        if photos:
            self._break(orders, photos)
        time.sleep(orders.run_s + orders.image_s * len(tensor))
        heads = golden_heads(tensor)
        for slot, number in enumerate(numbers):
            if number is not None:
                heads_for(heads, slot, box_of(number), landmarks_of(number))
        if orders.garbage:
            for head in heads.values():
                head[:] = {"zeros": 0.0, "nan": np.nan}[orders.garbage]
        self._note("ran", photos)
        return heads

    def __del__(self) -> None:
        self._note("close")
        os.close(self._file)

    def _break(self, orders: Orders, photos: Iterable[int]) -> None:
        if set(photos) & set(orders.poison):
            os.kill(os.getpid(), signal.SIGKILL)
        if orders.hang:
            time.sleep(3600)
        if orders.remove:
            raise DeviceRemoved("The device was removed: 887A0005.")
        if orders.fail:
            raise DeviceFailed("The simulated device fails.")

    def _orders(self) -> Orders:
        try:
            return Orders(**json.loads((self._folder / "orders.json").read_text()))
        except FileNotFoundError:
            return Orders()

    def _note(self, event: str, numbers: Iterable[int] = ()) -> None:
        note = {
            "at": time.clock_gettime(time.CLOCK_MONOTONIC),
            "pid": os.getpid(),
            "event": event,
            "device": self._device,
            "numbers": list(numbers),
        }
        # One short write to a file opened for appending is whole, whoever else writes.
        os.write(self._file, (json.dumps(note) + "\n").encode())
