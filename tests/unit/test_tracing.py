"""Spans of a call, from the client through the detector; and that there is nothing at all without them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from actors import model_life
from actors.face_detector import FaceDetector
from actors.faces import Detected, Failure, Outcome, Priority
from actors.observer import Call, Course, Observer, Run
from actors.settings import DetectorSettings
from cluster import client as client_module
from cluster import fallback as fallback_module
from cluster.client import FaceClient
from cluster.detector import Detector
from cluster.errors import ConfigurationError
from cluster.fleet import Fleet
from cluster.settings import TracingSettings, load_settings
from cluster.telemetry import SpanTracer
from cluster.tracing import OFF, Tracer, span_listeners, tracer_of
from tests.fakes import MODEL, FakeDevice, prepared
from tests.unit import test_surviving
from tests.unit.road import Road, detected, failed, health, lost
from tests.virtual_time import run

HERE = Path(__file__).parents[2]
SETTINGS = DetectorSettings(batch_sizes=(1, 2, 4), num_lanes=1, num_prepare_threads=1, input_size=320)
TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


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

    def made(self, road: Road) -> FaceClient:
        log = test_surviving.quiet(asyncio.get_running_loop().time)
        fleet = Fleet(road, self._settings.circuit, log)
        fleet.detectors["FaceDetector"] = known = Detector("FaceDetector", self._settings.circuit, 0.0)
        known.hear(asyncio.get_running_loop().time(), health())
        return FaceClient(road, fleet, self._settings, log, self._tracer)  # type: ignore[arg-type]  # a road

    def ask(self, road: Road, num: int = 1, **options: Any) -> list[Outcome]:
        async def story() -> list[Outcome]:
            client = self.made(road)
            outcomes = await client.detect([prepared(each) for each in range(num)], **options)
            await client._fallback.close()
            return outcomes

        return run(story())


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "Preparation", test_surviving.Preparation)


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    """A backend that does not trace does not pay for it, at import or in a call."""
    program = (
        "import asyncio, sys\n"
        "from tests.unit.test_client import asking, photo\n"
        "from tests.unit.road import Road\n"
        "(outcome,) = asyncio.run(asking(Road(), [photo(3)]))\n"
        "assert outcome.width == 3\n"
        "print(*(name for name in sys.modules if 'opentelemetry' in name or name == 'cluster.telemetry'))"
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
        entered.note(detector="x")
        entered.outcomes([failed(Failure.BUSY)])
    assert entered is span
    assert span.traceparent == ""
    assert tracer.listener("FaceDetector") is None
    road = Road()
    Clients(OFF).ask(road, 2)
    assert (road.calls, road.traces) == ([2], [])


def test_the_stages_of_a_call_are_below_it() -> None:
    """With counts and names, and nothing of the photos."""
    spans, road = Spans(), Road()
    Clients(spans.tracer).ask(road, 3, priority="bulk", deadline_s=7)
    assert spans.parents() == {
        "rayface.detect": None,
        "wait for place": "rayface.detect",
        "prepare": "rayface.detect",
        "wait for detector": "rayface.detect",
        "ask detector": "rayface.detect",
    }
    counts = {"num_images": 3, "num_detected": 3, "num_rejected": 0, "num_failed": 0}
    assert facts(spans.one("rayface.detect")) == {"priority": "bulk", "deadline_s": 7.0, **counts}
    asked = spans.one("ask detector")
    assert facts(asked) == {"detector": "FaceDetector", "incarnation": "life-1", **counts}
    (sent,) = road.traces
    assert sent.startswith(f"00-{asked.context.trace_id:032x}-{asked.context.span_id:016x}-")
    assert all(reason(each) is None for each in spans.all)


def test_each_call_of_a_stream_is_a_trace_of_its_own() -> None:
    """A scan of a week would be one that nobody can look at."""
    spans = Spans()

    async def story() -> None:
        client = Clients(spans.tracer, client={"images_per_call": 2}).made(Road())
        assert len([each async for each in client.stream(prepared(n) for n in range(6))]) == 6

    asyncio.run(story())
    roots = spans.named("rayface.detect")
    assert sum(facts(each)["num_images"] for each in roots) == 6
    assert len({each.context.trace_id for each in roots}) == len(roots) >= 3
    assert {each.context.trace_id for each in spans.all} == {each.context.trace_id for each in roots}


def test_what_was_busy_is_another_attempt() -> None:
    """Each with its own outcome; the call itself went well."""

    class BusyAtFirst(Road):
        def answer(self, images: Sequence[Any]) -> Any:
            return [failed(Failure.BUSY, 0.5) if len(self.calls) == 1 else detected(1) for _ in images]

    spans = Spans()
    Clients(spans.tracer).ask(BusyAtFirst())
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
    spans, road = Spans(), Road()
    road.answer = lambda images: answer  # type: ignore[method-assign]
    if isinstance(answer, RuntimeError):
        with pytest.raises(RuntimeError):
            Clients(spans.tracer).ask(road)
    else:
        Clients(spans.tracer).ask(road)
    assert reason(spans.one("ask detector")) == reason(spans.one("rayface.detect")) == said
    assert not any(each.events for each in spans.all)
    assert "secret" not in "".join(each.to_json() for each in spans.all)


def test_a_call_that_nobody_may_be_asked_for_says_why() -> None:
    """The circuit's reason, at the stage that waited for a detector."""
    spans = Spans()

    async def story() -> None:
        client = Clients(spans.tracer).made(Road())
        lying = health(state="faulty", reason="zeros", failure=Failure.DEVICE_LIES)
        client._fleet.detectors["FaceDetector"].hear(0.0, lying)
        await client.detect([prepared()])

    run(story())
    assert reason(spans.one("wait for detector")) == reason(spans.one("rayface.detect")) == "device_lies"
    assert spans.named("ask detector") == []


