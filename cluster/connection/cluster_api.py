"""Every question that a backend can ask its cluster: one typed method each.

`Connection` asks them, by messages to its driver process; `handlers.Handlers` answers them there. A unit
test compares the three, so a question cannot exist on one side only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from actors.call_settings import CallSettings
from actors.encoded_image import SentImage
from actors.faces import Health, Outcome, Priority
from actors.images import PreparedImage
from cluster.protocol.identity import Identity
from cluster.protocol.rows import PrepareOrder, Unusable
from cluster.telemetry.metrics import Observation

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        node_id: Ray's identifier, in hex.
        address: the address at which the other machines reach it.
        name: the name that the machine gives itself.
        resources: what it offers, by Ray's names.
        ports: its ports that every other machine must reach, by what listens there.
        identity: which rayface it has; None if it does not tell.
    """

    node_id: str
    address: str
    name: str
    resources: dict[str, float]
    ports: dict[str, int] = field(default_factory=dict)
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class ActorEntry:
    """What Ray's table of actors says of a detector.

    Attributes:
        state: Ray's word: ALIVE, RESTARTING, PENDING_CREATION, DEAD.
        num_restarts: restarts since it was placed.
        address: the machine where it is, or was last.
        port: the port of its process; 0 while it has none.
        cause: Ray's reason why its last process ended; empty if Ray gives none.
    """

    state: str
    num_restarts: int
    address: str
    port: int = 0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class DriverAddress:
    """Where the driver process can be reached.

    Attributes:
        node_id: the machine that Ray counts it to, in hex.
        address: the address at which others reach it.
        port: the port at which detectors and tasks answer it; 0 if it cannot be found out.
    """

    node_id: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Pulse:
    """Whether a driver process can still serve.

    Attributes:
        stranded: why this process is of no more use although the cluster may be well; empty while it is
            of use.
    """

    stranded: str


class ClusterApi(Protocol):
    """The cluster, as a backend sees it; `Connection` is one.

    Each question takes `timeout_s`, the seconds after which nobody waits for its answer any more, and raises
    `NotAnswered` if no answer came; the error's fault says why.
    """

    @property
    def address(self) -> str:
        """The joined cluster's address, HOST:PORT; empty while none is joined."""
        ...

    @property
    def why_not(self) -> str:
        """Why no cluster is joined at the moment, in a sentence."""
        ...

    @property
    def num_joined(self) -> int:
        """How often a cluster was joined so far."""
        ...

    async def place_detectors(self, *, timeout_s: float) -> list[str]:
        """Place a detector for each lent device that has none; returns the names of all detectors."""
        ...

    async def list_detectors(self, *, timeout_s: float) -> list[str]:
        """The names of all detectors; places none."""
        ...

    async def remove_detector(self, detector: str, *, timeout_s: float) -> None:
        """Remove a detector for good."""
        ...

    async def replace_detector(self, detector: str, drain_s: float, *, timeout_s: float) -> None:
        """Place a detector anew, by this machine's settings, without losing a photo.

        Args:
            detector: its name.
            drain_s: how long it may take to answer what it has accepted, in seconds.
            timeout_s: seconds to wait for the answer.
        """
        ...

    async def detect(
        self,
        detector: str,
        images: Sequence[SentImage],
        priority: Priority,
        deadline_s: float,
        traceparent: str = "",
        settings: CallSettings | None = None,
        *,
        timeout_s: float,
    ) -> list[Outcome]:
        """Find the faces in images: one outcome for each image, in order.

        Args:
            detector: its name.
            images: prepared photos.
            priority: which photos the detector runs first.
            deadline_s: seconds after which the outcomes are of no use any more.
            traceparent: the caller's span in OpenTelemetry; empty where nobody traces the call.
            settings: of the call; None takes those of the detector.
            timeout_s: seconds to wait for the answer.
        """
        ...

    async def prepare(
        self, node_id: str, encoded: bytes, order: PrepareOrder, *, timeout_s: float
    ) -> PreparedImage | Unusable:
        """Make a photo small on one machine, in a task there that takes one of its CPUs.

        Args:
            node_id: the machine.
            encoded: the photo.
            order: how it is made small.
            timeout_s: seconds to wait for the answer.

        Returns:
            The small photo, or why it cannot be used.
        """
        ...

    async def health(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
        """How a detector is, after waiting up to `wait_s` seconds for its start."""
        ...

    async def self_test(self, detector: str, wait_s: float, *, timeout_s: float) -> Health:
        """Let a detector run the golden photo, for up to `wait_s` seconds; returns how it is then."""
        ...

    async def nodes(self, *, timeout_s: float) -> list[Node]:
        """The machines that are in the cluster now."""
        ...

    async def actor_entries(self, *, timeout_s: float) -> dict[str, ActorEntry]:
        """What Ray's table of actors says of each detector, by name."""
        ...

    async def driver_address(self, *, timeout_s: float) -> DriverAddress:
        """Where the driver process itself can be reached."""
        ...

    async def pulse(self, *, timeout_s: float) -> Pulse:
        """Whether the driver process can still serve."""
        ...

    async def run_on(self, node_id: str, work: partial[Value], *, timeout_s: float) -> Value:
        """Run a function of `rayface` on one machine, in a small task there; returns what it returns.

        Args:
            node_id: the machine.
            work: the function with its arguments by position; that machine imports the function by its name.
                Arguments and result are plain values (numbers, texts, lists, mappings).
            timeout_s: seconds to wait for the answer.
        """
        ...

    async def record_metrics(self, observations: Sequence[Observation], *, timeout_s: float) -> None:
        """Add what a client has counted to Ray's metrics."""
        ...

    async def put_value(self, key: str, value: bytes, *, timeout_s: float) -> None:
        """Write a value into the cluster's key-value store, in place of an earlier one."""
        ...

    async def get_values(self, prefix: str, *, timeout_s: float) -> dict[str, bytes]:
        """Every value in the cluster's key-value store whose key begins with the prefix, by key."""
        ...

    async def delete_value(self, key: str, *, timeout_s: float) -> None:
        """Delete a value from the cluster's key-value store; a missing one is no error."""
        ...
