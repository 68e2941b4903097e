"""Spans of a call as the client makes them; and that there is nothing at all where nobody wants any."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from actors.faces import Failure
from cluster.settings import TracingSettings
from cluster.telemetry.setup import tracer_of
from cluster.telemetry.tracing import OFF
from tests.unit.clients import client_on, photos
from tests.unit.fake_cluster import FakeCluster, detected, failed, health, lost
from tests.unit.spans import Spans, ask, facts, reason
from tests.virtual_time import run

HERE = Path(__file__).parents[2]


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    """A backend that does not trace does not pay for it, at import or in a call."""
    program = (
        "import asyncio, sys\n"
        "from tests.unit.clients import asking, photo\n"
        "from tests.unit.fake_cluster import FakeCluster\n"
        "(outcome,) = asyncio.run(asking(FakeCluster(), [photo(3)]))\n"
        "assert outcome.width == 3\n"
        "print(*(name for name in sys.modules if 'opentelemetry' in name or name.endswith('telemetry.otel')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=HERE
    )
    assert done.stdout.split() == []


def test_off_there_is_one_span_for_everything_and_it_does_nothing() -> None:
    """Nothing is made for a stage, nothing more travels, and nobody listens in the detector."""
    tracer = tracer_of(TracingSettings(), "rayface-client")
    assert tracer is OFF
    span = tracer.span("ask detector", num_images=1)
    assert span is tracer.span("prepare")
    assert not hasattr(span, "__dict__")
    with span as entered:
        entered.add(detector="x")
        entered.outcomes([failed(Failure.BUSY)])
    assert entered is span
    assert span.traceparent == ""
    assert tracer.listener("FaceDetector") is None
    cluster = FakeCluster()
    ask(OFF, cluster, 2)
    assert (cluster.calls, cluster.traces) == ([2], [])


def test_the_stages_of_a_call_are_below_it() -> None:
    """With counts and names, and nothing of the photos."""
    spans, cluster = Spans(), FakeCluster()
    ask(spans.tracer, cluster, 3, priority="bulk", deadline_s=7)
    assert spans.parents() == {
        "rayface.detect": None,
        "wait for room": "rayface.detect",
        "prepare": "rayface.detect",
        "wait for detector": "rayface.detect",
        "ask detector": "rayface.detect",
    }
    counts = {"num_images": 3, "num_detected": 3, "num_rejected": 0, "num_failed": 0}
    assert facts(spans.one("rayface.detect")) == {"priority": "bulk", "deadline_s": 7.0, **counts}
    asked = spans.one("ask detector")
    assert facts(asked) == {"detector": "FaceDetector", "incarnation": "life-1", **counts}
    (sent,) = cluster.traces
    assert sent.startswith(f"00-{asked.context.trace_id:032x}-{asked.context.span_id:016x}-")
    assert all(reason(each) is None for each in spans.all)


def test_each_call_of_a_stream_is_a_trace_of_its_own() -> None:
    """A scan of a week would be one that nobody can look at."""
    spans = Spans()

    async def story() -> None:
        async with client_on(FakeCluster(), tracer=spans.tracer, client={"images_per_call": 2}) as client:
            assert len([each async for each in client.stream(photos(6))]) == 6

    run(story())
    roots = spans.named("rayface.detect")
    assert sum(facts(each)["num_images"] for each in roots) == 6
    assert len({each.context.trace_id for each in roots}) == len(roots) >= 3
    assert {each.context.trace_id for each in spans.all} == {each.context.trace_id for each in roots}


def test_what_was_busy_is_another_attempt() -> None:
    """Each with its own outcome; the call itself went well."""

    class BusyAtFirst(FakeCluster):
        def answer(self, images: Sequence[Any]) -> Any:
            return [failed(Failure.BUSY, 0.5) if len(self.calls) == 1 else detected(1) for _ in images]

    spans = Spans()
    ask(spans.tracer, BusyAtFirst())
    assert [reason(each) for each in spans.named("ask detector")] == ["busy", None]
    assert facts(spans.named("ask detector")[0])["reasons"] == ("busy",)
    assert reason(spans.one("rayface.detect")) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lost(), "detector_lost"),
        ([failed(Failure.DEVICE_FAILED)], "device_failed"),
        (RuntimeError("of /home/me/secret.jpg"), "RuntimeError"),
    ],
)
def test_what_failed_is_marked_with_its_reason(answer: Any, said: str) -> None:
    """The attempt, and the call that had nothing better; in a word, never in the error's own text."""
    spans, cluster = Spans(), FakeCluster()
    cluster.answer = lambda images: answer  # type: ignore[method-assign]  # its script
    if isinstance(answer, RuntimeError):
        with pytest.raises(RuntimeError):
            ask(spans.tracer, cluster)
    else:
        ask(spans.tracer, cluster)
    assert reason(spans.one("ask detector")) == reason(spans.one("rayface.detect")) == said
    assert not any(each.events for each in spans.all)
    assert "secret" not in "".join(each.to_json() for each in spans.all)


def test_a_call_that_nobody_may_be_asked_for_says_why() -> None:
    """The circuit's reason, at the stage that waited for a detector."""
    spans = Spans()

    async def story() -> None:
        cluster = FakeCluster()
        cluster.healths["FaceDetector"] = health(state="faulty", detail="zeros", failure=Failure.DEVICE_LIES)
        async with client_on(cluster, tracer=spans.tracer) as client:
            await client.detect(photos(1))

    run(story())
    assert reason(spans.one("wait for detector")) == reason(spans.one("rayface.detect")) == "device_lies"
    assert spans.named("ask detector") == []


def test_no_room_is_a_busy_place() -> None:
    """The stage that it did not get past."""
    spans = Spans()

    async def story() -> None:
        bounds = {"max_images_in_flight": 1, "max_waiting_calls": 1}
        async with client_on(FakeCluster(seconds=1.0), tracer=spans.tracer, client=bounds) as client:
            await asyncio.gather(*(client.detect(photos(1)) for _ in range(3)))

    run(story())
    assert sorted(str(reason(each)) for each in spans.named("wait for room")) == ["None", "None", "busy"]


def test_the_cpu_that_stands_in_is_a_stage() -> None:
    """With the number of its images; what the detector did not answer stays marked."""
    spans, cluster = Spans(), FakeCluster()
    cluster.answer = lambda images: lost()  # type: ignore[method-assign]  # its script
    ask(spans.tracer, cluster, 2, fallback={"policy": "after_s"})
    assert spans.parents()["fallback"] == "rayface.detect"
    assert facts(spans.one("fallback"))["num_detected"] == 2
    assert reason(spans.one("ask detector")) == "detector_lost"
    root = spans.one("rayface.detect")
    assert (facts(root)["num_fallback"], reason(root)) == (2, None)


def test_a_trace_of_the_backend_goes_on_in_ours() -> None:
    """Whatever it traces with; and what it does not sample, we do not, nor does the detector hear of it."""
    spans, cluster = Spans(), FakeCluster()
    for flags in (TraceFlags.SAMPLED, TraceFlags.DEFAULT):
        above = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=TraceFlags(flags))
        with trace.use_span(NonRecordingSpan(above)):
            ask(spans.tracer, cluster)
    root = spans.one("rayface.detect")
    assert root.parent is not None
    assert (root.context.trace_id, root.parent.span_id) == (0xAB, 0xCD)
    assert len(cluster.traces) == 1
    ask(Spans(sampler=ALWAYS_OFF).tracer, cluster)
    assert len(cluster.traces) == 1
