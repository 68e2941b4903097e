"""A tracer that keeps its spans, and calls of clients that use one; no collector, no threads."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.faces import Outcome
from cluster.telemetry.otel import SpanTracer
from cluster.telemetry.tracing import Tracer
from tests.unit.clients import client_on, photos
from tests.unit.fake_cluster import FakeCluster
from tests.virtual_time import run


class Spans:
    """A tracer, and the spans that ended."""

    def __init__(self, **options: Any) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False, **options)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = SpanTracer(provider)

    @property
    def all(self) -> list[ReadableSpan]:
        """Return the spans in the order in which they began; then in the order of creation."""
        return sorted(self._memory.get_finished_spans(), key=lambda each: each.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.all if each.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def parents(self) -> dict[str, str | None]:
        """Return the name of each span and the name of its parent."""
        names = {each.context.span_id: each.name for each in self.all}
        return {each.name: names.get(each.parent.span_id) if each.parent else None for each in self.all}


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("rayface."): value for name, value in (span.attributes or {}).items()}


def reason(span: ReadableSpan) -> str | None:
    """Return why the span failed; None if it did not."""
    assert span.status.is_ok or span.status.description == facts(span)["error.type"]
    return span.status.description


def ask(
    tracer: Tracer,
    cluster: FakeCluster,
    num: int = 1,
    *,
    fallback: dict[str, Any] | None = None,
    **options: Any,
) -> list[Outcome]:
    """The outcomes of a call with `num` photos, of a client of its own in virtual time."""

    async def story() -> list[Outcome]:
        async with client_on(cluster, tracer=tracer, fallback=fallback or {}) as client:
            return await client.detect(photos(num), **options)

    return run(story())