def test_no_room_is_a_busy_place() -> None:
    """The stage that it did not get past."""
    spans = Spans()

    async def story() -> None:
        bounds = {"max_images_in_flight": 1, "max_waiting_calls": 1}
        client = Clients(spans.tracer, client=bounds).made(Road(seconds=1.0))
        await asyncio.gather(*(client.detect([prepared()]) for _ in range(3)))

    run(story())
    assert sorted(str(reason(each)) for each in spans.named("wait for place")) == ["None", "None", "busy"]


def test_the_cpu_that_stands_in_is_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of its images; what the detector did not answer stays marked."""
    monkeypatch.setattr(fallback_module, "FaceDetector", test_surviving.Cpu)
    spans, road = Spans(), Road()
    road.answer = lambda images: lost()  # type: ignore[method-assign]
    Clients(spans.tracer, fallback={"policy": "after_s"}).ask(road, 2)
    assert spans.parents()["fallback"] == "rayface.detect"
    assert facts(spans.one("fallback"))["num_detected"] == 2
    assert reason(spans.one("ask detector")) == "detector_lost"
    root = spans.one("rayface.detect")
    assert (facts(root)["num_fallback"], reason(root)) == (2, None)


def test_a_trace_of_the_backend_goes_on_in_ours() -> None:
    """Whatever it traces with; and what it does not sample, we do not, nor does the detector hear of it."""
    spans, road = Spans(), Road()
    for flags in (TraceFlags.SAMPLED, TraceFlags.DEFAULT):
        above = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=TraceFlags(flags))
        with trace.use_span(NonRecordingSpan(above)):
            Clients(spans.tracer).ask(road)
    root = spans.one("rayface.detect")
    assert root.parent is not None
    assert (root.context.trace_id, root.parent.span_id) == (0xAB, 0xCD)
    assert len(road.traces) == 1
    Clients(Spans(sampler=ALWAYS_OFF).tracer).ask(road)
    assert len(road.traces) == 1


@pytest.fixture
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)
    return


@pytest.mark.usefixtures("_fake_model")
def test_a_detector_goes_on_below_who_asked_it() -> None:
    """One trace from the call to the device; the detector has a provider of its own, as in reality."""
    there, here = Spans(), Spans()
    listener = there.tracer.listener("FaceDetector")
    detector = FaceDetector("FaceDetector", SETTINGS, FakeDevice(), observer=listener)

    class ToDetector(Road):
        async def _detect(
            self, name: str, images: Sequence[Any], priority: str, deadline_s: float, *trace: str
        ) -> Any:
            return await detector.detect(images, priority, deadline_s, *trace)

    async def story() -> list[Outcome]:
        photos = [prepared(each, (320, 320)) for each in range(3)]
        return await Clients(here.tracer).made(ToDetector()).detect(photos)

    begun = time.time_ns()
    outcomes = asyncio.run(story())
    assert [type(each) for each in outcomes] == [Detected] * 3
    asked, answer = here.one("ask detector"), there.one("rayface.answer")
    assert answer.parent is not None
    assert (answer.context.trace_id, answer.parent.span_id) == (asked.context.trace_id, asked.context.span_id)
    assert there.parents() == {
        "rayface.answer": None,
        "queue": "rayface.answer",
        "run": "rayface.answer",
        "decode": "rayface.answer",
    }
    said = facts(answer)
    assert said["incarnation"] == outcomes[0].stamp.incarnation == facts(asked)["incarnation"]
    assert (said["detector"], said["num_images"], said["num_detected"]) == ("FaceDetector", 3, 3)
    runs = there.named("run")
    assert sum(facts(each)["num_images"] for each in runs) == 3
    assert all(facts(each)["bucket"].endswith("x 320 x 320") and facts(each)["fill"] > 0 for each in runs)
    for each in there.all:
        assert each.start_time is not None
        assert each.end_time is not None
        assert begun < each.start_time <= each.end_time < time.time_ns()
    for queue, ran, decode in zip(there.named("queue"), runs, there.named("decode"), strict=True):
        assert facts(queue)["run"] == facts(ran)["run"] == facts(decode)["run"]
        assert (queue.end_time, ran.end_time) == (ran.start_time, decode.start_time)


@pytest.mark.usefixtures("_fake_model")
def test_a_detector_tells_nobody_of_a_call_that_nobody_follows() -> None:
    """Nor of one that came with something that is no trace."""
    told: list[Call] = []

    class Listener(Observer):
        def call(self, call: Call) -> None:
            told.append(call)

    detector = FaceDetector("FaceDetector", SETTINGS, FakeDevice(), observer=Listener())

    async def story() -> None:
        await detector.detect([prepared(0, (320, 320))])
        assert told == []
        await detector.detect([prepared(0, (320, 320)), b""], "bulk", 20.0, "mine")

    asyncio.run(story())
    (call,) = told
    assert (call.trace, call.priority) == ("mine", Priority.BULK)
    good, bad = call.courses
    assert good.run is not None
    assert good.queued_at is not None
    assert call.begun <= good.queued_at <= good.run.begun <= good.ended <= call.ended
    assert (bad.queued_at, bad.run) == (None, None)
    spans = Spans()
    listener = spans.tracer.listener("FaceDetector")
    assert listener is not None
    listener.call(call)
    assert spans.all == []


def test_a_run_that_serves_two_calls_is_in_both_traces() -> None:
    """With the same number; images that no run answered say why they waited."""
    spans = Spans()
    listener = spans.tracer.listener("FaceDetector")
    assert listener is not None
    shared = Run(3, 4, (640, 640), 0.5, 0.1, begun=2.0, number=17)
    late = Course(failed(Failure.DEADLINE), 3.0, queued_at=1.0)
    found = Course(detected(1), 2.7, queued_at=1.5, run=shared)
    early = Course(detected(1), 2.7, queued_at=1.2, run=shared)
    refused = Course(failed(Failure.BUSY), 1.0)
    listener.call(Call(TRACE, Priority.BULK, 1.0, 3.0, (found, late, early, refused)))
    other = TRACE.replace("ab", "ef")
    listener.call(Call(other, Priority.INTERACTIVE, 1.4, 2.7, (found,)))
    runs = spans.named("run")
    assert [facts(each)["run"] for each in runs] == [17, 17]
    assert [(facts(each)["num_images"], facts(each)["fill"]) for each in runs] == [(2, 0.75), (1, 0.75)]
    assert {f"{each.context.trace_id:x}" for each in runs} == {"ab" * 16, "ef" * 16}
    assert [reason(each) for each in spans.named("queue")].count("deadline") == 1
    seconds = [
        ((each.end_time or 0) - (each.start_time or 0)) / 1e9
        for each in [*spans.named("queue"), *runs, *spans.named("decode")]
    ]
    assert sorted(seconds) == pytest.approx([0.1, 0.1, 0.5, 0.5, 0.5, 0.8, 2.0], abs=1e-6)
    assert [reason(each) for each in spans.named("rayface.answer")] == ["deadline", None]


def test_without_what_sends_spans_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To whoever makes a client; a detector answers all the same, and says it in its log."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    endpoint = {"endpoint": "http://127.0.0.1:4318"}
    with pytest.raises(ConfigurationError, match=r"pip install 'rayface\[tracing\]'"):
        asyncio.run(FaceClient.connect(load_settings(tracing=endpoint)))
    log = Log()
    assert span_listeners("FaceDetector", "life-1", endpoint, log) == []
    assert [name for name, _ in log.told] == ["not_traced"]
    assert "pip install" in log.told[0][1]


class Log(Observer):
    """Remembers what went wrong."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def trouble(self, name: str, **facts: object) -> None:
        self.told.append((name, str(facts["detail"])))


