"""A call followed through real processes: one trace, from the backend's own span to the detector's device."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from actors.faces import Detected
from cluster import BlockingFaceClient, load_settings
from tests.live.conftest import command, rows

STAGES = {
    "rayface-client": {"rayface.detect", "wait for room", "prepare", "wait for detector", "ask detector"},
    "rayface-detector": {"rayface.answer", "queue", "run", "decode"},
}
CAN_SEND = importlib.util.find_spec("opentelemetry.exporter.otlp") is not None
_ARRIVE_WITHIN_S = 10.0

needs_sender = pytest.mark.skipif(not CAN_SEND, reason="rayface[tracing] is not installed")


@dataclass(frozen=True)
class Seen:
    """One span as it arrived, identities in hex."""

    name: str
    service: str
    pid: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]


class Collector:
    """Takes spans by OTLP over HTTP, as every OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: Any) -> None:
        """Remember the spans of one request."""
        for resource in request.resource_spans:
            about = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [
                    Seen(
                        each.name,
                        about["service.name"],
                        int(about["process.pid"]),
                        each.trace_id.hex(),
                        each.span_id.hex(),
                        each.parent_span_id.hex(),
                        _values(each.attributes),
                    )
                    for each in scope.spans
                ]

    def close(self) -> None:
        """Take no more spans."""
        self._server.shutdown()
        self._server.server_close()


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def written(folder: Path) -> list[Seen]:
    """The spans that processes have written into the folder."""
    return [
        Seen(
            row["name"],
            row["resource"]["attributes"]["service.name"],
            row["resource"]["attributes"]["process.pid"],
            row["context"]["trace_id"].removeprefix("0x"),
            row["context"]["span_id"].removeprefix("0x"),
            (row["parent_id"] or "").removeprefix("0x"),
            row["attributes"],
        )
        for file in folder.glob("*.jsonl")
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())
    ]


@dataclass
class Traced:
    """A client that traces, and the place to which its spans go."""

    client: BlockingFaceClient
    folder: Path
    collector: Collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """An embedded cluster of its own; spans go to a collector, if they can be sent, and into a folder."""
    folder, collector = tmp_path_factory.mktemp("spans"), Collector()
    tracing = {"folder": str(folder), "endpoint": collector.endpoint if CAN_SEND else ""}
    try:
        with BlockingFaceClient(load_settings(tracing=tracing)) as client:
            yield Traced(client, folder, collector)
    finally:
        collector.close()


def arrived(spans: Callable[[], list[Seen]], trace_id: str) -> list[Seen]:
    """The spans of one trace, as soon as both the client's and the detector's are there."""
    until = time.monotonic() + _ARRIVE_WITHIN_S
    while True:
        found = [each for each in spans() if each.trace_id == trace_id]
        if {"rayface.detect", "rayface.answer"} <= {each.name for each in found}:
            return found
        assert time.monotonic() < until, sorted({(each.service, each.name) for each in spans()})
        time.sleep(0.05)


def assert_one_trace(found: list[Seen], num_images: int) -> None:
    """Every stage has a span, with the right service, below the stage that contains it."""
    names = {service: {each.name for each in found if each.service == service} for service in STAGES}
    assert names == STAGES
    pids = {service: {each.pid for each in found if each.service == service} for service in STAGES}
    assert pids["rayface-client"].isdisjoint(pids["rayface-detector"])
    by_id = {each.span_id: each for each in found}
    above = {each.name: by_id[each.parent_id].name for each in found if each.parent_id in by_id}
    assert above == {
        "wait for room": "rayface.detect",
        "prepare": "rayface.detect",
        "wait for detector": "rayface.detect",
        "ask detector": "rayface.detect",
        "rayface.answer": "ask detector",
        "queue": "rayface.answer",
        "run": "rayface.answer",
        "decode": "rayface.answer",
    }
    asked = next(each for each in found if each.name == "ask detector")
    answered = next(each for each in found if each.name == "rayface.answer")
    assert asked.attributes["rayface.incarnation"] == answered.attributes["rayface.incarnation"]
    runs = [each for each in found if each.name == "run"]
    assert sum(each.attributes["rayface.num_images"] for each in runs) == num_images


@pytest.mark.parametrize("where", ["folder", pytest.param("collector", marks=needs_sender)])
def test_one_trace_from_the_backends_own_span_to_the_device(traced: Traced, photos: Path, where: str) -> None:
    """Client and detector are in different processes, so the backend's own tracing is not touched."""
    trace_id = os.urandom(16).hex()
    above = SpanContext(int(trace_id, 16), 0xCD, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with trace.use_span(NonRecordingSpan(above)):
        outcomes = traced.client.detect([photos / "astronaut.jpg", photos / "coffee.jpg"])
    assert [type(each) for each in outcomes] == [Detected] * 2
    found = arrived(
        lambda: written(traced.folder) if where == "folder" else list(traced.collector.spans), trace_id
    )
    assert_one_trace(found, 2)
    root = next(each for each in found if each.name == "rayface.detect")
    assert root.parent_id == f"{0xCD:016x}"
    assert "astronaut" not in json.dumps([each.attributes for each in found])


@needs_sender
def test_what_an_embedded_detector_did_last_is_sent_before_it_ends(traced: Traced, photos: Path) -> None:
    """A variable turns tracing on for `rayface detect`; its cluster ends right after the answer."""
    before = len(traced.collector.spans)
    done = command(
        "detect",
        str(photos / "astronaut.jpg"),
        "--json",
        variables={"RAYFACE_TRACING__ENDPOINT": traced.collector.endpoint},
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(done.stdout)) == 1
    sent = traced.collector.spans[before:]
    (trace_id,) = {each.trace_id for each in sent}
    assert_one_trace([each for each in sent if each.trace_id == trace_id], 1)
