"""Windows of time in which answers are counted, and when the figures of several windows are steady."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.faces import Failed, Rejected
from cluster.bench.load import Answered

#: So many windows in a row must agree, each within this share of their mean.
NUM_STEADY = 3
TOLERANCE = 0.1
PERCENTILES = (50, 90, 95, 99)


@dataclass(slots=True)
class Window:
    """What was answered between two moments of the event loop's clock.

    Attributes:
        begun: the first moment.
        ended: the last moment.
        latencies_ms: one for each call, from the moment at which it should have begun.
        outcomes: images by (status, reason); the reason of a detected image is empty.
        details: one sentence for each (status, reason) that is no detection.
        fallback: images that the caller's own CPU answered, by reason.
        served_by: images by who answered.
        prepare_ms: the sum over all images.
    """

    begun: float
    ended: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    details: dict[tuple[str, str], str] = field(default_factory=dict)
    fallback: Counter[str] = field(default_factory=Counter)
    served_by: Counter[str] = field(default_factory=Counter)
    prepare_ms: float = 0.0

    def add(self, call: Answered) -> None:
        """Count one call."""
        self.latencies_ms.append((call.ended - call.begun) * 1000)
        for outcome in call.outcomes:
            reason = str(outcome.reason) if isinstance(outcome, Rejected | Failed) else ""
            self.outcomes[outcome.status, reason] += 1
            if isinstance(outcome, Rejected | Failed):
                self.details.setdefault((outcome.status, reason), outcome.detail)
            if outcome.stamp.fallback:
                self.fallback[outcome.stamp.fallback] += 1
            self.served_by[outcome.stamp.served_by] += 1
            self.prepare_ms += outcome.times.prepare_ms

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.begun

    @property
    def num_images(self) -> int:
        """Images that got an outcome, whichever."""
        return sum(self.outcomes.values())

    def num(self, status: str) -> int:
        """Images with that status: detected, rejected or failed."""
        return sum(num for (each, _), num in self.outcomes.items() if each == status)

    @property
    def images_per_s(self) -> float:
        """Images that were searched for faces, a second; rejected and failed ones do not count."""
        return self.num("detected") / self.seconds if self.seconds else 0.0


class Collector:
    """Puts each answered call into the present window."""

    def __init__(self) -> None:
        self._window = Window(0.0)

    def add(self, call: Answered) -> None:
        """Count one call."""
        self._window.add(call)

    def cut(self, now: float) -> Window:
        """End the present window and begin the next one; returns the one that ended."""
        done, self._window = self._window, Window(now)
        done.ended = now
        return done


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank); 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def is_in_vain(windows: Sequence[Window], num_different: int, *, is_heard: bool, are_waiting: bool) -> bool:
    """Whether to measure on would tell nothing more.

    It is so if every image that was sent is rejected, if no detector is there any more to find anything, and
    if no call was answered in as many windows as a result needs.

    Args:
        windows: so far, the first one first; at least one.
        num_different: how many different images are sent.
        is_heard: whether a detector said just now how it is.
        are_waiting: whether calls were outstanding whenever one of the last three windows ended.
    """
    num_images = sum(each.num_images for each in windows)
    if num_images >= num_different and num_images == sum(each.num("rejected") for each in windows):
        return True
    if not is_heard and not windows[-1].num("detected"):
        return True
    last = windows[-NUM_STEADY:]
    return are_waiting and len(last) == NUM_STEADY and not any(each.latencies_ms for each in last)


def are_steady(windows: Sequence[Window]) -> bool:
    """Whether the last three windows agree in images a second and in the median latency."""
    last = windows[-NUM_STEADY:]
    if len(last) < NUM_STEADY or not all(each.latencies_ms for each in last):
        return False
    return _agree([each.num_images / each.seconds for each in last]) and _agree(
        [percentile(each.latencies_ms, 50) for each in last]
    )


def joined(windows: Sequence[Window]) -> Window:
    """Windows that follow one another, as one."""
    whole = Window(windows[0].begun, windows[-1].ended)
    for each in windows:
        whole.latencies_ms += each.latencies_ms
        whole.outcomes += each.outcomes
        whole.fallback += each.fallback
        whole.served_by += each.served_by
        whole.prepare_ms += each.prepare_ms
        whole.details = each.details | whole.details
    return whole


def _agree(values: Sequence[float]) -> bool:
    mean = sum(values) / len(values)
    return all(abs(value - mean) <= TOLERANCE * mean for value in values)
