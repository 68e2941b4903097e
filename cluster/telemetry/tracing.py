"""Spans of a call: where its time went, stage by stage. Off unless the settings ask for it.

    rayface.detect                 the caller's call; of a stream, each of the calls that it makes
    ├── wait for room              while other calls of this client are before it
    ├── prepare                    photos made small
    ├── wait for detector          until there is one that may be asked
    ├── ask detector               one attempt; what was busy is asked for again, in another
    │   └── rayface.answer         in the detector's process
    │       ├── queue              until the run begins
    │       ├── run                on the device, perhaps beside images of other calls
    │       └── decode             heads to faces
    └── fallback
        └── rayface.answer         the same, on the caller's CPU

Spans hold counts, names of detectors and reasons, but no file names, nothing of a photo and no token. While
tracing is off, one span that does nothing serves all stages, and OpenTelemetry is not imported.
`cluster.telemetry.otel` imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from actors.faces import Outcome
from actors.observer import Observer

Fact = str | bool | int | float | Sequence[str]


class Span:
    """One stage of a call, as a context manager; this class does nothing."""

    __slots__ = ()

    @property
    def traceparent(self) -> str:
        """The name of this span for another process (W3C Trace Context); empty where nothing is traced."""
        return ""

    def add(self, **facts: Fact) -> None:
        """Add facts to the span."""

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Add the outcomes of its images; if one of them failed, the span failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Tracer:
    """Makes spans; this class always returns the same one, which does nothing."""

    __slots__ = ()

    def span(self, name: str, **facts: Fact) -> Span:
        """Begin a stage, as a child of the current one."""
        return _NOTHING

    def listener(self, detector: str) -> Observer | None:
        """An observer that records the calls of a detector in this process; None where nothing is traced."""
        return None

    def close(self) -> None:
        """Send the spans that were not sent yet; blocks for two seconds at most."""


_NOTHING = Span()
#: The tracer that is used while tracing is off.
OFF = Tracer()
