"""Spans through OpenTelemetry. Only this module imports it, and only where the settings ask for spans.

The provider is our own and never the process's global one, so a backend's other traces are left alone. The
backend's current span, if there is one, becomes the parent of ours.
"""

from __future__ import annotations

import asyncio
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Span as Recorded
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.faces import Failed, Failure, Outcome, Rejected
from actors.observer import Call, ImageTrace, Observer
from cluster.errors import Full, NotAnswered, Refused
from cluster.settings import TracingSettings
from cluster.telemetry.rate_limit import rate_limited_log
from cluster.telemetry.tracing import Fact, Span, Tracer

#: Short: a detector's process may be ended at any time, and spans that were not sent are lost with it.
_SEND_EVERY_MS = 200
#: A collector that is away must not hold up the end of a process for longer.
_LEAVE_WITHIN_S = 2.0
_TRACES_PATH = "/v1/traces"
_SENDER_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_W3C = TraceContextTextMapPropagator()
#: This span goes on in another process; viewers draw an edge between the two.
_ASKING = "ask detector"


class SpanTracer(Tracer):
    """Makes OpenTelemetry's spans.

    Args:
        provider: makes and sends the spans; `close` ends it.
    """

    __slots__ = ("_provider", "_tracer")

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("rayface", metadata.version("rayface"))

    @classmethod
    def of(cls, settings: TracingSettings, service: str, instance: str) -> SpanTracer:
        """Make a tracer that sends or writes spans as the settings say.

        Raises:
            ImportError: the settings name an endpoint, and the package that sends is not installed.
            OSError: the settings name a folder that cannot be written.
        """
        facts: dict[str, str | int] = {
            "service.name": service,
            "service.namespace": "rayface",
            "service.version": metadata.version("rayface"),
            "service.instance.id": instance or f"{platform.node()}-{os.getpid()}",
            "host.name": platform.node(),
            "process.pid": os.getpid(),
        }
        # `close` ends it; at exit it would wait half a minute for a collector that is away.
        provider = TracerProvider(resource=Resource.create({**facts}), shutdown_on_exit=False)
        if settings.endpoint:
            sender = BatchSpanProcessor(_sender(settings.endpoint), schedule_delay_millis=_SEND_EVERY_MS)
            provider.add_span_processor(sender)
        if settings.folder is not None:
            file = settings.folder / f"{service}-{platform.node()}-{os.getpid()}.jsonl"
            provider.add_span_processor(SimpleSpanProcessor(SpanLines(file)))
        return cls(provider)

    def span(self, name: str, **facts: Fact) -> Span:
        """See `Tracer`."""
        kind = SpanKind.CLIENT if name == _ASKING else SpanKind.INTERNAL
        return _Stage(self._tracer.start_span(name, kind=kind, attributes=_attributes(facts)))

    def listener(self, detector: str) -> Observer:
        """See `Tracer`."""
        return CallSpans(self._tracer, detector)

    def close(self) -> None:
        """See `Tracer`."""
        ending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(_LEAVE_WITHIN_S)


class _Stage(Span):
    __slots__ = ("_before", "_span")

    def __init__(self, span: Recorded) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        if not self._span.is_recording():
            # Of a call that is not among those sampled, the detector need keep nothing either.
            return ""
        connection: dict[str, str] = {}
        _W3C.inject(connection, trace.set_span_in_context(self._span))
        return connection["traceparent"]

    def add(self, **facts: Fact) -> None:
        self._span.set_attributes(_attributes(facts))

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        _add_outcomes(self._span, outcomes)

    def __enter__(self) -> Self:
        self._before = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _fail(self._span, _reason(error))
        context.detach(self._before)
        self._span.end()


