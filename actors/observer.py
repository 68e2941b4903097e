"""Observers are told what happens in a detector; metrics, logs and spans are such observers."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actors.faces import Outcome, Priority

_log = logging.getLogger("rayface.detector")


@dataclass(frozen=True, slots=True)
class Run:
    """One run on the device.

    Attributes:
        num_images: photos in it; 0 for the golden photo.
        num_slots: the best batch size for the shape, or the number of photos where that is greater.
        shape: (height, width) of the tensor, in pixels.
        run_s: seconds on the device.
        decode_s: seconds of decoding the heads afterwards.
        begun: when it came on the device, by `time.perf_counter`.
        number: counts the runs of this process.
    """

    num_images: int
    num_slots: int
    shape: tuple[int, int]
    run_s: float
    decode_s: float
    begun: float = 0.0
    number: int = 0

    @property
    def fill(self) -> float:
        """How full the batch was, 0..1."""
        return self.num_images / self.num_slots if self.num_slots else 0.0


@dataclass(frozen=True, slots=True)
class ImageTrace:
    """The way of one image of a call through the detector; moments are by `time.perf_counter`.

    Attributes:
        outcome: the image's final outcome.
        ended: when the image got its outcome.
        queued_at: when the image began to wait for a run; None if it got its outcome before.
        run: the run that found the faces; None if no run did.
    """

    outcome: Outcome
    ended: float
    queued_at: float | None = None
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was answered; moments are by `time.perf_counter`.

    Attributes:
        trace: the caller's name for the call (W3C Trace Context).
        priority: priority of the images.
        begun: when the call came.
        ended: when the last image got its outcome.
        traces: one for each image, in order.
    """

    trace: str
    priority: Priority
    begun: float
    ended: float
    traces: tuple[ImageTrace, ...]


class Observer:
    """Does nothing; a listener overrides the methods that it needs. Any thread may call them."""

    def images(self, outcomes: Sequence[Outcome], priority: Priority) -> None:
        """Images of one call got their outcomes."""

    def run(self, run: Run) -> None:
        """A run on the device ended well, and its heads were decoded."""

    def call(self, call: Call) -> None:
        """A call was answered. Only calls that came with a trace are told."""

    def event(self, name: str, **facts: object) -> None:
        """Something happened that a person may want to read: `name` is a word, `facts` are its details."""

    def trouble(self, name: str, **facts: object) -> None:
        """Something happened that should not: `name` is a word, `facts` are its details."""


class Observers(Observer):
    """Tells several listeners. An error of one is logged; it costs no answer, and the others are told."""

    def __init__(self, listeners: Sequence[Observer]) -> None:
        self._listeners = list(listeners)
        self._shown: set[tuple[type, type]] = set()

    def add(self, listener: Observer) -> None:
        """Tell one more."""
        self._listeners.append(listener)

    def images(self, outcomes: Sequence[Outcome], priority: Priority) -> None:
        self._tell(lambda each: each.images(outcomes, priority))

    def run(self, run: Run) -> None:
        self._tell(lambda each: each.run(run))

    def call(self, call: Call) -> None:
        self._tell(lambda each: each.call(call))

    def event(self, name: str, **facts: object) -> None:
        self._tell(lambda each: each.event(name, **facts))

    def trouble(self, name: str, **facts: object) -> None:
        self._tell(lambda each: each.trouble(name, **facts))

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for each in self._listeners:
            try:
                tell(each)
            except Exception as error:
                # Once a kind: it may fail at every image.
                kind = (type(each), type(error))
                if kind not in self._shown:
                    self._shown.add(kind)
                    _log.exception(
                        "The observer %s failed; the same failure is not logged again.", kind[0].__name__
                    )


class Tally(Observer):
    """Counts for the detector's health, from its making on.

    Attributes:
        num_runs: runs with photos in them.
        num_images_run: photos in those runs.
        num_slots: batch slots in those runs.
        busy_s: seconds of all runs on the device, those of the golden photo too; the sum of all lanes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()
        self.num_runs = 0
        self.num_images_run = 0
        self.num_slots = 0
        self.busy_s = 0.0

    def num(self, status: str) -> int:
        """Number of images with that status: detected, rejected or failed."""
        return self._outcomes[status]

    def images(self, outcomes: Sequence[Outcome], priority: Priority) -> None:
        with self._lock:
            self._outcomes.update([outcome.status for outcome in outcomes])

    def run(self, run: Run) -> None:
        with self._lock:
            self.busy_s += run.run_s
            if run.num_images:
                self.num_runs += 1
                self.num_images_run += run.num_images
                self.num_slots += run.num_slots
