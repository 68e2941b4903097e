"""Makes what the settings ask for: a tracer, and the listeners in a detector's process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from actors.observer import Observer
from cluster.errors import ConfigurationError
from cluster.settings import Settings, TracingSettings
from cluster.telemetry.tracing import OFF, Tracer


def tracer_of(settings: TracingSettings, service: str, instance: str = "") -> Tracer:
    """Make the tracer that the settings ask for.

    Args:
        settings: where spans go.
        service: name of this kind of process in the traces.
        instance: name of this process among its kind.

    Raises:
        ConfigurationError: spans cannot be sent or written; says why, and what to do.
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
    """Make the listeners that record spans in a detector's process; none where tracing is off.

    If they cannot be made, images are answered all the same; the detector's log says it once.

    Args:
        name: name of the detector.
        incarnation: name of this life of the process.
        placed_with: settings of the client that placed the detector; this machine's own variables come first.
        log: told why there are no listeners.
    """
    try:
        own = Settings().tracing
        told = own.model_dump(include=own.model_fields_set)
        settings = TracingSettings.model_validate({**(placed_with or {}), **told})
        listener = tracer_of(settings, "rayface-detector", incarnation).listener(name)
    except ValidationError as error:
        # Without the values that were set: they may hold secrets.
        why = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        log.trouble("not_traced", detail=why)
        return []
    except ConfigurationError as error:
        log.trouble("not_traced", detail=str(error))
        return []
    return [listener] if listener is not None else []