class CallSpans(Observer):
    """Records a finished call as children of the caller's span.

    A run that serves several calls stands in each of their traces, with the same `rayface.run` and
    `rayface.incarnation`: each trace is complete, even if the others are not kept.
    """

    def __init__(self, tracer: trace.Tracer, detector: str) -> None:
        self._tracer = tracer
        self._detector = detector

    def call(self, call: Call) -> None:
        parent = _W3C.extract({"traceparent": call.trace})
        if not trace.get_current_span(parent).get_span_context().is_valid:
            return
        outcomes = [each.outcome for each in call.traces]
        moments = _Moments()
        answer = self._tracer.start_span(
            "rayface.answer", parent, SpanKind.SERVER, start_time=moments.ns(call.begun)
        )
        facts: dict[str, Fact] = {"detector": self._detector, "priority": str(call.priority)}
        if outcomes:
            facts |= {"incarnation": outcomes[0].stamp.incarnation, "epoch": outcomes[0].stamp.epoch}
        answer.set_attributes(_attributes({**facts, "num_images": len(outcomes)}))
        below = trace.set_span_in_context(answer)
        for group in _groups(call.traces):
            self._stages(group, below, moments)
        _add_outcomes(answer, outcomes)
        answer.end(moments.ns(call.ended))

    def _stages(self, group: Sequence[ImageTrace], below: context.Context, moments: _Moments) -> None:
        """Record the stages of images that one run answered, or that failed for one reason without a run."""
        num_images = len(group)
        queued = min(each.queued_at for each in group if each.queued_at is not None)
        run = group[0].run
        if run is None:
            queue = self._begin("queue", queued, below, moments, num_images=num_images)
            _add_outcomes(queue, [each.outcome for each in group])
            queue.end(moments.ns(max(each.ended for each in group)))
            return
        bucket = f"{run.num_images} x {run.shape[0]} x {run.shape[1]}"
        facts: dict[str, Fact] = {"run": run.number, "num_images": num_images}
        ran = run.begun + run.run_s
        self._begin("queue", queued, below, moments, **facts).end(moments.ns(run.begun))
        on_device = self._begin("run", run.begun, below, moments, bucket=bucket, fill=run.fill, **facts)
        on_device.end(moments.ns(ran))
        self._begin("decode", ran, below, moments, **facts).end(moments.ns(ran + run.decode_s))

    def _begin(
        self, name: str, begun: float, below: context.Context, moments: _Moments, **facts: Fact
    ) -> Recorded:
        return self._tracer.start_span(
            name, below, attributes=_attributes(facts), start_time=moments.ns(begun)
        )


class _Moments:
    """Turns moments by `time.perf_counter` into nanoseconds since 1970."""

    def __init__(self) -> None:
        # A busy system may hold this thread up between two readings: the closest pair of several is used.
        pairs: list[tuple[int, int]] = []
        for _ in range(5):
            before, now, after = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
            pairs.append((after - before, now - (before + after) // 2))
        self._since_1970_ns = min(pairs)[1]

    def ns(self, moment: float) -> int:
        return self._since_1970_ns + round(moment * 1e9)


class SpanLines(SpanExporter):
    """Writes spans into a file, one a line, as OpenTelemetry's own JSON.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter`."""
        with self._lock:
            for each in spans:
                self._file.write(each.to_json(indent=None) + "\n")
            self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """See `SpanExporter`."""
        with self._lock:
            self._file.close()


def _sender(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # While the collector is away, its log must not fill with the same line.
    rate_limited_log(_SENDER_LOG)
    base = endpoint.rstrip("/")
    sender: SpanExporter = OTLPSpanExporter(base if base.endswith(_TRACES_PATH) else base + _TRACES_PATH)
    return sender


def _groups(traces: Iterable[ImageTrace]) -> Iterable[Sequence[ImageTrace]]:
    """Group the queued images by their run, or by the reason why no run answered them."""
    groups: dict[int | str, list[ImageTrace]] = {}
    for each in traces:
        if each.queued_at is None:
            continue
        if each.run is not None:
            groups.setdefault(each.run.number, []).append(each)
        elif isinstance(each.outcome, Failed):
            groups.setdefault(each.outcome.reason, []).append(each)
    return groups.values()


def _add_outcomes(span: Recorded, outcomes: Sequence[Outcome]) -> None:
    counts = Counter(each.status for each in outcomes)
    facts: dict[str, Fact] = {f"num_{each}": counts[each] for each in ("detected", "rejected", "failed")}
    if reasons := sorted({str(each.reason) for each in outcomes if isinstance(each, Rejected | Failed)}):
        facts["reasons"] = reasons
    if num_fallback := sum(bool(each.stamp.fallback) for each in outcomes):
        facts["num_fallback"] = num_fallback
    span.set_attributes(_attributes(facts))
    failures = Counter(str(each.reason) for each in outcomes if isinstance(each, Failed))
    if failures:
        _fail(span, failures.most_common(1)[0][0])


def _fail(span: Recorded, reason: str) -> None:
    span.set_attribute("error.type", reason)
    span.set_status(Status(StatusCode.ERROR, reason))


def _reason(error: BaseException) -> str:
    """The reason of an error in a word; never the error's text, which may name a file."""
    if isinstance(error, Refused | NotAnswered | Full):
        return error.failure
    if isinstance(error, TimeoutError):
        return Failure.DEADLINE
    if isinstance(error, asyncio.CancelledError):
        return Failure.CANCELLED
    return type(error).__name__


def _attributes(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    return {f"rayface.{name}": fact for name, fact in facts.items()}
