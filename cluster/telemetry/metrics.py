"""The names of all metrics, and the observer that turns what happens in a detector into metrics.

They are metrics of Ray (`ray.util.metrics`): the node of the counting process serves them at its metrics
port, with `ray_` before the name. Durations are in seconds, shares 0..1; the name of a counter ends with
`_total`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from actors.faces import Detected, Failed, Health, Outcome, Priority, Rejected, State
from actors.observer import Observer, Run

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: The number that shows each state of a circuit.
CIRCUIT_VALUES: Mapping[str, float] = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        kind: counter (only grows), gauge (the value now) or histogram (how often each size occurs).
        tags: names of the labels, without those that Ray adds for the process.
        bounds: upper bounds of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_DETECTOR = ("detector",)

#: Metrics that each detector's process counts.
DETECTOR_METRICS: Sequence[Metric] = (
    Metric(
        "rayface_images_total", "counter", "Images by outcome.", ("detector", "outcome", "reason", "priority")
    ),
    Metric("rayface_batch_images", "histogram", "Images in a run.", _DETECTOR, _IMAGES),
    # For averages: Ray hands on a histogram's values only as the middles of their buckets.
    Metric("rayface_runs_total", "counter", "Runs on the device.", _DETECTOR),
    Metric("rayface_run_images_total", "counter", "Images in these runs.", _DETECTOR),
    Metric("rayface_run_slots_total", "counter", "Slots in the batches that ran.", _DETECTOR),
    Metric("rayface_queue_images", "gauge", "Images waiting.", ("detector", "priority")),
    Metric(
        "rayface_queue_wait_seconds",
        "histogram",
        "Seconds the images of a call waited for a run, the longest of each call.",
        ("detector", "priority"),
        _SECONDS,
    ),
    Metric(
        "rayface_run_seconds",
        "histogram",
        "Seconds of a run on the device.",
        ("detector", "bucket"),
        _SECONDS,
    ),
    Metric(
        "rayface_decode_seconds",
        "histogram",
        "Seconds to turn model outputs into faces, per run.",
        _DETECTOR,
        _SECONDS,
    ),
    Metric("rayface_device_busy_seconds_total", "counter", "Seconds of all runs on the device.", _DETECTOR),
    Metric("rayface_device_lanes", "gauge", "Runs that may be on the device at once.", _DETECTOR),
    Metric("rayface_starts_total", "counter", "Processes of a detector that started.", ("detector", "cause")),
    Metric("rayface_faults_total", "counter", "What went wrong, by event.", ("detector", "event", "reason")),
    Metric("rayface_state", "gauge", "1 for the state that the detector is in.", ("detector", "state")),
    Metric(
        "rayface_detector_info",
        "gauge",
        "Always 1; the labels name the detector.",
        ("detector", "host", "device", "provider", "model", "incarnation"),
    ),
    Metric(
        "rayface_owner_since_seconds",
        "gauge",
        "When the process took the device, in seconds since 1970.",
        _DETECTOR,
    ),
    Metric("rayface_golden_ok", "gauge", "1 if the last golden photo was right.", _DETECTOR),
    Metric(
        "rayface_golden_age_seconds", "gauge", "Seconds since the golden photo was last right.", _DETECTOR
    ),
    Metric("rayface_suspects", "gauge", "Images that will be run alone.", _DETECTOR),
    Metric("rayface_quarantined", "gauge", "Images that are not run.", _DETECTOR),
)

#: Metrics that each client counts; its driver process hands them to Ray.
CLIENT_METRICS: Sequence[Metric] = (
    Metric(
        "rayface_client_images_total",
        "counter",
        "Images by outcome, as callers saw it.",
        ("outcome", "reason", "served_by", "priority"),
    ),
    Metric(
        "rayface_client_call_seconds",
        "histogram",
        "Seconds of a call, with all waits.",
        ("priority",),
        _SECONDS,
    ),
    Metric("rayface_client_prepare_seconds", "histogram", "Seconds to make a photo small.", (), _SECONDS),
    Metric("rayface_client_asked_again_total", "counter", 'Images that got "not now" before.', ("priority",)),
    Metric("rayface_client_fallback_images_total", "counter", "Images answered by the CPU.", ("reason",)),
    Metric("rayface_client_fallback_refused_total", "counter", "Images beyond the CPU's budget."),
    Metric("rayface_client_images", "gauge", "Images prepared or asked for now."),
    Metric("rayface_client_paused", "gauge", "1 while bulk images wait for a detector."),
    Metric("rayface_client_circuit_state", "gauge", "0 closed, 1 half-open, 2 open.", ("detector",)),
    Metric("rayface_client_circuit_opened_total", "counter", "Circuits that opened.", ("detector", "reason")),
    Metric("rayface_client_connections_total", "counter", "Driver processes that joined the cluster."),
)

ALL_METRICS: Sequence[Metric] = (*DETECTOR_METRICS, *CLIENT_METRICS)

#: One observation: the name of a metric, the value, and the labels.
Observation = tuple[str, float, Mapping[str, str]]


class Sink(Protocol):
    """Where observations go; `deployment.ray_metrics.RayMetrics` is one."""

    def observe(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Add to a counter, set a gauge, or put into a histogram."""
        ...


