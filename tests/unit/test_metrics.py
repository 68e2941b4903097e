"""What is counted: by name, once, with units in the names; and what a client's count survives."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from actors import observer
from actors.faces import Failure, Health, Priority, State
from actors.observer import Call, Observer, Observers, Run, Tally
from cluster.client.metrics import ClientMetrics
from cluster.client.status import ClientStatus, DetectorStatus
from cluster.deployment.detector_actor import Reporter
from cluster.deployment.ray_metrics import RayMetrics
from cluster.errors import Fault, NotAnswered
from cluster.telemetry.event_log import DetectorLog
from cluster.telemetry.metrics import ALL_METRICS, CIRCUIT_VALUES, DetectorMetrics
from tests.unit.fake_cluster import FakeCluster, detected, failed, health, quiet
from tests.virtual_time import run


class Sink(RayMetrics):
    """Remembers what Ray would be told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, float, dict[str, str]]] = []

    def observe(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        assert set(tags or {}) <= set(self._known[name].tags), (name, tags)
        self.seen.append((name, value, dict(tags or {})))

    def values(self, name: str) -> list[float]:
        return [value for seen, value, _ in self.seen if seen == name]


def test_names_carry_their_units() -> None:
    """A counter ends with _total, a duration with _seconds; no name twice, few labels."""
    names = [each.name for each in ALL_METRICS]
    assert len(set(names)) == len(names)
    for each in ALL_METRICS:
        assert each.name.startswith("rayface_")
        assert each.description
        assert (each.kind == "counter") == each.name.endswith("_total")
        assert (each.kind == "histogram") == bool(each.bounds)
        assert len(each.tags) <= 6
    assert CIRCUIT_VALUES == {"closed": 0, "half_open": 1, "open": 2}


def test_what_a_detector_does_is_counted() -> None:
    sink = Sink()
    metrics = DetectorMetrics("FaceDetector", sink)
    metrics.images([detected(1)], Priority.BULK)
    metrics.images([failed(Failure.BUSY)], Priority.INTERACTIVE)
    metrics.run(Run(4, 8, (640, 640), 0.05, 0.002))
    metrics.run(Run(0, 0, (640, 640), 0.01, 0.001))
    metrics.trouble("run_failed", reason=Failure.DEVICE_FAILED, detail="x")
    metrics.started("killed")
    metrics.report(health(num_queued=5, num_queued_interactive=2))
    assert sink.values("rayface_images_total") == [1, 1]
    assert sink.values("rayface_device_busy_seconds_total") == [0.05, 0.01]
    assert sink.values("rayface_batch_images") == [4], "the golden photo is no batch"
    assert sink.values("rayface_runs_total") == [1]
    assert sink.values("rayface_run_images_total") == [4]
    assert sink.values("rayface_run_slots_total") == [8]
    assert sink.values("rayface_queue_images") == [2, 3]
    assert sink.values("rayface_faults_total") == [1]
    states = {tags["state"]: value for name, value, tags in sink.seen if name == "rayface_state"}
    assert states == {"ready": 1, "starting": 0, "waiting": 0, "faulty": 0, "draining": 0}
    assert all(tags["detector"] == "FaceDetector" for _, _, tags in sink.seen)


def test_listeners_hear_everything_and_the_tally_adds_up() -> None:
    """Whatever an observer can be told, several are told."""
    heard: Counter[str] = Counter()

    class Listener(Observer):
        def images(self, *_: Any) -> None:
            heard["images"] += 1

        def run(self, *_: Any) -> None:
            heard["run"] += 1

        def call(self, *_: Any) -> None:
            heard["call"] += 1

        def event(self, *_: Any, **__: Any) -> None:
            heard["event"] += 1

        def trouble(self, *_: Any, **__: Any) -> None:
            heard["trouble"] += 1

    tally = Tally()
    all_of_them = Observers([Listener(), tally, Listener()])
    all_of_them.images([detected(1)], Priority.BULK)
    all_of_them.run(Run(3, 4, (640, 640), 0.5, 0.1))
    all_of_them.run(Run(0, 0, (640, 640), 0.5, 0.1))
    all_of_them.call(Call("", Priority.BULK, 0.0, 1.0, ()))
    all_of_them.event("ready")
    all_of_them.trouble("faulty")
    told = [name for name, _ in inspect.getmembers(observer.Observer, inspect.isfunction)]
    assert heard == {"images": 2, "run": 4, "call": 2, "event": 2, "trouble": 2}
    assert set(heard) == set(told)
    assert (tally.num("detected"), tally.num_runs, tally.num_images_run, tally.num_slots) == (1, 1, 3, 4)
    assert tally.busy_s == 1.0


def test_a_listener_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it raise where an image is answered; it is logged once a kind."""

    class Broken(Observer):
        def images(self, *_: Any) -> None:
            raise ZeroDivisionError("no number")

    tally = Tally()
    observers = Observers([Broken()])
    observers.add(tally)
    for _ in range(3):
        observers.images([detected(1)], Priority.BULK)
    assert tally.num("detected") == 3
    assert caplog.text.count("The observer Broken failed") == 1
    assert "ZeroDivisionError: no number" in caplog.text


@pytest.mark.parametrize(
    ("last_words", "is_restart", "cause"),
    [
        ("", False, "first"),
        ("", True, "killed"),
        ("hung: A run has taken 11 s", True, "hung"),
        ("removed: 887A0005", False, "removed"),
    ],
)
def test_a_start_is_counted_once_with_its_cause(last_words: str, is_restart: bool, cause: str) -> None:
    sink = Sink()
    states = [State.STARTING, State.READY, State.READY]
    metrics = DetectorMetrics("a", sink)
    log = DetectorLog("a", "life", lambda: 0.0)
    started: list[int] = []
    reporter = Reporter(
        lambda: health(state=states.pop(0), last_words=last_words),
        metrics,
        log,
        quiet(lambda: 0.0),
        is_restart,
        started=lambda: started.append(len(states)),
    )
    for _ in range(3):
        reporter.step()
    assert started == [1], "once, after the first look at which it was ready"
    starts = [(value, tags["cause"]) for name, value, tags in sink.seen if name == "rayface_starts_total"]
    assert starts == [(1, cause)]


@pytest.mark.parametrize("error", [OSError("full"), ZeroDivisionError("no lanes")], ids=repr)
def test_a_report_that_fails_is_not_the_last(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    sink, pauses = Sink(), list[float]()
    healths: list[Health | Exception] = [error, health(), health()]

    def snapshot() -> Health:
        if isinstance(now := healths.pop(0), Exception):
            raise now
        return now

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if not healths:
            raise SystemExit

    metrics = DetectorMetrics("a", sink)
    log = DetectorLog("a", "life", lambda: 0.0)
    with pytest.raises(SystemExit):
        Reporter(snapshot, metrics, log, quiet(lambda: 0.0), False, sleep).run()
    assert len(pauses) == 3
    assert sink.values("rayface_golden_ok") == [1, 1]
    assert "Reporting the detector's health failed" in caplog.text
    assert f"{type(error).__name__}: {error}" in caplog.text


def status(**changes: Any) -> ClientStatus:
    known: dict[str, Any] = {
        "address": "head:1",
        "why_not": "",
        "paused": "",
        "num_images": 0,
        "num_waiting_calls": 0,
        "detectors": (),
        "fallback": {},
        "num_fallback_refused": 0,
        "num_connections": 1,
    }
    return ClientStatus(**known | changes)


def test_what_a_client_counts_is_sent_once_and_kept_until_it_is() -> None:
    """An outage loses no count."""

    async def story() -> None:
        cluster = FakeCluster()
        cluster.is_away = True
        metrics = ClientMetrics(cluster, status)
        metrics.joined()
        metrics.fallback_refused()
        metrics.circuit_opened("a", Fault.of(Failure.DEVICE_LIES, "zeros"))
        metrics.call_ended([detected(1), failed(Failure.BUSY)], Priority.INTERACTIVE, 0.2)
        with pytest.raises(NotAnswered):
            await metrics.flush()
        cluster.is_away = False
        metrics.call_ended([detected(1)], Priority.INTERACTIVE, 0.3)
        await metrics.flush()
        await metrics.flush()
        images: Counter[str] = Counter()
        for name, value, tags in cluster.observed:
            if name == "rayface_client_images_total":
                images[tags["outcome"]] += int(value)
        assert images == {"detected": 2, "failed": 1}
        calls = [value for name, value, _ in cluster.observed if name == "rayface_client_call_seconds"]
        assert calls == [0.2, 0.3]
        told = [(name, value, tags) for name, value, tags in cluster.observed if name in _TOLD_ONCE]
        assert sorted(told, key=lambda each: each[0]) == [
            ("rayface_client_circuit_opened_total", 1, {"detector": "a", "reason": "device_lies"}),
            ("rayface_client_connections_total", 1, {}),
            ("rayface_client_fallback_refused_total", 1, {}),
        ]

    run(story())


_TOLD_ONCE = {
    "rayface_client_circuit_opened_total",
    "rayface_client_connections_total",
    "rayface_client_fallback_refused_total",
}


def test_a_circuit_is_shown_as_a_number() -> None:
    def of(circuit: str) -> DetectorStatus:
        return DetectorStatus("a", "ready", circuit, "", "", 0, 0, 0, 0, 0, 0, 0, "")

    async def story() -> None:
        cluster = FakeCluster()
        now = [status()]
        metrics = ClientMetrics(cluster, lambda: now[0])
        for circuit in ("closed", "open", "half_open"):
            now[0] = status(detectors=(of(circuit),))
            await metrics.flush()
        assert [v for name, v, _ in cluster.observed if name == "rayface_client_circuit_state"] == [0, 2, 1]

    run(story())


def test_durations_are_bounded_while_nobody_takes_them() -> None:
    """I6."""

    async def story() -> None:
        cluster = FakeCluster()
        metrics = ClientMetrics(cluster, status)
        for _ in range(30_000):
            metrics.call_ended([detected(1)], Priority.BULK, 0.1)
        await metrics.flush()
        assert len(cluster.observed) < 10_100
        images = [value for name, value, _ in cluster.observed if name == "rayface_client_images_total"]
        assert images == [30_000]

    run(story())
