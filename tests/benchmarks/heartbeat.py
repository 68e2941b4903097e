"""Measures how long an event loop is kept from its work, by a timer inside it.

A heartbeat is due every 2 ms; the time by which it is late is a stall. The files in the folder
RAYFACE_TEST_STALLS hold the stalls of each process (`read_stalls`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

STALLS_VARIABLE = "RAYFACE_TEST_STALLS"
_EVERY_S = 0.002
#: Stalls are counted in classes of this many milliseconds; the last class holds all longer ones.
_CLASS_MS = 0.25
_NUM_CLASSES = 8000
_NUMBERS = itertools.count()


def beat(name: str) -> None:
    """Begin to measure the running event loop, if RAYFACE_TEST_STALLS names a folder."""
    folder = os.environ.get(STALLS_VARIABLE)
    if not folder:
        return
    loop = asyncio.get_running_loop()
    file = Path(folder) / f"{name}-{os.getpid()}-{next(_NUMBERS)}"
    counts = np.memmap(file, np.int64, "w+", shape=_NUM_CLASSES)
    due = loop.time() + _EVERY_S

    def next_beat() -> None:
        nonlocal due
        now = loop.time()
        counts[min(_NUM_CLASSES - 1, int((now - due) * 1000 / _CLASS_MS))] += 1
        due = now + _EVERY_S
        loop.call_at(due, next_beat)

    loop.call_at(due, next_beat)


def beat_in_every_loop(name: str) -> None:
    """Measure each event loop of this process from the first time that it uses a thread pool.

    A benchmark has no better place to begin in the loops of processes that Ray starts.
    """
    if not os.environ.get(STALLS_VARIABLE):
        return
    submit = ThreadPoolExecutor.submit
    seen: set[int] = set()

    def submit_and_beat(self: ThreadPoolExecutor, /, *args: Any, **kwargs: Any) -> Any:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not None and id(loop) not in seen:
            seen.add(id(loop))
            beat(name)
        return submit(self, *args, **kwargs)

    ThreadPoolExecutor.submit = submit_and_beat  # type: ignore[method-assign, assignment]  # a probe


def read_stalls(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The number of stalls in each class so far, by the name of the loop."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for file in sorted(folder.glob("*-*-*")):
        counts = np.fromfile(file, dtype=np.int64)
        if len(counts) == _NUM_CLASSES:
            name = file.name.split("-")[0]
            found[name] = found[name] + counts if name in found else counts
    return found


def stall_ms(counts: np.ndarray[Any, Any], share: float = 1.0) -> float:
    """The stall that this share of all heartbeats did not exceed, in ms; 1.0 gives the largest."""
    total = int(counts.sum())
    if not total:
        return 0.0
    reached = np.cumsum(counts) >= share * total
    return float((int(np.argmax(reached)) + 1) * _CLASS_MS)


def summary(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The stalls between two readings: largest, 99.9th percentile and number above 10 ms, by loop."""
    found = {}
    for name, counts in after.items():
        new = counts - before.get(name, 0)
        above = int(new[int(10 / _CLASS_MS) :].sum())
        found[name] = {
            "largest_ms": stall_ms(new),
            "p999_ms": stall_ms(new, 0.999),
            "num_above_10_ms": above,
            "num_beats": int(new.sum()),
        }
    return found
