"""The errors that people see, and what each failure means for a circuit.

    RayfaceError
    ├── ConfigurationError     a setting or an argument cannot be used
    ├── ClusterUnavailable     no Ray to talk to, or it does not let us in
    ├── DeviceTaken            another process of this machine owns the device, or has joined already
    ├── DetectorNotReady       the cluster is there; the detector is not, or cannot prove itself
    │   └── VersionSkew        two machines have different versions of rayface, and would misread each other
    ├── ClientNotUsable        a client is not open yet, is closed, or belongs to another loop or process
    ├── NotAnswered            a question came back without an answer; carries the `Fault`
    ├── Refused                no detector may be asked now; carries the `Fault` too
    └── Full                   too many calls wait in this client already

The first five are raised where nothing can be asked at all. The last three stay inside the client: once
images are on their way, nothing is raised, and each image gets an outcome. These three carry the `failure`
that the outcome gets; `deployment.ray_errors` says which failure an error of Ray's stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from actors.faces import Failure


class RayfaceError(Exception):
    """Every error that `cluster` raises on purpose; it says what happened, why, and what to do next."""


class ConfigurationError(RayfaceError):
    """A setting or an argument cannot be used."""


class ClusterUnavailable(RayfaceError):
    """There is no Ray to talk to, or it does not let us in."""


class DeviceTaken(RayfaceError):
    """Another process of this machine owns the device, or has joined already."""


class DetectorNotReady(RayfaceError):
    """The detector is missing, still starting, or faulty; `failure` says which kind of fault."""

    def __init__(self, message: str, failure: Failure = Failure.NOT_READY) -> None:
        super().__init__(message, failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.args[0])


class VersionSkew(DetectorNotReady):
    """Two processes have versions of rayface that would misread each other; says what to upgrade."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Failure.VERSION_SKEW)

    def __reduce__(self) -> tuple[type[VersionSkew], tuple[str]]:
        return VersionSkew, (str(self),)


class ClientNotUsable(RayfaceError):
    """A client is not open yet, is closed, or belongs to another event loop or process."""


class NotAnswered(RayfaceError):
    """A question to a detector or to the cluster got no answer; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    @property
    def failure(self) -> Failure:
        """The failure that the image's outcome gets."""
        return self.fault.failure

    def __str__(self) -> str:
        return self.fault.detail


class Refused(RayfaceError):
    """No detector may be asked now; `fault` says why, and `retry_after_s` when to try again."""

    def __init__(self, fault: Fault, retry_after_s: float) -> None:
        super().__init__(fault, retry_after_s)
        self.fault = fault
        self.retry_after_s = retry_after_s

    @property
    def failure(self) -> Failure:
        """The failure that the image's outcome gets."""
        return self.fault.failure

    def __str__(self) -> str:
        return self.fault.detail


class Full(RayfaceError):
    """Too many calls wait in this client already; the setting is client.max_waiting_calls."""

    failure = Failure.BUSY


class Counts(StrEnum):
    """What a call that ended with a failure means for the detector's circuit.

    Attributes:
        NOTHING: it says nothing about the device. (A long silence of a detector opens the circuit in any
            case.)
        CALL: it is a failed call; many of them open the circuit.
        TRIP: asking again is of no use until somebody changes something, so the circuit opens at once.
    """

    NOTHING = "nothing"
    CALL = "call"
    TRIP = "trip"


#: What each failure that an outcome can carry means for the circuit.
COUNTS_OF: Mapping[Failure, Counts] = {
    Failure.BUSY: Counts.NOTHING,
    Failure.DEADLINE: Counts.NOTHING,
    Failure.CANCELLED: Counts.NOTHING,
    Failure.NOT_READY: Counts.NOTHING,
    Failure.MODEL_UNAVAILABLE: Counts.TRIP,
    Failure.DEVICE_UNAVAILABLE: Counts.TRIP,
    Failure.DEVICE_HELD: Counts.TRIP,
    Failure.DEVICE_LIES: Counts.TRIP,
    Failure.DEVICE_FAILED: Counts.CALL,
    Failure.OUT_OF_MEMORY: Counts.CALL,
    Failure.QUARANTINED: Counts.NOTHING,
    Failure.DETECTOR_LOST: Counts.CALL,
    Failure.HEAD_SILENT: Counts.NOTHING,
    Failure.NO_CLUSTER: Counts.NOTHING,
    Failure.VERSION_SKEW: Counts.TRIP,
    Failure.OTHER_SETTINGS: Counts.TRIP,
    Failure.INTERNAL: Counts.CALL,
}

#: "Not now": nobody is at fault and no answer was lost. The same photos may be asked for again, within their
#: deadline, after the outcome's `retry_after_s`. That is flow control, and no retry.
NOT_NOW = frozenset({Failure.BUSY, Failure.NOT_READY, Failure.HEAD_SILENT})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a question got no answer, why a circuit opened, or why a probe failed.

    Attributes:
        failure: the kind of failure; an outcome carries it.
        detail: one or two sentences: what happened, and what to do.
        counts: what it means for a detector's circuit.
    """

    failure: Failure
    detail: str
    counts: Counts

    @classmethod
    def of(cls, failure: Failure, detail: str) -> Fault:
        """A fault of this kind, with `counts` from the table."""
        return cls(failure, detail, COUNTS_OF[failure])
