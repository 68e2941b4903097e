"""A simulated device that writes down each open, run and close, with a clock that all processes share.

The setting `detector.opener = "tests.hosts.recording:RecordingOpener"` selects it; RAYFACE_TEST_RECORD names
the file for the record. A device is closed when its session is closed, or else when its process is gone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.fakes import golden_heads


class RecordingOpener:
    """Opens sessions on the one simulated device of this machine."""

    fixed_shapes = False

    def __init__(self, provider: str, device_id: int) -> None:
        self._device = f"{provider}:{device_id}"
        self._provider = {"cpu": "CPUExecutionProvider", "directml": "DmlExecutionProvider"}[provider]

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> RecordingSession:
        """One more session."""
        return RecordingSession(self._device, self._provider)


class RecordingSession:
    """Finds the golden face; a run takes a few milliseconds, so that runs could overlap."""

    def __init__(self, device: str, provider: str) -> None:
        self.provider = provider
        self._device = device
        self._file = os.open(os.environ["RAYFACE_TEST_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._note("open")

    def run(self, tensor: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Answer as the real device would, with a note before and after the run."""
        self._note("run")
        time.sleep(0.005)
        heads = golden_heads(tensor)
        self._note("ran")
        return heads

    def __del__(self) -> None:
        self._note("close")
        os.close(self._file)

    def _note(self, event: str) -> None:
        note = {"at": time.clock_gettime(time.CLOCK_MONOTONIC), "pid": os.getpid(), "event": event}
        # One short write to a file opened for appending stays whole, even if other processes write too.
        os.write(self._file, (json.dumps(note | {"device": self._device}) + "\n").encode())


def overlaps(record: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of notes in a record that show two processes with the device open at one moment."""
    return overlaps_of([json.loads(line) for line in record.read_text().splitlines()])


def overlaps_of(notes: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of notes that show two processes with the device open at one moment.

    A process has the device open from its first note to its last one. A killed process writes no note at its
    death. An overlap between its last note and its death is not seen; the process did nothing more then.
    """
    lives: dict[int, list[dict[str, Any]]] = {}
    for note in notes:
        lives.setdefault(note["pid"], []).append(note)
    spans = [(life[0], life[-1]) for life in lives.values()]
    return [
        (one[0], other[0])
        for number, one in enumerate(spans)
        for other in spans[number + 1 :]
        if one[0]["at"] <= other[1]["at"] and other[0]["at"] <= one[1]["at"]
    ]
