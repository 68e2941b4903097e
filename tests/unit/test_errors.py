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
    VERDICTS,
    Cause,
    Counts,
    DetectorNotReady,
    Fault,
    NotAnswered,
    RayfaceError,
    Refused,
    Whose,
)


def test_every_error_of_rays_is_mapped() -> None:
    """Fails when Ray grows an error that nobody has thought about, or loses one."""
    known = {
        kind for _, kind in inspect.getmembers(rex, inspect.isclass) if issubclass(kind, rex.RayError)
    } | {kind for kind in ray_faults() if not issubclass(kind, rex.RayError)}
    assert known == set(ray_faults())


def test_every_failure_has_one_verdict() -> None:
    """Whose fault, passing or lasting, what the circuit counts: every failure, and nothing else."""
    assert set(VERDICTS) == set(Failure)
    for failure, verdict in VERDICTS.items():
        if verdict.counts is Counts.TRIP:
            assert not verdict.passing, failure
        if verdict.whose in (Whose.IMAGE, Whose.CALLER):
            assert verdict.counts is Counts.NOTHING, failure


def test_every_fault_of_a_device_has_a_verdict() -> None:
    """What `actors` can raise of its own is in the table too."""
    for kind in _subclasses(DetectorFault):
        assert kind.failure in VERDICTS


def _subclasses(kind: type[DetectorFault]) -> list[type[DetectorFault]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _subclasses(child))]


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (rex.ActorDiedError(), True),
        (rex.ActorUnavailableError("away", b"0" * 16), True),
        (rex.NodeDiedError("x"), True),
        (rex.PendingCallsLimitExceeded("x"), True),
        (rex.ActorUnschedulableError("x"), False),
        (rex.AuthenticationError("x"), False),
        (rex.RayTaskError("detect", "trace", TypeError("unexpected argument")), False),
        (DeviceLies("zeros"), False),
        (ModelUnavailable("altered"), False),
    ],
)
def test_passing_and_lasting_are_told_apart(error: Exception, passing: bool) -> None:
    assert fault_of(error).verdict.passing is passing


def ours() -> list[Exception]:
    made: list[Exception] = [
        ImageFault(Rejection.TRUNCATED, "cut short"),
        Busy("full", 1.5),
        DetectorNotReady("no", Failure.DEVICE_LIES),
        NotAnswered(Fault.of(Failure.NO_CLUSTER, "away")),
        Refused(Cause(Failure.DEVICE_LIES, "zeros"), 2.0),
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
        (rex.RayTaskError("detect", "trace", TypeError("unexpected argument")), Failure.VERSION_MISMATCH),
        (rex.RayTaskError("detect", "trace", KeyError("odd")), Failure.INTERNAL),
        (ValueError("odd"), Failure.INTERNAL),
        (type("NewerThanUs", (rex.NodeDiedError,), {})("x"), Failure.DETECTOR_LOST),
    ],
)
def test_an_error_becomes_the_failure_that_a_caller_sees(error: Exception, failure: Failure) -> None:
    """The most exact class decides, and every failure has a sentence."""
    fault = fault_of(error)
    assert fault.failure is failure
    assert fault.advice


def test_errors_as_ray_wraps_them() -> None:
    """What the actor raised is recognised under Ray's wrapping."""
    wrapped = rex.RayTaskError("detect", "trace", DeviceFailed("gone")).as_instanceof_cause()
    assert fault_of(wrapped).failure is Failure.DEVICE_FAILED