def test_a_machines_own_variables_come_before_what_its_detector_was_placed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector has another address from there, or none."""
    log = Log()
    assert span_listeners("FaceDetector", "life-1", None, log) == []
    placed_with = TracingSettings(folder=tmp_path / "placed").model_dump(mode="json")
    monkeypatch.setenv("RAYFACE_TRACING__FOLDER", str(tmp_path / "own"))
    assert len(span_listeners("FaceDetector", "life-1", placed_with, log)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["own"]
    monkeypatch.setenv("RAYFACE_TRACING__FOLDER", "")
    assert span_listeners("FaceDetector", "life-1", placed_with, log) == []
    assert log.told == []
    monkeypatch.setenv("RAYFACE_TRACING__ENDPOINT", "http://me:hunter2@collector:4318")
    assert span_listeners("FaceDetector", "life-1", placed_with, log) == []
    assert "OTEL_EXPORTER_OTLP_HEADERS" in log.told[0][1]
    assert "hunter2" not in log.told[0][1]


def test_an_address_that_is_none_is_said() -> None:
    """Before anything is sent to it."""
    with pytest.raises(ConfigurationError, match=r"tracing\.endpoint.*http://127\.0\.0\.1:4318"):
        load_settings(tracing={"endpoint": "127.0.0.1:4318"})


def test_a_folder_holds_a_span_a_line(tmp_path: Path) -> None:
    """Of each process a file; each line with the process that it is of."""
    tracer = tracer_of(TracingSettings(folder=tmp_path / "spans"), "rayface-client")
    Clients(tracer).ask(Road(), 2)
    tracer.close()
    (file,) = (tmp_path / "spans").iterdir()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["name"] == "rayface.detect"
    assert {each["resource"]["attributes"]["service.name"] for each in rows} == {"rayface-client"}
    assert len({each["context"]["trace_id"] for each in rows}) == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """With its path."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"tracing\.folder, .*file"):
        tracer_of(TracingSettings(folder=tmp_path / "file"), "rayface-client")
