"""Ten times more photos than the device can do, for a while: memory stays bounded, and people are served."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cluster import BlockingFaceClient
from tests.chaos.device import notes, tell
from tests.chaos.photos import photo

_SECONDS = 30.0
#: MB by which the client may grow: three copies of each waiting photo (pixels, pickled, being sent), and 100.
_MOST_MB = 3 * 128 * 320 * 320 * 3 / 1e6 + 100


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


def test_memory_is_bounded_under_ten_times_overload(
    client: BlockingFaceClient, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I6: no process grows without bound; photos over the limit get `busy`; a person's photo is answered."""
    # 100 photos a second at most.
    tell(device, run_s=0.0, image_s=0.01)
    detector = psutil.Process(client.health().pid)
    here = psutil.Process(os.getpid())
    driver_process = next(
        each for each in here.children() if "cluster.connection.driver" in " ".join(each.cmdline())
    )
    watched = {"backend": here, "driver process": driver_process, "detector": detector}
    encoded = [photo(number) for number in range(64)]
    client.detect(encoded)
    begin = {name: _megabytes(process) for name, process in watched.items()}
    most = dict(begin)
    over = threading.Event()
    reasons: Counter[str] = Counter()
    person: list[float] = []

    def scan() -> None:
        while not over.is_set():
            for outcome in client.detect(encoded, priority="bulk", deadline_s=3.0):
                reasons[str(getattr(outcome, "reason", outcome.status))] += 1

    def look() -> None:
        begun = time.monotonic()
        (outcome,) = client.detect(encoded[:1], deadline_s=10.0)
        person.append(time.monotonic() - begun)
        assert outcome.status == "detected", outcome

    with ThreadPoolExecutor(21) as threads:
        # Twenty scans of 64 photos each, repeated; the device needs 13 s for one round.
        scans = [threads.submit(scan) for _ in range(20)]
        for _ in _until(_SECONDS):
            threads.submit(look).result()
            for name, process in watched.items():
                most[name] = max(most[name], _megabytes(process))
        over.set()
        for each in scans:
            each.result()
    grown = {name: round(most[name] - begin[name]) for name in watched}
    done = sum(len(note["numbers"]) for note in notes(device) if note["event"] == "ran")
    with capsys.disabled():
        print(
            f"\noverload: {sum(reasons.values())} bulk photos asked in {_SECONDS:.0f} s ({dict(reasons)}), "
            f"{done} done; a person's {len(person)}, the slowest in {max(person):.1f} s; grown by MB: {grown}"
        )
    assert reasons["detected"] > 0
    assert set(reasons) <= {"detected", "busy", "deadline"}
    assert max(grown.values()) < _MOST_MB, grown


def _until(seconds: float) -> Iterator[int]:
    """0, 1, 2, … until the time is up."""
    until = time.monotonic() + seconds
    return itertools.takewhile(lambda _: time.monotonic() < until, itertools.count())