class DetectorMetrics(Observer):
    """Turns what a detector does into metrics.

    Args:
        name: name of the detector.
        sink: where the metrics go.
    """

    def __init__(self, name: str, sink: Sink) -> None:
        self._name = name
        self._sink = sink

    def images(self, outcomes: Sequence[Outcome], priority: Priority) -> None:
        # A call's images count at once: telling Ray costs as much as a tenth of a small image's whole way.
        kinds = Counter(
            (outcome.status, str(outcome.reason) if isinstance(outcome, Rejected | Failed) else "")
            for outcome in outcomes
        )
        for (status, reason), num in kinds.items():
            self._observe("rayface_images_total", num, outcome=status, reason=reason, priority=str(priority))
        waits_ms = [outcome.times.queue_ms for outcome in outcomes if isinstance(outcome, Detected)]
        if waits_ms:
            self._observe("rayface_queue_wait_seconds", max(waits_ms) / 1000, priority=str(priority))

    def run(self, run: Run) -> None:
        self._observe("rayface_device_busy_seconds_total", run.run_s)
        if not run.num_images:
            return
        self._observe("rayface_batch_images", run.num_images)
        self._observe("rayface_runs_total", 1)
        self._observe("rayface_run_images_total", run.num_images)
        self._observe("rayface_run_slots_total", run.num_slots)
        bucket = f"{run.num_images} x {run.shape[0]} x {run.shape[1]}"
        self._observe("rayface_run_seconds", run.run_s, bucket=bucket)
        self._observe("rayface_decode_seconds", run.decode_s)

    def trouble(self, name: str, **facts: object) -> None:
        self._observe("rayface_faults_total", 1, event=name, reason=str(facts.get("reason", "")))

    def started(self, cause: str) -> None:
        """Count a start of a process; `cause` says in a word why the one before it ended."""
        self._observe("rayface_starts_total", 1, cause=cause)

    def report(self, health: Health) -> None:
        """Set the gauges to the health now; called every few seconds."""
        bulk = health.num_queued - health.num_queued_interactive
        self._observe("rayface_queue_images", health.num_queued_interactive, priority="interactive")
        self._observe("rayface_queue_images", bulk, priority="bulk")
        for state in State:
            self._observe("rayface_state", float(state is health.state), state=str(state))
        self._observe("rayface_device_lanes", health.num_lanes)
        if health.state is not State.STARTING:
            # Ray keeps every set of labels that it was ever told: wait until device and model are known.
            self._observe(
                "rayface_detector_info",
                1,
                host=health.host,
                device=health.device,
                provider=health.provider,
                model=health.stamp.model.partition("@")[0],
                incarnation=health.stamp.incarnation,
            )
        self._observe("rayface_owner_since_seconds", health.owner_since or 0.0)
        # A detector that waits for the head has not failed its test.
        is_right = health.state in (State.READY, State.WAITING)
        self._observe("rayface_golden_ok", float(is_right))
        if health.golden_age_s is not None:
            self._observe("rayface_golden_age_seconds", health.golden_age_s)
        self._observe("rayface_suspects", health.num_suspects)
        self._observe("rayface_quarantined", health.num_quarantined)

    def _observe(self, name: str, value: float, **tags: str) -> None:
        self._sink.observe(name, value, {"detector": self._name, **tags})
