"""What `rayface join` checks: in which order, which error each wrong thing becomes, and what it says."""

from __future__ import annotations

import json
import platform
import re
import socket
from importlib.metadata import version
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

import pytest

from actors import models
from actors.errors import ModelUnavailable
from actors.faces import Failure
from cluster.errors import ClusterUnavailable, ConfigurationError, DetectorNotReady, DeviceTaken, RayfaceError
from cluster.node import checks
from cluster.node.findings import Verdict
from cluster.node.preflight import check_join
from cluster.protocol.identity import identity
from cluster.settings import Settings, load_settings

HEAD = "10.0.0.1:6379"
WELL = {
    "callback_probe": {
        "ray_version": version("ray"),
        "python_version": platform.python_version(),
        "visited": {"7380": "", "7381": ""},
        "clock_skew_s": 90.0,
        "rayface": identity().as_dict(),
    },
    "self_test": {"ok": True, "provider": "CPUExecutionProvider", "ms_per_image": 70.0, "best_batch": 1},
}


class Model:
    label = "centerface@0918"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine that may join: what the processes print that the checks start, by the module's name."""
    answers: dict[str, Any] = json.loads(json.dumps(WELL))

    def run_module(module: str, *arguments: str, **options: Any) -> CompletedProcess[str]:
        answer = answers[module.rpartition(".")[2]]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            return CompletedProcess(module, 1, "", answer)
        return CompletedProcess(module, 0, json.dumps(answer), "")

    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    monkeypatch.setattr(checks, "run_module", run_module)
    monkeypatch.setattr(checks, "knock", lambda *_: "")
    monkeypatch.setattr(checks, "own_address", lambda head: "10.0.0.2")
    monkeypatch.setattr(models, "ready_model", lambda settings: Model)
    return answers


@pytest.fixture
def free_ports() -> dict[str, int]:
    """Ports that nobody else on this machine listens at, as settings."""
    with socket.create_server(("", 0)) as listener:
        first = listener.getsockname()[1] // 100 * 100 - 10_000
    return {"first_port": first, "first_worker_port": first + 20}


def settings(ports: dict[str, int]) -> Settings:
    return load_settings(join={"devices": ["cpu:77"], **ports})


def problem(ports: dict[str, int], head: str = HEAD) -> RayfaceError:
    with pytest.raises(RayfaceError) as caught:
        list(check_join(head, settings(ports)))
    return caught.value


def test_every_check_says_what_it_found(answers: dict[str, Any], free_ports: dict[str, int]) -> None:
    found = list(check_join(HEAD, settings(free_ports)))
    assert {each.verdict for each in found} == {Verdict.OK}
    names = list(dict.fromkeys(each.name for each in found))
    assert names == [
        "token",
        "head",
        "token of the head",
        "versions",
        "rayface",
        "way back",
        "model",
        "device",
    ]
    assert found[-1].evidence.startswith("cpu:77 (CPUExecutionProvider) found the golden photo's face")


