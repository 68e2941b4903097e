"""What the settings ask for: a tracer, and who listens in a detector's process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from actors.observer import Observer
from cluster.errors import ConfigurationError
from cluster.settings import Settings, TracingSettings
from cluster.telemetry.tracing import OFF, Tracer


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
