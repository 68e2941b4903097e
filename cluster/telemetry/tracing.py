"""Where a call's time went, stage by stage; nothing at all unless the settings ask for it.

    rayface.detect                 the caller's call; of a stream, each of the calls that it makes
    ├── wait for place             while other calls of this client are before it
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

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from actors.faces import Outcome
from actors.observer import Observer
from cluster.errors import ConfigurationError
from cluster.settings import Settings, TracingSettings

Fact = str | bool | int | float | Sequence[str]


class Span:
    """One stage, from entering to leaving it; this one does nothing."""

    __slots__ = ()

    @property
    def traceparent(self) -> str:
        """What another process has to know to go on below it (W3C Trace Context); empty: it need not."""
        return ""

    def note(self, **facts: Fact) -> None:
        """Facts about it."""

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """What became of its images; with a failure among them, it failed."""

    def failed(self, reason: str) -> None:
        """It did not bring what it should; why, in a word."""

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


def tracer_of(settings: TracingSettings, service: str, instance: str = "") -> Tracer:
    """What the settings ask for.

    Args:
        settings: where spans go.
        service: what this process is to whoever looks at them.
        instance: which of those.

    Raises:
        ConfigurationError: they cannot be sent or written; says why, and what to do.
    """
    if not settings.is_on:
        return OFF
    try:
        from cluster.telemetry.otel import SpanTracer

        return SpanTracer.of(settings, service, instance)
    except ImportError as error:
        raise ConfigurationError(
            f"tracing.endpoint is set, but what sends spans is not installed here ({error}). Run "
            f"`python -m pip install 'rayface[tracing]'`, or set tracing.folder instead, or neither."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"Spans cannot be written to tracing.folder, {settings.folder}: {error.strerror or error}. "
            "Name a folder that this process may write to, or none."
        ) from error


def span_listeners(
    name: str, incarnation: str, placed_with: Mapping[str, Any] | None, log: Observer
) -> list[Observer]:
    """Who listens in a detector's process, if spans are asked for.

    What cannot be done costs nobody an answer: it is said in the detector's log, once.

    Args:
        name: of the detector.
        incarnation: of this process.
        placed_with: the settings of whoever placed it; this machine's own variables come before them.
        log: told why there are none.
    """
    try:
        own = Settings().tracing
        told = own.model_dump(include=own.model_fields_set)
        settings = TracingSettings.model_validate({**(placed_with or {}), **told})
        listener = tracer_of(settings, "rayface-detector", incarnation).listener(name)
    except ValidationError as error:
        # Without what was set: it may hold what is not for a log.
        why = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        log.trouble("not_traced", detail=why)
        return []
    except ConfigurationError as error:
        log.trouble("not_traced", detail=str(error))
        return []
    return [listener] if listener is not None else []
