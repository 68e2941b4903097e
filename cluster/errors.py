"""Errors as people see them, and the one table of faults: whose, passing or lasting, what the circuit counts.

    RayfaceError
    ├── ConfigurationError     a setting or an argument cannot be used
    ├── ClusterUnavailable     no Ray to talk to, or it does not let us in
    ├── DeviceTaken            another process of this machine owns the device, or the machine is joined
    ├── DetectorNotReady       the cluster is there; the detector is not, or cannot prove itself
    ├── NotAnswered            a question came back without an answer; carries the `Fault`
    ├── Refused                no detector may be asked now; carries the `Cause`
    └── Full                   so many calls wait in this client already that another would wait in vain

The first four are raised where nothing can be asked at all. The last three stay inside the client: once
images are on their way nothing is raised, each image gets an outcome. These three carry the `failure` that
the outcome gets; `fault_of` says which one an error of Ray's stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from actors.errors import DetectorFault
from actors.faces import Failure


class RayfaceError(Exception):
    """Anything that `cluster` raises on purpose: what happened, why, and what to do next."""


class ConfigurationError(RayfaceError):
    """A setting or an argument cannot be used."""


class ClusterUnavailable(RayfaceError):
    """There is no Ray to talk to, or it does not let us in."""


class DeviceTaken(RayfaceError):
    """Another process of this machine owns the device, or has joined the machine already."""


class DetectorNotReady(RayfaceError):
    """The detector is missing, still starting, or faulty; `failure` says which kind of fault."""

    def __init__(self, message: str, failure: Failure = Failure.NOT_READY) -> None:
        super().__init__(message, failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.args[0])


class NotAnswered(RayfaceError):
    """A question to a detector or to the cluster came back without an answer; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    @property
    def failure(self) -> Failure:
        """What the caller sees."""
        return self.fault.failure

    def __str__(self) -> str:
        return self.fault.advice


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a circuit opened, or why a probe failed.

    Attributes:
        failure: what a caller sees who is refused for it.
        detail: the same in a sentence for people.
    """

    failure: Failure
    detail: str


class Refused(RayfaceError):
    """No detector may be asked now; says why, and how long until that may have changed."""

    def __init__(self, cause: Cause, retry_after_s: float) -> None:
        super().__init__(cause, retry_after_s)
        self.cause = cause
        self.retry_after_s = retry_after_s

    @property
    def failure(self) -> Failure:
        """What the caller sees."""
        return self.cause.failure

    def __str__(self) -> str:
        return self.cause.detail


class Full(RayfaceError):
    """So many calls wait in this client already that another would wait in vain."""

    failure = Failure.BUSY


class Whose(StrEnum):
    """Whose fault it is."""

    IMAGE = "image"
    CALLER = "caller"
    DEVICE = "device"
    CLUSTER = "cluster"
    OURS = "ours"


class Counts(StrEnum):
    """What a detector's circuit makes of a call that ended so.

    Attributes:
        NOTHING: it says nothing about the device. (A detector that is silent for long opens the circuit
            whatever its calls end with.)
        CALL: a failed call; many of them open the circuit.
        TRIP: asking again is of no use until somebody does something; the circuit opens at once.
    """

    NOTHING = "nothing"
    CALL = "call"
    TRIP = "trip"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means.

    Attributes:
        whose: fault it is.
        passing: whether asking again later can help without anybody doing anything.
        counts: what the circuit makes of it.
    """

    whose: Whose
    passing: bool
    counts: Counts


