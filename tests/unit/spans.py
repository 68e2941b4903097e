"""A tracer that keeps its spans, and clients that use one; no collector, no threads."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.faces import Outcome
from cluster.client.detector import Detector
from cluster.client.detector_pool import DetectorPool
from cluster.client.face_client import FaceClient
from cluster.settings import load_settings
from cluster.telemetry.otel import SpanTracer
from cluster.telemetry.tracing import Tracer
from tests.fakes import prepared
from tests.unit.fake_cluster import FakeCluster, health, quiet
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
        """In the order in which they began; of the same moment, in that in which they were made."""
        return sorted(self._memory.get_finished_spans(), key=lambda each: each.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.all if each.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def parents(self) -> dict[str, str | None]:
        """The name of each, and of what it is a part of."""
        names = {each.context.span_id: each.name for each in self.all}
        return {each.name: names.get(each.parent.span_id) if each.parent else None for each in self.all}


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("rayface."): value for name, value in (span.attributes or {}).items()}


def reason(span: ReadableSpan) -> str | None:
    """Why it failed; None if it did not."""
    assert span.status.is_ok or span.status.description == facts(span)["error.type"]
    return span.status.description


class Clients:
    """Makes clients whose photos need no threads, on the virtual clock."""

    def __init__(self, tracer: Tracer, **sections: dict[str, Any]) -> None:
        self._tracer = tracer
        self._settings = load_settings(**sections)

    def made(self, cluster: FakeCluster) -> FaceClient:
        log = quiet(asyncio.get_running_loop().time)
        pool = DetectorPool(cluster, self._settings.circuit, log)
        pool.detectors["FaceDetector"] = known = Detector("FaceDetector", self._settings.circuit, 0.0)
        known.hear(asyncio.get_running_loop().time(), health())
        return FaceClient(cluster, pool, self._settings, log, self._tracer)  # type: ignore[arg-type]  # a fake

    def ask(self, cluster: FakeCluster, num: int = 1, **options: Any) -> list[Outcome]:
        async def story() -> list[Outcome]:
            client = self.made(cluster)
            outcomes = await client.detect([prepared(each) for each in range(num)], **options)
            await client._fallback.close()
            return outcomes

        return run(story())
