"""The one table from Ray's errors to our faults."""

from __future__ import annotations

from functools import cache

from actors.errors import DetectorFault
from actors.faces import Failure
from actors.named_state import OtherFields
from cluster.errors import Counts, Fault, NotAnswered


@cache
def ray_faults() -> dict[type[BaseException], Fault]:
    """The fault for every error that Ray can raise; the most exact class of an error decides."""
    import ray.exceptions as rex

    of = Fault.of
    lost = of(Failure.DETECTOR_LOST, "The detector's process ended; Ray starts it again.")
    node = of(
        Failure.DETECTOR_LOST, "The detector's machine left the cluster. Check that it is on and joined."
    )
    away = of(Failure.DETECTOR_LOST, "A call did not reach the detector's process, or its answer was lost.")
    worker = of(Failure.DETECTOR_LOST, "The process that Ray had started for this on a machine ended.")
    gone = of(
        Failure.DETECTOR_LOST, "The image or its answer was lost on the way, with the process that held it."
    )
    nobody = Fault(
        Failure.DETECTOR_LOST,
        "No machine of the cluster can hold the detector (`ray status` shows resources).",
        Counts.NOTHING,
    )
    cluster = of(
        Failure.NO_CLUSTER, "The Ray cluster does not answer. Check that its head runs and can be reached."
    )
    token = Fault(
        Failure.NO_CLUSTER,
        "The cluster refused our token. Use the head's own: RAY_AUTH_TOKEN or ~/.ray/auth_token.",
        Counts.TRIP,
    )
    late = of(Failure.DEADLINE, "No answer came in time.")
    full = of(Failure.BUSY, "Too many calls are under way. Ask again in a moment.")
    memory = Fault(
        Failure.OUT_OF_MEMORY,
        "A machine of the cluster is out of memory or disk for Ray's object store.",
        Counts.CALL,
    )
    ended = Fault(
        Failure.OUT_OF_MEMORY,
        "Ray ended the process that was asked, because its machine was almost out of memory.",
        Counts.CALL,
    )
    environment = Fault(
        Failure.DETECTOR_LOST,
        "Ray could not prepare what a process on that machine needs (its runtime environment).",
        Counts.NOTHING,
    )
    cancelled = of(Failure.CANCELLED, "The call was cancelled.")
    version = of(
        Failure.VERSION_SKEW,
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
        rex.OutOfMemoryError: ended,
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
        rex.RuntimeEnvSetupError: environment,
        rex.StreamingGeneratorReplayInconsistentError: internal,
        rex.TaskCancelledError: cancelled,
        rex.UnserializableException: version,
        rex.UserCodeException: internal,
        rex.WorkerCrashedError: worker,
    }


def fault_of(error: BaseException) -> Fault:
    """The fault that an error stands for, whether Ray, a detector or we raised it."""
    if isinstance(error, NotAnswered):
        return error.fault
    if isinstance(error, DetectorFault):
        return Fault.of(error.failure, error.detail)
    if isinstance(error, TimeoutError) and not _is_rays(error):
        return Fault.of(Failure.DEADLINE, "No answer came in time.")
    cause = getattr(error, "cause", None)
    if _is_rays(error) and (isinstance(cause, OtherFields) or _is_ours_missing(cause)):
        # A machine of a time before there was a protocol lacks modules of ours.
        return Fault.of(
            Failure.VERSION_SKEW,
            f"The other machine did not understand the call: {cause}. Install the same rayface on both.",
        )
    if _is_rays(error) and isinstance(cause, Exception) and not _is_rays(cause):
        said = last_line(str(cause)) or type(cause).__name__
        return Fault.of(Failure.INTERNAL, f"The process that was asked failed: {said}. Please report it.")
    table = ray_faults()
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return Fault.of(Failure.INTERNAL, f"Something failed that never should: {error!r}. Please report it.")


def last_line(text: str) -> str:
    """The last line of a text that is not empty, which is the error where the text is a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else ""


def _is_ours_missing(cause: object) -> bool:
    """Whether a module of rayface, or a name in one, could not be imported."""
    return isinstance(cause, ImportError) and (cause.name or "").partition(".")[0] in ("actors", "cluster")


def _is_rays(error: BaseException) -> bool:
    import ray.exceptions as rex

    return isinstance(error, rex.RayError)