#: Every failure that an outcome can carry, each once.
VERDICTS: Mapping[Failure, Verdict] = {
    Failure.BUSY: Verdict(Whose.CALLER, True, Counts.NOTHING),
    Failure.DEADLINE: Verdict(Whose.CALLER, True, Counts.NOTHING),
    Failure.CANCELLED: Verdict(Whose.CALLER, False, Counts.NOTHING),
    Failure.NOT_READY: Verdict(Whose.DEVICE, True, Counts.NOTHING),
    Failure.MODEL_UNAVAILABLE: Verdict(Whose.DEVICE, False, Counts.TRIP),
    Failure.DEVICE_UNAVAILABLE: Verdict(Whose.DEVICE, False, Counts.TRIP),
    Failure.DEVICE_HELD: Verdict(Whose.DEVICE, False, Counts.TRIP),
    Failure.DEVICE_LIES: Verdict(Whose.DEVICE, False, Counts.TRIP),
    Failure.DEVICE_FAILED: Verdict(Whose.DEVICE, True, Counts.CALL),
    Failure.OUT_OF_MEMORY: Verdict(Whose.DEVICE, True, Counts.CALL),
    Failure.QUARANTINED: Verdict(Whose.IMAGE, False, Counts.NOTHING),
    Failure.DETECTOR_LOST: Verdict(Whose.CLUSTER, True, Counts.CALL),
    Failure.NO_CLUSTER: Verdict(Whose.CLUSTER, True, Counts.NOTHING),
    Failure.VERSION_MISMATCH: Verdict(Whose.CLUSTER, False, Counts.TRIP),
    Failure.INTERNAL: Verdict(Whose.OURS, False, Counts.CALL),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error means to us.

    Attributes:
        failure: what the caller sees.
        verdict: whose it is, passing or lasting, and what the circuit makes of it.
        advice: what happened and what to do, in a sentence or two.
    """

    failure: Failure
    verdict: Verdict
    advice: str

    @classmethod
    def of(cls, failure: Failure, advice: str) -> Fault:
        """With the verdict that stands in the table."""
        return cls(failure, VERDICTS[failure], advice)


@cache
def ray_faults() -> dict[type[BaseException], Fault]:
    """Every error that Ray can raise, each once. The most exact class of an error decides."""
    import ray.exceptions as rex

    of = Fault.of
    lost = of(Failure.DETECTOR_LOST, "The detector's process ended; Ray starts it again.")
    node = of(
        Failure.DETECTOR_LOST, "The detector's machine left the cluster. Check that it is on and joined."
    )
    away = of(Failure.DETECTOR_LOST, "The detector cannot be reached at the moment (restart or broken link).")
    gone = of(
        Failure.DETECTOR_LOST, "The image or its answer was lost on the way, with the process that held it."
    )
    nobody = Fault(
        Failure.DETECTOR_LOST,
        Verdict(Whose.CLUSTER, False, Counts.NOTHING),
        "No machine of the cluster can hold the detector (`ray status` shows resources).",
    )
    cluster = of(
        Failure.NO_CLUSTER, "The Ray cluster does not answer. Check that its head runs and can be reached."
    )
    token = Fault(
        Failure.NO_CLUSTER,
        Verdict(Whose.CLUSTER, False, Counts.TRIP),
        "The cluster refused our token. Use the head's own: RAY_AUTH_TOKEN or ~/.ray/auth_token.",
    )
    late = of(Failure.DEADLINE, "No answer came in time.")
    full = of(Failure.BUSY, "Too many calls are under way. Ask again in a moment.")
    memory = Fault(
        Failure.OUT_OF_MEMORY,
        Verdict(Whose.CLUSTER, True, Counts.CALL),
        "A machine of the cluster is out of memory or disk for Ray's object store.",
    )
    cancelled = of(Failure.CANCELLED, "The call was cancelled.")
    version = of(
        Failure.VERSION_MISMATCH,
        "Client and detector cannot read each other's messages: install the same rayface on both.",
    )
    internal = of(
        Failure.INTERNAL,
        "Something failed that never should; `ray logs` holds the details. Please report it.",
    )
    return {
        rex.RayError: internal,
        rex.RayActorError: lost,
        rex.ActorDiedError: lost,
        rex.ActorUnavailableError: away,
        rex.ActorUnschedulableError: nobody,
        rex.TaskUnschedulableError: nobody,
        rex.ActorAlreadyExistsError: internal,
        rex.ActorHandleNotFoundError: lost,
        rex.ActorPlacementGroupRemoved: nobody,
        rex.TaskPlacementGroupRemoved: nobody,
        rex.AsyncioActorExit: lost,
        rex.AuthenticationError: token,
        rex.CrossLanguageError: internal,
        rex.GetTimeoutError: late,
        rex.LocalRayletDiedError: cluster,
        rex.NodeDiedError: node,
        rex.ObjectFetchTimedOutError: gone,
        rex.ObjectFreedError: gone,
        rex.ObjectLostError: gone,
        rex.ObjectReconstructionFailedError: gone,
        rex.ObjectRefStreamEndOfStreamError: internal,
        rex.ObjectStoreFullError: memory,
        rex.OufOfBandObjectRefSerializationException: internal,
        rex.OutOfDiskError: memory,
        rex.OutOfMemoryError: memory,
        rex.OwnerDiedError: gone,
        rex.PendingCallsLimitExceeded: full,
        rex.PlasmaObjectNotAvailable: gone,
        rex.RayCgraphCapacityExceeded: full,
        rex.RayChannelError: internal,
        rex.RayChannelTimeoutError: late,
        rex.RayDirectTransportError: internal,
        rex.RaySystemError: internal,
        rex.RayTaskError: internal,
        rex.ReferenceCountingAssertionError: gone,
        rex.RpcError: cluster,
        rex.RuntimeEnvSetupError: nobody,
        rex.StreamingGeneratorReplayInconsistentError: internal,
        rex.TaskCancelledError: cancelled,
        rex.UnserializableException: version,
        rex.UserCodeException: internal,
        rex.WorkerCrashedError: lost,
    }


def fault_of(error: BaseException) -> Fault:
    """The fault that an error stands for; the most exact class that the table knows decides."""
    if isinstance(error, NotAnswered):
        return error.fault
    if isinstance(error, DetectorFault):
        return Fault.of(error.failure, error.detail)
    if isinstance(error, TimeoutError) and not _is_rays(error):
        return Fault.of(Failure.DEADLINE, "No answer came in time.")
    cause = getattr(error, "cause", None)
    if _is_rays(error) and isinstance(cause, TypeError | AttributeError | ImportError):
        # What a detector of another version says to a call it does not know.
        return Fault.of(
            Failure.VERSION_MISMATCH,
            f"The detector did not understand the call: {cause}. Install the same rayface.",
        )
    table = ray_faults()
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return Fault.of(Failure.INTERNAL, f"Something failed that never should: {error!r}. Please report it.")


def _is_rays(error: BaseException) -> bool:
    import ray.exceptions as rex

    return isinstance(error, rex.RayError)
