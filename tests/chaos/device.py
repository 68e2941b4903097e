"""A simulated device: it takes time to start and to run, and breaks in every way that it is told to.

The setting `detector.opener = "tests.chaos.device:SimulatedOpener"` selects it. The folder in
RAYFACE_TEST_DEVICE holds the orders (`orders.json`, written by `tell`) and the notes (`record`, one JSON
object per line).
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
    """The orders to a device.

    Attributes:
        hang: a run with photos never ends.
        remove: a run with photos finds the adapter gone.
        garbage: "zeros" or "nan": every run gives only these numbers, also for the golden photo.
        fail: a run with photos raises an error.
        max_batch: a run of more images fails for lack of memory.
        poison: numbers of photos that end the process.
        run_s: seconds that each run takes.
        image_s: more seconds for each image of a run.
        provider: the provider that new sessions claim to use; empty: the one that was asked for.
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
    """Give the device new orders; they hold from its next run on and replace the earlier ones."""
    draft = folder / "orders.draft"
    draft.write_text(json.dumps(asdict(Orders(**orders))))
    draft.replace(folder / "orders.json")


def notes(folder: Path) -> list[dict[str, Any]]:
    """The device's notes so far, in order: `at`, `pid`, `event` (open, run, ran, close) and `numbers`."""
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
        """Answer as a real device would, or as the orders say."""
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
        # One short write to a file opened for appending stays whole, even if other processes write too.
        os.write(self._file, (json.dumps(note) + "\n").encode())