@pytest.mark.parametrize(
    ("module", "answer", "error", "words"),
    [
        ("callback_probe", "grpc: InvalidAuthToken", ClusterUnavailable, "refuses our token.*token save"),
        ("callback_probe", "Traceback\nOSError: no", ClusterUnavailable, "could not be asked: OSError: no"),
        ("callback_probe", TimeoutExpired("ask", 60), ClusterUnavailable, "does not answer as a Ray head"),
        ("callback_probe", {"ray_version": "2.59.0"}, ClusterUnavailable, "Ray is .* and 2.59.0 at the head"),
        ("callback_probe", {"python_version": "3.99.1"}, ClusterUnavailable, "for example 3.99.x"),
        ("callback_probe", {"visited": {"7380": "no"}}, ClusterUnavailable, "7380: no.*firewall"),
        (
            "callback_probe",
            {"rayface": None},
            ClusterUnavailable,
            "older than 1.*version_skew.*Upgrade the head",
        ),
        (
            "callback_probe",
            {"rayface": {"version": "99.0", "tag": "2-abc", "host": "front"}},
            ClusterUnavailable,
            "front has rayface 99.0.*version_skew.*to 99.0.*head first",
        ),
        (
            "self_test",
            {"failure": "device_held", "detail": "pid 7 has it."},
            DeviceTaken,
            "Pid 7 has it. End",
        ),
        ("self_test", {"failure": "device_lies", "detail": "zeros"}, DetectorNotReady, "Zeros. Update"),
        ("self_test", "Segmentation fault", DetectorNotReady, r"crashed \(exit code 1\): Segmentation"),
        ("self_test", TimeoutExpired("test", 300), DetectorNotReady, "within 300 s.*driver"),
    ],
)
def test_what_is_wrong_is_raised_with_what_to_do(
    answers: dict[str, Any],
    free_ports: dict[str, int],
    module: str,
    answer: Any,
    error: type[RayfaceError],
    words: str,
) -> None:
    if isinstance(answer, dict):
        answer = answers[module] | answer | ({"ok": False} if "failure" in answer else {})
    answers[module] = answer
    raised = problem(free_ports)
    assert type(raised) is error
    assert re.search(words, str(raised)), str(raised)


def test_a_token_that_is_missing_is_wrong_use(
    answers: dict[str, Any], free_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    raised = problem(free_ports)
    assert type(raised) is ConfigurationError
    assert "/nowhere/token" in str(raised)
    assert "rayface token save" in str(raised)


def test_a_head_that_is_away(
    answers: dict[str, Any], free_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "knock", lambda *_: "Connection refused")
    assert "does not answer at 10.0.0.1:6379: Connection refused. Start" in str(problem(free_ports))


@pytest.mark.parametrize("head", ["127.0.0.1:6379", "localhost:6379"])
def test_nobody_joins_by_loopback(answers: dict[str, Any], free_ports: dict[str, int], head: str) -> None:
    assert "loopback" in str(problem(free_ports, head))


def test_a_port_that_is_taken(answers: dict[str, Any], free_ports: dict[str, int]) -> None:
    with socket.create_server(("", free_ports["first_port"] + 1)):
        raised = problem(free_ports)
    assert f"Port {free_ports['first_port'] + 1} of this machine is taken" in str(raised)


def test_a_model_that_cannot_be_had(
    answers: dict[str, Any], free_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps a machine out only if a placed detector wants it; the finding says so."""

    def only_yunet(settings: Any) -> Any:
        if settings.model != "yunet":
            raise ModelUnavailable("The index does not answer.")
        return Model

    monkeypatch.setattr(models, "ready_model", only_yunet)
    found = list(check_join(HEAD, settings(free_ports)))
    assert [each.name for each in found if each.verdict is not Verdict.OK] == ["model", "device"]
    assert "no placed detector wants it: The index does not answer." in found[-2].evidence

    other = {"model": "yunet", "input_size": 320, "not_known_here": 1}
    answers["callback_probe"]["placed"] = {"rayface/FaceDetector": other, "theirs/FaceDetector": {}}
    found = list(check_join(HEAD, settings(free_ports)))
    assert {each.verdict for each in found} == {Verdict.OK}
    assert found[-2].evidence == "centerface@0918, as FaceDetector has it"

    answers["callback_probe"]["placed"] = {"rayface/FaceDetector": {"model": "centerface"}}
    raised = problem(free_ports)
    assert isinstance(raised, DetectorNotReady)
    assert re.search("FaceDetector cannot work here: The index .* Run `rayface models fetch`", str(raised))


def test_every_fault_of_a_device_has_its_remedy() -> None:
    """Those that a detector can have, not those of one call."""
    calls = {Failure.BUSY, Failure.DEADLINE, Failure.CANCELLED, Failure.NOT_READY, Failure.QUARANTINED}
    cluster = {Failure.NO_CLUSTER, Failure.OTHER_SETTINGS, Failure.INTERNAL}
    assert set(checks.REMEDIES) == set(Failure) - calls - cluster
