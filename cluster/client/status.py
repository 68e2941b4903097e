"""The status of a client at one moment: its connection, its circuits, its fallback. Plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class DetectorStatus:
    """A detector as one client sees it.

    Attributes:
        name: the detector's name.
        state: the state that it reports; "away" if it does not answer, "unknown" if it never did.
        circuit: the state of its circuit: "closed", "open" or "half_open".
        reason: why the circuit is not closed, as a `Failure`; empty while it is closed.
        detail: the same in words.
        since_s: seconds since the circuit is in this state.
        retry_after_s: seconds until a probe may be sent.
        num_calls: calls in the circuit's window.
        num_failed: failed calls in the window.
        num_slow: slow calls in the window.
        num_opened: how often the circuit opened.
        num_in_flight: images that were sent to it and are not answered yet.
        last_error: the newest error, in words.
        wire: how photos travel to it now: "pixels" or "jpeg".
        link_mbit_s: how fast they travel, by this client's own calls, in Mbit/s; None while that is unknown.
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
    wire: str = "pixels"
    link_mbit_s: float | None = None


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """The status of a client.

    Attributes:
        address: the address of the cluster that the client has joined; empty while it has joined none.
        why_not: why it has joined no cluster; empty while it has joined one.
        paused: why bulk images wait; empty while they do not.
        num_images: images that are being prepared or asked for now.
        num_waiting_calls: calls that wait for room.
        detectors: the detectors, as this client sees them.
        fallback: images that the client's CPU answered so far, by reason.
        num_fallback_refused: images that the policy gave to the CPU and that the CPU did not answer.
        num_connections: driver processes that joined the cluster so far.
        outcomes: images so far, by "detected", "rejected" and "failed".
        start_ms: milliseconds that the parts of opening took: "cluster" (starting or joining it) and
            "detector" (finding or placing one, until one was ready). Empty for a client that was opened
            without waiting.
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
    start_ms: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """This status as JSON-ready values."""
        return asdict(self)
