"""Errors as people see them, and the one table from Ray's errors to ours.

    RayfaceError
    ├── ConfigurationError     a setting or an argument cannot be used
    ├── ClusterUnavailable     no Ray to talk to, or it does not let us in
    ├── DeviceTaken            another process of this machine owns the device, or the machine is joined
    └── DetectorNotReady       the cluster is there; the detector is not, or cannot prove itself

These are raised where nothing can be asked at all. Once images are on their way nothing is raised: each gets
an outcome, and `fault_of` says which `Failure` an error of Ray's stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error of Ray's means to us.

    Attributes:
        failure: what the caller sees.
        passing: whether asking again later can help without anybody doing anything.
        advice: what happened and what to do, in a sentence or two.
    """

    failure: Failure
    passing: bool
    advice: str


@cache
def ray_faults() -> dict[type[BaseException], Fault]:
    """Every error that Ray can raise, each once. The most exact class of an error decides."""
    import ray.exceptions as rex

    lost = Fault(Failure.DETECTOR_LOST, True, "The detector's process ended; Ray starts it again.")
    node = Fault(
        Failure.DETECTOR_LOST,
        True,
        "The detector's machine left the cluster. Check that it is on and joined.",
    )
    away = Fault(
        Failure.DETECTOR_LOST, True, "The detector cannot be reached at the moment (restart or broken link)."
    )
    gone = Fault(
        Failure.DETECTOR_LOST,
        True,
        "The image or its answer was lost on the way, with the process that held it.",
    )
    nobody = Fault(
        Failure.DETECTOR_LOST,
        False,
        "No machine of the cluster can hold the detector (`ray status` shows resources).",
    )
    cluster = Fault(
        Failure.NO_CLUSTER,
        True,
        "The Ray cluster does not answer. Check that its head runs and can be reached.",
    )
    token = Fault(
        Failure.NO_CLUSTER,
        False,
        "The cluster refused our token. Use the head's own: RAY_AUTH_TOKEN or ~/.ray/auth_token.",
    )
    late = Fault(Failure.DEADLINE, True, "No answer came in time.")
    full = Fault(Failure.BUSY, True, "Too many calls are under way. Ask again in a moment.")
    memory = Fault(
        Failure.OUT_OF_MEMORY,
        True,
        "A machine of the cluster is out of memory or disk for Ray's object store.",
    )
    cancelled = Fault(Failure.CANCELLED, False, "The call was cancelled.")
    version = Fault(
        Failure.VERSION_MISMATCH,
        False,
        "Client and detector cannot read each other's messages: install the same rayface on both.",
    )
    internal = Fault(
        Failure.INTERNAL,
        False,
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
    if isinstance(error, DetectorFault):
        return Fault(error.failure, True, error.detail)
    if isinstance(error, TimeoutError) and not _is_rays(error):
        return Fault(Failure.DEADLINE, True, "No answer came in time.")
    cause = getattr(error, "cause", None)
    if _is_rays(error) and isinstance(cause, TypeError | AttributeError | ImportError):
        # What a detector of another version says to a call it does not know.
        return Fault(
            Failure.VERSION_MISMATCH,
            False,
            f"The detector did not understand the call: {cause}. Install the same rayface.",
        )
    table = ray_faults()
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return Fault(Failure.INTERNAL, False, f"Something failed that never should: {error!r}. Please report it.")


def _is_rays(error: BaseException) -> bool:
    import ray.exceptions as rex

    return isinstance(error, rex.RayError)
