"""Spans on the detector's side, below those of who asked; where spans go, and what is said if they cannot."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors import model_life
from actors.call_settings import CallSettings
from actors.encoded_image import SentImage
from actors.face_detector import start_detector
from actors.faces import Detected, Failure, Outcome, Priority
from actors.observer import Call, ImageTrace, Observer, Run
from actors.settings import DetectorSettings
from cluster.client.face_client import FaceClient
from cluster.errors import ConfigurationError
from cluster.settings import TracingSettings, load_settings
from cluster.telemetry import setup
from cluster.telemetry.setup import span_listeners, tracer_of
from cluster.telemetry.tracing import Tracer
from tests.fakes import MODEL, FakeDevice, prepared
from tests.unit.clients import client_on, photos
from tests.unit.fake_cluster import FakeCluster, detected, failed, health
from tests.unit.spans import Spans, ask, facts, reason

SETTINGS = DetectorSettings(batch_sizes=(1, 2, 4), num_lanes=1, num_prepare_threads=1, input_size=320)
TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)


def test_a_detector_goes_on_below_who_asked_it() -> None:
    """One trace from the call to the device; the detector has a provider of its own, as in reality."""
    there, here = Spans(), Spans()
    listener = there.tracer.listener("FaceDetector")
    detector = start_detector("FaceDetector", SETTINGS, FakeDevice(), observer=listener)

    class ToDetector(FakeCluster):
        async def detect(
            self,
            name: str,
            images: Sequence[SentImage],
            priority: Priority,
            deadline_s: float,
            traceparent: str = "",
            settings: CallSettings | None = None,
            *,
            timeout_s: float,
        ) -> list[Outcome]:
            return await detector.detect(images, priority, deadline_s, traceparent)

    async def story() -> list[Outcome]:
        cluster = ToDetector()
        cluster.healths["FaceDetector"] = health(shapes=((320, 320),))
        async with client_on(cluster, tracer=here.tracer) as client:
            return await client.detect(photos(3))

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


def test_a_detector_tells_nobody_of_a_call_that_nobody_follows() -> None:
    """Nor of one that came with something that is no trace."""
    told: list[Call] = []

    class Listener(Observer):
        def call(self, call: Call) -> None:
            told.append(call)

    detector = start_detector("FaceDetector", SETTINGS, FakeDevice(), observer=Listener())

    async def story() -> None:
        await detector.detect([prepared(0, (320, 320))])
        assert told == []
        await detector.detect([prepared(0, (320, 320)), b""], "bulk", 20.0, "mine")

    asyncio.run(story())
    (call,) = told
    assert (call.trace, call.priority) == ("mine", Priority.BULK)
    good, bad = call.traces
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
    late = ImageTrace(failed(Failure.DEADLINE), 3.0, queued_at=1.0)
    found = ImageTrace(detected(1), 2.7, queued_at=1.5, run=shared)
    early = ImageTrace(detected(1), 2.7, queued_at=1.2, run=shared)
    refused = ImageTrace(failed(Failure.BUSY), 1.0)
    listener.call(Call(TRACE, Priority.BULK, 1.0, 3.0, (found, late, early, refused)))
    other = TRACE.replace("ab", "ef")
    listener.call(Call(other, Priority.INTERACTIVE, 1.4, 2.7, (found,)))
    runs = spans.named("run")
    assert [facts(each)["run"] for each in runs] == [17, 17]
    assert sorted((facts(each)["num_images"], facts(each)["fill"]) for each in runs) == [(1, 0.75), (2, 0.75)]
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
    made: list[Tracer] = []

    def kept(*arguments: Any) -> Tracer:
        made.append(tracer_of(*arguments))
        return made[-1]

    monkeypatch.setattr(setup, "tracer_of", kept)
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
    for tracer in made:
        tracer.close()


def test_an_address_that_is_none_is_said() -> None:
    """Before anything is sent to it."""
    with pytest.raises(ConfigurationError, match=r"tracing\.endpoint.*http://127\.0\.0\.1:4318"):
        load_settings(tracing={"endpoint": "127.0.0.1:4318"})


def test_a_folder_holds_a_span_a_line(tmp_path: Path) -> None:
    """Of each process a file; each line with the process that it is of."""
    tracer = tracer_of(TracingSettings(folder=tmp_path / "spans"), "rayface-client")
    ask(tracer, FakeCluster(), 2)
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
