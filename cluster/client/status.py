"""How a client is at one moment: its way to the cluster, its circuits, its fallback. Plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class DetectorStatus:
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


@dataclass(frozen=True, slots=True)
class ClientStatus:
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
        num_connections: driver processes that joined the cluster so far.
        outcomes: images so far by detected, rejected and failed.
    """

    address: str
    why_not: str
    paused: str
    num_images: int
    num_waiting_calls: int
    detectors: tuple[DetectorStatus, ...]
    fallback: dict[str, int]
    num_fallback_refused: int
    num_connections: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)
