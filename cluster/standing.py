"""How a client is at one moment: its way to the cluster, its circuits, its fallback. Plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from cluster.admission import Admission
from cluster.carrier import Carrier
from cluster.detector import Detector
from cluster.fallback import Fallback
from cluster.fleet import Fleet


@dataclass(frozen=True, slots=True)
class DetectorStanding:
    """A detector as one client sees it.

    Attributes:
        state: as it says itself, "away" if it does not answer, "unknown" if it never did.
        circuit: closed, open or half_open.
        reason: why the circuit is not closed, as a failure; empty if it is.
        detail: the same in words.
        since_s: seconds in this state of the circuit.
        retry_after_s: until a probe may be sent.
        num_calls: judged in the circuit's window.
        num_failed: of these.
        num_slow: of these.
        num_opened: times that the circuit opened.
        num_in_flight: images sent and not answered yet.
        last_error: what went wrong last, in words.
    """

    name: str
    state: str
    circuit: str
    reason: str
    detail: str
    since_s: float
    retry_after_s: float
    num_calls: int
    num_failed: int
    num_slow: int
    num_opened: int
    num_in_flight: int
    last_error: str

    @classmethod
    def of(cls, detector: Detector, now: float) -> Self:
        """At the present, on the clock of the fleet."""
        view = detector.circuit.view(now)
        state = "unknown" if detector.health is None else str(detector.health.state)
        return cls(
            name=detector.name,
            state="away" if detector.is_away else state,
            circuit=str(view.state),
            reason=str(view.cause.failure) if view.cause else "",
            detail=view.cause.detail if view.cause else "",
            since_s=round(view.since_s, 1),
            retry_after_s=round(view.retry_after_s, 1),
            num_calls=view.num_calls,
            num_failed=view.num_failed,
            num_slow=view.num_slow,
            num_opened=view.num_opened,
            num_in_flight=detector.num_in_flight,
            last_error=detector.last_error,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """A client.

    Attributes:
        address: of the cluster that it has joined; empty while it has not.
        why_not: what keeps it from joining, while it has not.
        paused: why bulk images wait; empty while they do not.
        num_images: that are prepared or asked for now.
        num_waiting_calls: that wait for room.
        detectors: as it sees them.
        fallback: images that its CPU answered so far, by reason.
        num_fallback_refused: images that it would have, but for its budget or its queue.
        num_connections: couriers that joined the cluster so far.
        outcomes: images so far by detected, rejected and failed.
    """

    address: str
    why_not: str
    paused: str
    num_images: int
    num_waiting_calls: int
    detectors: tuple[DetectorStanding, ...]
    fallback: dict[str, int]
    num_fallback_refused: int
    num_connections: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        carrier: Carrier,
        fleet: Fleet,
        fallback: Fallback,
        admission: Admission,
        paused: str,
        outcomes: Mapping[str, int],
        now: float,
    ) -> Self:
        """At the present, on the clock of the fleet."""
        return cls(
            address=carrier.address,
            why_not="" if carrier.address else carrier.reason,
            paused=paused,
            num_images=admission.num_taken,
            num_waiting_calls=admission.num_waiting,
            detectors=tuple(DetectorStanding.of(each, now) for each in fleet.detectors.values()),
            fallback=dict(fallback.num_by_reason),
            num_fallback_refused=fallback.num_refused,
            num_connections=carrier.num_joined,
            outcomes=dict(outcomes),
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.as_dict())
