"""Errors keep what they carry across processes, and every error of Ray's is mapped once."""

from __future__ import annotations

import inspect
import pickle

import pytest
import ray.exceptions as rex

from actors import errors as actor_errors
from actors.errors import (
    ActorError,
    Busy,
    DetectorFault,
    DeviceFailed,
    DeviceLies,
    ImageFault,
    ModelUnavailable,
)
from actors.faces import Failure, Rejection
from cluster import errors as cluster_errors
from cluster.deployment.ray_errors import fault_of, ray_faults
from cluster.errors import (
    COUNTS_OF,
    Counts,
    DetectorNotReady,
    Fault,
    NotAnswered,
    RayfaceError,
    Refused,
)


def test_every_error_of_rays_is_mapped() -> None:
    """Fails when Ray grows an error that nobody has thought about, or loses one."""
    known = {
        kind for _, kind in inspect.getmembers(rex, inspect.isclass) if issubclass(kind, rex.RayError)
    } | {kind for kind in ray_faults() if not issubclass(kind, rex.RayError)}
    assert known == set(ray_faults())


def test_every_failure_counts_for_something() -> None:
    """Every failure, and nothing else; whose fault it is not, a circuit does not hear of."""
    assert set(COUNTS_OF) == set(Failure)
    for failure in (
        Failure.BUSY,
        Failure.DEADLINE,
        Failure.CANCELLED,
        Failure.QUARANTINED,
        Failure.NO_CLUSTER,
    ):
        assert COUNTS_OF[failure] is Counts.NOTHING, failure


def test_every_fault_of_a_device_counts_for_something() -> None:
    """What `actors` can raise of its own is in the table too."""
    for kind in _subclasses(DetectorFault):
        assert kind.failure in COUNTS_OF


def _subclasses(kind: type[DetectorFault]) -> list[type[DetectorFault]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _subclasses(child))]


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (rex.ActorDiedError(), Counts.CALL),
        (rex.ActorUnavailableError("away", b"0" * 16), Counts.CALL),
        (rex.NodeDiedError("x"), Counts.CALL),
        (rex.PendingCallsLimitExceeded("x"), Counts.NOTHING),
        (rex.ActorUnschedulableError("x"), Counts.NOTHING),
        (rex.AuthenticationError("x"), Counts.TRIP),
        (rex.OutOfMemoryError("x"), Counts.CALL),
        (rex.RayTaskError("detect", "trace", ImportError("no", name="cluster.new")), Counts.TRIP),
        (DeviceLies("zeros"), Counts.TRIP),
        (ModelUnavailable("altered"), Counts.TRIP),
    ],
)
def test_what_opens_a_circuit_at_once_is_told_from_what_counts_as_a_call(
    error: Exception, counts: Counts
) -> None:
    assert fault_of(error).counts is counts


def ours() -> list[Exception]:
    made: list[Exception] = [
        ImageFault(Rejection.TRUNCATED, "cut short"),
        Busy("full", 1.5),
        DetectorNotReady("no", Failure.DEVICE_LIES),
        NotAnswered(Fault.of(Failure.NO_CLUSTER, "away")),
        Refused(Fault.of(Failure.DEVICE_LIES, "zeros"), 2.0),
    ]
    for module, base in ((actor_errors, ActorError), (cluster_errors, RayfaceError)):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, base) and kind not in {type(each) for each in made}:
                made.append(kind("what happened"))
    return made


@pytest.mark.parametrize("error", ours(), ids=lambda error: type(error).__name__)
def test_errors_cross_processes_whole(error: Exception) -> None:
    """Ray pickles them; nothing may be lost on the way."""
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (rex.ActorDiedError(), Failure.DETECTOR_LOST),
        (rex.GetTimeoutError(), Failure.DEADLINE),
        (TimeoutError(), Failure.DEADLINE),
        (DeviceFailed("gone"), Failure.DEVICE_FAILED),
        (rex.RayTaskError("detect", "trace", TypeError("odd")), Failure.INTERNAL),
        (rex.RayTaskError("detect", "trace", ImportError("no", name="cluster.new")), Failure.VERSION_SKEW),
        (rex.RayTaskError("detect", "trace", ImportError("no", name="onnxruntime")), Failure.INTERNAL),
        (rex.RayTaskError("detect", "trace", KeyError("odd")), Failure.INTERNAL),
        (ValueError("odd"), Failure.INTERNAL),
        (type("NewerThanUs", (rex.NodeDiedError,), {})("x"), Failure.DETECTOR_LOST),
    ],
)
def test_an_error_becomes_the_failure_that_a_caller_sees(error: Exception, failure: Failure) -> None:
    """The most exact class decides, and every failure has a sentence."""
    fault = fault_of(error)
    assert fault.failure is failure
    assert fault.detail


def test_errors_as_ray_wraps_them() -> None:
    """What the actor raised is recognised under Ray's wrapping."""
    wrapped = rex.RayTaskError("detect", "trace", DeviceFailed("gone")).as_instanceof_cause()
    assert fault_of(wrapped).failure is Failure.DEVICE_FAILED
