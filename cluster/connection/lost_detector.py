"""Why a detector did not answer, from Ray's own error and from what the head knows of its process."""

from __future__ import annotations

from dataclasses import replace

from cluster.connection.cluster_api import ActorEntry
from cluster.deployment.ray_errors import fault_of, last_line
from cluster.errors import Fault

_MAX_SAID = 240


def is_about_the_process(error: BaseException) -> bool:
    """Whether an error says that a detector's process was lost, or was not reached."""
    import ray.exceptions as rex

    return isinstance(error, rex.RayActorError)


def why_lost(error: BaseException, entry: ActorEntry | None) -> Fault:
    """The fault for such an error; its words claim no more than is known.

    Args:
        error: that Ray raised for a call.
        entry: what the head knows of the process; None if the head did not say it in time.
    """
    fault = fault_of(error)
    if getattr(error, "actor_init_failed", False):
        return replace(fault, detail=f"The detector's process cannot start: {last_line(str(error))}.")
    said = _said(error)
    cause = f" ({entry.cause})" if entry and entry.cause else ""
    if entry is None:
        detail = f"The call did not reach the detector's process, or its answer was lost: {said}."
    elif entry.state == "ALIVE":
        detail = f"The call to the detector was cut off, and the head counts its process as alive: {said}."
    elif entry.state == "RESTARTING":
        times = f"restart {entry.num_restarts}" if entry.num_restarts else "its first restart"
        detail = f"The detector's process ended{cause}; Ray starts it again ({times})."
    elif entry.state == "DEAD":
        detail = f"Ray has given the detector up{cause or f': {said}'}. `rayface place` places it again."
    else:
        detail = f"The detector's process has not started yet{cause}; no machine has taken it so far."
    return replace(fault, detail=detail)


def _said(error: BaseException) -> str:
    """Ray's own reason in one line, without the frame that every such error has."""
    text = " ".join(str(error).split())
    text = text.partition(" is unavailable: ")[2] or text
    return text.partition(" The task may or may not")[0].rstrip(". ")[:_MAX_SAID]
