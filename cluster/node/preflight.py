"""What `rayface join` finds out before it lends the machine: one sentence for people a check."""

from __future__ import annotations

import contextlib
import json
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from actors import models
from actors.errors import ModelUnavailable
from actors.faces import Failure
from actors.settings import DetectorSettings
from cluster.errors import ClusterUnavailable, DetectorNotReady, DeviceTaken, RayfaceError
from cluster.node import addresses, ray_start
from cluster.node.addresses import knock
from cluster.node.token import read_token
from cluster.settings import JoinSettings, Settings

_ASK_TIMEOUT_S = 60
_PROVE_TIMEOUT_S = 300


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the check.
        ok: whether it is as it should be; a warning where it is not, but need not stop anybody.
        sentence: what was found.
    """

    name: str
    ok: bool
    sentence: str


def check_join(head_address: str, settings: Settings) -> Iterator[Finding]:
    """Every check, in an order in which each can rely on those before it.

    Raises:
        RayfaceError: joining would be of no use; what is wrong, and what to do.
    """
    read_token()
    yield Finding("token", True, "a token is at hand")
    host, port = addresses.split_address(head_address)
    if problem := knock(host, port, 10.0):
        raise ClusterUnavailable(
            f"The head does not answer at {head_address}: {problem}. Check that it runs, that its port is "
            "published, and that its name means the right address here (README, Two machines)."
        )
    yield Finding("head", True, f"{head_address} answers")
    yield from _check_head(head_address, settings.join)
    yield check_model(settings.detector)
    for device in settings.join.devices:
        yield check_device(device, settings.detector)


def _check_head(head_address: str, settings: JoinSettings) -> Iterator[Finding]:
    own = settings.address or addresses.own_address(head_address)
    with listening(settings) as ports:
        answer = ask_head(head_address, own, ports)
    if answer["ray_version"] != version("ray"):
        raise ClusterUnavailable(
            f"The head runs Ray {answer['ray_version']}, this machine {version('ray')}. Both need the same: "
            "install the same rayface on both."
        )
    theirs, ours = answer["python_version"], platform.python_version()
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise ClusterUnavailable(
            f"The head runs Python {theirs}, this machine {ours}. Both need the same second number "
            f"(any {'.'.join(theirs.split('.')[:2])}.x): make this machine's environment with that Python."
        )
    same = theirs == ours
    yield Finding(
        "versions",
        same,
        f"Ray {version('ray')}, Python {ours}" + ("" if same else f" (the head: {theirs}; that is allowed)"),
    )
    visited = answer["visited"]
    if visited is None:
        yield Finding("way back", False, "nobody at the head could try it (it was not started by rayface)")
        return
    closed = {port: problem for port, problem in visited.items() if problem}
    if closed:
        problems = "; ".join(f"{port}: {problem}" for port, problem in closed.items())
        raise ClusterUnavailable(
            f"The head cannot reach this machine, which it knows as {own}: {problems}. Let these ports in "
            "through the firewall, and check what the name means at the head (README, Two machines)."
        )
    yield Finding("way back", True, f"the head reaches {own} at {len(visited)} ports")


@contextlib.contextmanager
def listening(settings: JoinSettings, num_workers: int = 3) -> Iterator[list[int]]:
    """Listen, for the moment, where Ray will: node manager, object manager, metrics and the first workers."""
    ports = ray_start.reached_ports(settings, num_workers)
    with contextlib.ExitStack() as stack:
        for port in ports:
            try:
                listener = stack.enter_context(socket.create_server(("", port)))
            except OSError as error:
                raise ClusterUnavailable(
                    f"Port {port} of this machine is taken ({error.strerror}). End what uses it, or choose "
                    "other ports with join.first_port and join.first_worker_port."
                ) from error
            listener.settimeout(0)
        yield ports


def ask_head(head_address: str, host: str, ports: list[int]) -> dict[str, Any]:
    """The head's versions, and how it reaches `host`.

    Raises:
        ClusterUnavailable: it refuses our token, or does not answer as a Ray head.
    """
    command = [
        sys.executable,
        "-m",
        "cluster.deployment.callback_probe",
        head_address,
        "ask",
        host,
        *map(str, ports),
    ]
    try:
        done = subprocess.run(
            command,
            env=ray_start.environment(host),
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterUnavailable(
            f"What listens at {head_address} does not answer as a Ray head does. Check the address and port."
        ) from error
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    if "InvalidAuthToken" in done.stderr or "AuthenticationError" in done.stderr:
        raise ClusterUnavailable(
            f"The head at {head_address} refuses our token. Save the head's own: `rayface token show` there, "
            "`rayface token save` here."
        )
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    raise ClusterUnavailable(f"The head at {head_address} could not be asked: {last[0]}")


def check_model(settings: DetectorSettings) -> Finding:
    """The model is here, fetched now if need be.

    Raises:
        DetectorNotReady: it cannot be had.
    """
    try:
        ready = models.ready_model(settings)
    except ModelUnavailable as error:
        raise DetectorNotReady(str(error), error.failure) from error
    return Finding("model", True, ready.label)


def check_device(device: str, settings: DetectorSettings) -> Finding:
    """The device finds the golden photo's face.

    Raises:
        DeviceTaken: another process owns it.
        DetectorNotReady: it is not there, or gives wrong answers.
    """
    return proof(device, self_test(device, settings))


def proof(device: str, answer: dict[str, Any]) -> Finding:
    """What `self_test` gave, in words."""
    return Finding(
        "device",
        True,
        f"{device} ({answer['provider']}) found the golden photo's face; "
        f"{answer['ms_per_image']} ms an image in batches of {answer['best_batch']}",
    )


def self_test(device: str, settings: DetectorSettings) -> dict[str, Any]:
    """What `actors.self_test` says of a device that proved itself, in a process of its own.

    Raises:
        DeviceTaken: another process owns it.
        DetectorNotReady: it is not there, or gives wrong answers.
    """
    command = [sys.executable, "-m", "actors.self_test", device, settings.model_dump_json()]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROVE_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise DetectorNotReady(
            f"{device} did not find the golden photo's face within {_PROVE_TIMEOUT_S} s; its driver hangs."
        ) from error
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise DetectorNotReady(
            f"{device} took the process that tried it with it (exit code {done.returncode}): {last[0]} "
            "Update its driver."
        ) from None
    if answer["ok"]:
        return dict(answer)
    problem: RayfaceError
    if answer["failure"] == "device_held":
        problem = DeviceTaken(answer["detail"])
    else:
        problem = DetectorNotReady(answer["detail"], Failure(answer["failure"]))
    raise problem
