"""Where the time of calls goes, by stage, as the client's own spans say it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from actors.faces import Failed, Failure, Outcome
from actors.observer import Observer
from cluster.telemetry.tracing import Fact, Span, Tracer

#: The stages, in a call's order. `wire` is the time of a question without queue and run: both pipes, Ray,
#: the network, and what the detector's process does beside the device.
STAGES = ("wait for room", "prepare", "wait for detector", "wire", "queue", "run", "fallback")
_QUESTION = "ask detector"
#: Each call of the client waits for room once, so the spans of this name count the calls.
_ONCE_A_CALL = "wait for room"


@dataclass(frozen=True, slots=True)
class StageTotals:
    """Sums since the beginning of the bench.

    Attributes:
        seconds: by stage.
        num_calls: calls of the client.
        num_refused: images that a detector refused as busy; they were asked for again.
    """

    seconds: Mapping[str, float]
    num_calls: int
    num_refused: int

    def since(self, before: StageTotals) -> StageTotals:
        """What was added since an earlier moment."""
        return StageTotals(
            {name: spent - before.seconds.get(name, 0.0) for name, spent in self.seconds.items()},
            self.num_calls - before.num_calls,
            self.num_refused - before.num_refused,
        )

    def ms_a_call(self) -> dict[str, float]:
        """Milliseconds of each stage, the mean over all calls."""
        return {
            name: self.seconds.get(name, 0.0) * 1000 / self.num_calls if self.num_calls else 0.0
            for name in STAGES
        }


class StageTracer(Tracer):
    """A tracer that adds up what each stage takes, and hands every span on to another tracer.

    Args:
        inner: the tracer of the settings.
        clock: seconds.
    """

    __slots__ = ("_clock", "_inner", "_num_calls", "_num_refused", "_seconds")

    def __init__(self, inner: Tracer, clock: Callable[[], float] = time.perf_counter) -> None:
        self._inner = inner
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._num_calls = 0
        self._num_refused = 0

    def totals(self) -> StageTotals:
        """The sums so far."""
        return StageTotals(dict(self._seconds), self._num_calls, self._num_refused)

    def span(self, name: str, **facts: Fact) -> Span:
        return _TimedSpan(name, self._inner.span(name, **facts), self._clock, self._add)

    def listener(self, detector: str) -> Observer | None:
        return self._inner.listener(detector)

    def close(self) -> None:
        self._inner.close()

    def _add(self, name: str, spent_s: float, outcomes: Sequence[Outcome]) -> None:
        if name == _ONCE_A_CALL:
            self._num_calls += 1
        if name != _QUESTION:
            self._sum(name, spent_s)
        elif outcomes:
            self._num_refused += sum(
                isinstance(each, Failed) and each.reason is Failure.BUSY for each in outcomes
            )
            # The image that was answered last decides how long the question took.
            last = max(outcomes, key=lambda each: each.times.queue_ms + each.times.run_ms).times
            self._sum("queue", last.queue_ms / 1000)
            self._sum("run", last.run_ms / 1000)
            self._sum("wire", max(0.0, spent_s - (last.queue_ms + last.run_ms) / 1000))

    def _sum(self, name: str, spent_s: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + spent_s


class _TimedSpan(Span):
    """A span that tells how long it took."""

    __slots__ = ("_begun", "_clock", "_inner", "_name", "_outcomes", "_tell")

    def __init__(
        self,
        name: str,
        inner: Span,
        clock: Callable[[], float],
        tell: Callable[[str, float, Sequence[Outcome]], None],
    ) -> None:
        self._name = name
        self._inner = inner
        self._clock = clock
        self._tell = tell
        self._begun = 0.0
        self._outcomes: Sequence[Outcome] = ()

    @property
    def traceparent(self) -> str:
        return self._inner.traceparent

    def add(self, **facts: Fact) -> None:
        self._inner.add(**facts)

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = outcomes
        self._inner.outcomes(outcomes)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        self._begun = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(self._name, self._clock() - self._begun, self._outcomes)
        self._inner.__exit__(kind, error, trace)
