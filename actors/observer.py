"""What happens in a detector, told once to whoever listens: metrics and logs, at the edge."""

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
        num_slots: the best batch size for their shape, or their number where that is greater.
        shape: (height, width) of the tensor, in pixels.
        run_s: on the device.
        decode_s: of the heads, after it.
        begun: when it came on the device, by `time.perf_counter`.
        number: of the runs of this process.
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
    """What became of one image of a call; moments are by `time.perf_counter`.

    Attributes:
        outcome: its.
        ended: when it got that.
        queued_at: since when it waited for a run; None if something ended it before.
        run: that answered it; None if none did.
    """

    outcome: Outcome
    ended: float
    queued_at: float | None = None
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was answered; moments are by `time.perf_counter`.

    Attributes:
        trace: what its caller knows it by.
        priority: of its images.
        begun: when it came.
        ended: when its last image was answered.
        courses: one an image, in order.
    """

    trace: str
    priority: Priority
    begun: float
    ended: float
    traces: tuple[ImageTrace, ...]


class Observer:
    """Does nothing with what it is told; a listener overrides what it wants to hear. Any thread may tell."""

    def image(self, outcome: Outcome, priority: Priority) -> None:
        """An image got its outcome."""

    def run(self, run: Run) -> None:
        """A run on the device was answered."""

    def call(self, call: Call) -> None:
        """A call was answered whose caller wants to follow it; nobody is told of others."""

    def event(self, name: str, **facts: object) -> None:
        """Something that a person may want to read: `name` in a word, and the facts that belong to it."""

    def trouble(self, name: str, **facts: object) -> None:
        """The same of something that should not be so."""


class Observers(Observer):
    """Tells several listeners. An error of one is logged; it costs no answer, and the others are told."""

    def __init__(self, listeners: Sequence[Observer]) -> None:
        self._listeners = list(listeners)
        self._shown: set[tuple[type, type]] = set()

    def add(self, listener: Observer) -> None:
        """Tell one more."""
        self._listeners.append(listener)

    def image(self, outcome: Outcome, priority: Priority) -> None:
        self._tell(lambda each: each.image(outcome, priority))

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
                    _log.exception("Telling %s failed; the same is not logged again.", kind[0].__name__)


class Tally(Observer):
    """Counts for the detector's own health, since it was made.

    Attributes:
        num_runs: with photos in them.
        num_images_run: photos in those.
        num_slots: that those had.
        busy_s: seconds of runs on the device, the golden photo's too; with several lanes, of all together.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()
        self.num_runs = 0
        self.num_images_run = 0
        self.num_slots = 0
        self.busy_s = 0.0

    def num(self, status: str) -> int:
        """Images that were detected, rejected or failed."""
        return self._outcomes[status]

    def image(self, outcome: Outcome, priority: Priority) -> None:
        with self._lock:
            self._outcomes[outcome.status] += 1

    def run(self, run: Run) -> None:
        with self._lock:
            self.busy_s += run.run_s
            if run.num_images:
                self.num_runs += 1
                self.num_images_run += run.num_images
                self.num_slots += run.num_slots
