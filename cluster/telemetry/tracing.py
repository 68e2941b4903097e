"""Where a call's time went, stage by stage; nothing at all unless the settings ask for it.

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

Counts, names of detectors and reasons are told; no file names, nothing of a photo, no token. While it is off
there is one span for everything, which does nothing, and OpenTelemetry is not even imported; what speaks it
is `cluster.telemetry.otel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from actors.faces import Outcome
from actors.observer import Observer

Fact = str | bool | int | float | Sequence[str]


class Span:
    """One stage, from entering to leaving it; this one does nothing."""

    __slots__ = ()

    @property
    def traceparent(self) -> str:
        """What another process has to know to go on below it (W3C Trace Context); empty: it need not."""
        return ""

    def add(self, **facts: Fact) -> None:
        """Facts about it."""

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """What became of its images; with a failure among them, it failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Tracer:
    """Makes spans; this one always gives the same one, which does nothing."""

    __slots__ = ()

    def span(self, name: str, **facts: Fact) -> Span:
        """A stage that begins now, as part of the one under way here."""
        return _NOTHING

    def listener(self, detector: str) -> Observer | None:
        """Who is to be told of the calls that a detector of this process answers."""
        return None

    def close(self) -> None:
        """Send what is not sent; blocks, for a moment."""


_NOTHING = Span()
#: Of everybody who is not asked to trace.
OFF = Tracer()
