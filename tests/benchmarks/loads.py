"""A load on one side of a comparison, and what was measured under it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from tests.benchmarks import heartbeat
from tests.benchmarks.simulated_device import GAUGE_VARIABLE, Gauge

_WARM_UP_S = 1.0
#: A measurement goes on until each caller had an answer, but no longer than this.
_MAX_S = 60.0
_NUM_IMAGES = 16


@dataclass(frozen=True)
class Load:
    """Callers that ask without a pause.

    Attributes:
        callers: how many ask at once.
        per_call: images of each call.
        size: side of square made-up pixels; 0 takes the encoded photos of `folder`.
        folder: holds photos.
        seconds: how long to measure, after a second that is not counted.
    """

    callers: int
    per_call: int
    size: int = 0
    folder: str = ""
    seconds: float = 5.0

    def __str__(self) -> str:
        callers = f"{self.callers} caller{'s' if self.callers > 1 else ''}"
        what = f"of {self.size}²" if self.size else "photo" if self.per_call == 1 else "photos"
        return f"{callers}, {self.per_call} {what}"

    def images(self) -> list[Any]:
        """What is asked about, in turn."""
        if self.size:
            random = np.random.default_rng(1)
            shape = (self.size, self.size, 3)
            return [random.integers(0, 255, shape, dtype=np.uint8) for _ in range(_NUM_IMAGES)]
        return [path.read_bytes() for path in sorted(Path(self.folder).glob("*.jpg"))]


@dataclass
class Figures:
    """What was measured under a load.

    Attributes:
        num_images: images answered.
        num_faces: faces in them, where the side tells.
        num_calls: calls answered.
        seconds: length of the measurement.
        waits_ms: how long each call took, in rising order.
        failed: images without an answer, by reason.
        busy_s, num_runs, num_slots: of the simulated GPU, if there is one.
        processor_s: seconds of processor time, by process.
        stalls: of each event loop that was measured; see `heartbeat.summary`.
    """

    num_images: int = 0
    num_faces: int = 0
    num_calls: int = 0
    seconds: float = 0.0
    waits_ms: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    busy_s: float = 0.0
    num_runs: int = 0
    num_slots: int = 0
    processor_s: dict[str, float] = field(default_factory=dict)
    stalls: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        """Images a second."""
        return self.num_images / self.seconds

    @property
    def busy(self) -> float:
        """The share of the time in which the simulated GPU worked."""
        return self.busy_s / self.seconds

    @property
    def fill(self) -> float:
        """The share of batch slots that held an image."""
        return min(1.0, self.num_images / self.num_slots) if self.num_slots else 0.0

    @property
    def batch(self) -> float:
        """Images in a run, on average."""
        return self.num_images / self.num_runs if self.num_runs else 0.0

    def wait_ms(self, share: float) -> float:
        """The time that this share of the calls did not exceed."""
        return self.waits_ms[min(len(self.waits_ms) - 1, int(share * len(self.waits_ms)))]

    @property
    def processor_ms(self) -> float:
        """Processor milliseconds of all processes for each call."""
        return 1000 * sum(self.processor_s.values()) / max(1, self.num_calls)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a pipe."""
        return asdict(self)


class Server(Protocol):
    """One side of a comparison, in its own process."""

    async def detect(self, images: Sequence[Any]) -> list[int | str]:
        """For each image the number of its faces, or the reason why it has no answer."""
        ...


@dataclass(frozen=True)
class _Moment:
    at: float
    num_images: int
    num_faces: int
    num_calls: int
    num_waits: int
    gauge: Gauge
    processor_s: dict[str, float]
    stalls: dict[str, Any]


async def measure(server: Server, load: Load, roles: dict[str, str]) -> Figures:
    """Put a load on a server for a second and a measurement.

    Args:
        server: answers.
        load: who asks for what.
        roles: words of command lines, and the name of the process that has them.
    """
    images = load.images()
    figures, waits = Figures(), list[float]()
    is_over = False

    async def ask(number: int) -> None:
        position = number
        while not is_over:
            some = [images[(position + each) % len(images)] for each in range(load.per_call)]
            position += load.per_call
            begun = time.perf_counter()
            answers = await server.detect(some)
            waits.append((time.perf_counter() - begun) * 1000)
            figures.num_calls += 1
            for answer in answers:
                if isinstance(answer, int):
                    figures.num_images += 1
                    figures.num_faces += answer
                else:
                    figures.failed[answer] = figures.failed.get(answer, 0) + 1

    def moment() -> _Moment:
        gauge = os.environ.get(GAUGE_VARIABLE)
        stalls = os.environ.get(heartbeat.STALLS_VARIABLE)
        return _Moment(
            time.perf_counter(),
            figures.num_images,
            figures.num_faces,
            figures.num_calls,
            len(waits),
            Gauge.read(Path(gauge)) if gauge else Gauge(0.0, 0, 0),
            processor_s(roles),
            heartbeat.read_stalls(Path(stalls)) if stalls else {},
        )

    callers = [asyncio.create_task(ask(number)) for number in range(load.callers)]
    try:
        await _or_failed(callers, _WARM_UP_S)
        begin = moment()
        # Reading the processes kept this loop; that stall is the benchmark's own.
        await asyncio.sleep(0.02)
        stalls = os.environ.get(heartbeat.STALLS_VARIABLE)
        before = heartbeat.read_stalls(Path(stalls)) if stalls else {}
        await _or_failed(callers, load.seconds)
        # On a slow machine the time may be too short for a single call.
        while figures.num_calls < begin.num_calls + load.callers and time.perf_counter() < begin.at + _MAX_S:
            await _or_failed(callers, 0.1)
        end = moment()
    finally:
        is_over = True
        await asyncio.gather(*callers, return_exceptions=True)
    figures.num_images = end.num_images - begin.num_images
    figures.num_faces = end.num_faces - begin.num_faces
    figures.num_calls = end.num_calls - begin.num_calls
    figures.seconds = end.at - begin.at
    figures.waits_ms = [round(each, 3) for each in sorted(waits[begin.num_waits : end.num_waits])]
    figures.busy_s = end.gauge.busy_s - begin.gauge.busy_s
    figures.num_runs = end.gauge.num_runs - begin.gauge.num_runs
    figures.num_slots = end.gauge.num_slots - begin.gauge.num_slots
    figures.processor_s = {
        name: seconds - begin.processor_s.get(name, 0.0) for name, seconds in end.processor_s.items()
    }
    figures.stalls = heartbeat.summary(before, end.stalls)
    if not figures.num_calls:
        raise RuntimeError(f"No call of {load} was answered within {_MAX_S} s: {figures.failed}")
    return figures


async def _or_failed(tasks: list[asyncio.Task[None]], seconds: float) -> None:
    """Wait; an error of a task is raised at once."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def processor_s(roles: dict[str, str]) -> dict[str, float]:
    """Processor seconds so far of this process and of all below it, by role.

    A process whose command line has none of the words counts by its own name.
    """
    found: dict[str, float] = {}
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            times, line = process.cpu_times(), " ".join(process.cmdline())
            name = "client" if process.pid == own.pid else _role(line, roles) or process.name()
        except psutil.Error:
            continue
        found[name] = found.get(name, 0.0) + times.user + times.system
    return found


def _role(line: str, roles: dict[str, str]) -> str:
    return next((role for words, role in roles.items() if words in line), "")
