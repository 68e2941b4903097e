"""The checks that `rayface join` and `rayface doctor` share: token, head, versions, way back, model, device.

Each check yields its findings. `join` stops at the first one that is wrong (`preflight`); the doctor reports
all of them. Some checks also return a value that a later check needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors import models
from actors.faces import Failure
from actors.settings import DetectorSettings
from cluster.errors import ClusterUnavailable, ConfigurationError
from cluster.node import ray_start
from cluster.node.addresses import is_loopback, knock, list_ports, own_address, split_address
from cluster.node.findings import Finding, ok, warn, wrong
from cluster.node.token import TokenMissing, is_token, kept_token, read_token, token_file
from cluster.protocol.identity import Identity, identity, skew_said
from cluster.ray_internals import refuses_token
from cluster.settings import JoinSettings

_KNOCK_TIMEOUT_S = 10.0
_ASK_TIMEOUT_S = 60
_SELF_TEST_TIMEOUT_S = 300
_SAVE_TOKEN = "`rayface token show` on the head shows its token; `rayface token save` here keeps it."

#: For each failure of a device or a detector: what a person can do about it.
REMEDIES: Mapping[Failure, str] = {
    Failure.DEVICE_LIES: "Update the GPU's driver or go back to an older one, and restart its machine.",
    Failure.DEVICE_UNAVAILABLE: "On its machine, install onnxruntime-directml and no onnxruntime beside it; "
    "check the adapter's number and the driver.",
    Failure.DEVICE_HELD: "End the other process, or join with another device.",
    Failure.DEVICE_FAILED: "Restart its machine; if it happens again, update the GPU's driver.",
    Failure.MODEL_UNAVAILABLE: "Run `rayface models fetch` on its machine; it says what prevents it.",
    Failure.OUT_OF_MEMORY: "End other programs that use the GPU, or set a smaller detector.input_size.",
    Failure.HEAD_SILENT: "Restart the head if it hangs; look at the way from the detector's machine to it.",
    Failure.VERSION_SKEW: "docs/two-machines.md says in which order machines are upgraded.",
    Failure.DETECTOR_LOST: "Wait half a minute; if it stays so, look at the cable and `rayface join`'s log.",
}


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """What the head said about itself, and which ports of this machine it reached.

    Attributes:
        ray_version: of the head.
        python_version: of the head.
        visited: for each port that the head tried, why it does not reach it ("" if it does); None if nobody
            at the head could try.
        clock_skew_s: how far this machine's clock is ahead of the head's; None if nobody could tell.
        rayface: which rayface the head has, as JSON-ready values; None if it does not tell.
        placed: the settings of each detector that is placed, JSON-ready, by "NAMESPACE/NAME".
    """

    ray_version: str
    python_version: str
    visited: Mapping[str, str] | None
    clock_skew_s: float | None
    rayface: Mapping[str, Any] | None = None
    placed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def check_token() -> Iterator[Finding]:
    """There is a token here, it can be one, and only this user can read it."""
    try:
        token = read_token()
    except TokenMissing as missing:
        yield wrong("token", missing.problem, missing.advice)
        return
    path, kept = token_file(), kept_token()
    from_variable = bool((os.environ.get("RAY_AUTH_TOKEN") or "").strip())
    if not is_token(token):
        yield wrong(
            "token",
            f"what {'RAY_AUTH_TOKEN' if from_variable else path} holds is no token: it is too short, or has "
            "blanks or invisible characters in it",
            _SAVE_TOKEN,
        )
    elif from_variable and kept and kept != token:
        yield warn(
            "token",
            f"RAY_AUTH_TOKEN is used, and {path} holds another token",
            "Keep one of them; a program that does not see the variable would use the file.",
        )
    elif from_variable:
        yield ok("token", "from RAY_AUTH_TOKEN")
    elif sys.platform != "win32" and path.stat().st_mode & 0o004 and not _is_secret_of_container(path):
        yield warn("token", f"{path} can be read by every user of this machine", f"chmod 600 {path}")
    else:
        yield ok("token", f"in {path}")


def _is_secret_of_container(path: Path) -> bool:
    """Docker shows a secret with the modes of the host's file, which no user of the container can change."""
    return os.fspath(path).startswith("/run/secrets/")


def check_head(
    head_address: str, settings: JoinSettings, *, lends: bool
) -> Generator[Finding, None, str | None]:
    """Something listens at the head's address, and a machine that lends does not use a loopback address.

    Returns:
        This machine's own address on the way to the head; None if the head cannot be asked any further.
    """
    try:
        host, port = split_address(head_address)
    except ClusterUnavailable as error:
        yield wrong("head", str(error), "Use the address that `rayface head` says at its start.")
        return None
    where = f"{head_address}{_meaning(host)}"
    if problem := knock(host, port, _KNOCK_TIMEOUT_S):
        yield wrong(
            "head",
            f"the head does not answer at {where}: {problem}",
            "Start the head, publish its port (with Docker: at RAYFACE_BIND, or else only the head's own "
            "machine reaches it), and check which address its name has on this machine.",
        )
        return None
    yield ok("head", f"{where} answers")
    try:
        own = settings.address or own_address(head_address)
    except ClusterUnavailable as error:
        yield wrong("head", str(error), "Check this machine's network.")
        return None
    if lends and (is_loopback(host) or is_loopback(own)):
        yield wrong(
            "head",
            f"the head is known here by a loopback address ({head_address}, as {own}), and Ray lets nobody "
            "join by one",
            "Use the address that `rayface head` says at its start, or give its name this machine's own "
            "address in the hosts file.",
        )
        return None
    return own


def _meaning(host: str) -> str:
    """The address that a name has on this machine, if it is a name and has one."""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return ""
    return "" if address == host else f" ({address})"


def ask_head(
    head_address: str, own: str, ports: Sequence[int], *, listen: bool
) -> Generator[Finding, None, HeadAnswer | None]:
    """The head takes our token, says its versions, and tries this machine's ports.

    Args:
        head_address: of the head, HOST:PORT.
        own: the address by which the head reaches this machine.
        ports: of this machine, which the head tries.
        listen: whether to listen at these ports meanwhile, because nobody else does.

    Returns:
        The head's answer; None if it gave none.
    """
    try:
        read_token()
    except ConfigurationError:
        yield wrong("token of the head", "without a token the head lets nobody in", _SAVE_TOKEN)
        return None
    with contextlib.ExitStack() as stack:
        taken = _listen(stack, ports) if listen else None
        answer = None if taken else _ask(head_address, own, ports)
    if taken is not None:
        yield taken
        answer = _ask(head_address, own, ())
    if isinstance(answer, Finding):
        yield answer
        return None
    yield ok("token of the head", "the head takes it")
    return answer


def _listen(stack: contextlib.ExitStack, ports: Sequence[int]) -> Finding | None:
    """Listen at every port until the stack ends; returns a finding if one of them is taken."""
    for port in ports:
        try:
            listener = stack.enter_context(socket.create_server(("", port)))
        except OSError as error:
            return wrong(
                "ports",
                f"port {port} of this machine is taken ({error.strerror})",
                "End the program that uses it, or choose other ports with join.first_port and "
                "join.first_worker_port.",
            )
        listener.settimeout(0)
    return None


def _ask(head_address: str, own: str, ports: Sequence[int]) -> HeadAnswer | Finding:
    arguments = (head_address, "ask", own, *map(str, ports))
    try:
        done = run_module(
            "cluster.deployment.callback_probe",
            *arguments,
            timeout_s=_ASK_TIMEOUT_S,
            variables=ray_start.environment(own),
        )
    except subprocess.TimeoutExpired:
        return wrong(
            "head",
            f"the program that listens at {head_address} does not answer as a Ray head does, or it hangs",
            "Check the address and the port. If they are right, restart the head.",
        )
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        # Without ports nothing was tried, which says nothing about the head.
        return HeadAnswer(**(answer if ports else {**answer, "visited": {}}))
    if refuses_token(done.stderr):
        return wrong("token of the head", f"the head at {head_address} refuses our token", _SAVE_TOKEN)
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return wrong(
        "head",
        f"the head at {head_address} could not be asked: {last[0]}",
        "Check the address, and that a Ray head runs there.",
    )


def check_versions(answer: HeadAnswer, ours: Mapping[str, Any]) -> Iterator[Finding]:
    """Ray, Python and rayface's protocol are the same here and at the head.

    Args:
        answer: the head's.
        ours: this machine's "ray" and "python".
    """
    yield same_version("Ray", answer.ray_version, ours["ray"], "at the head")
    yield same_python(answer.python_version, ours["python"], "at the head")
    yield _same_protocol(answer)


def _same_protocol(answer: HeadAnswer) -> Finding:
    if answer.rayface is None and answer.visited is None:
        return warn(
            "rayface",
            "nobody at the head says which rayface it has",
            "Start the head with `rayface head`, which says it.",
        )
    theirs = Identity.of(answer.rayface, "the head")
    if theirs.tag != identity().tag:
        evidence, advice = skew_said(theirs, identity())
        return wrong("rayface", evidence.rstrip("."), advice)
    return ok("rayface", f"{identity()} here and at the head")


def same_version(name: str, theirs: str, ours: str, where: str) -> Finding:
    """A version that has to be the same on all machines."""
    if theirs == ours:
        return ok("versions", f"{name} {ours} here and {where}")
    return wrong(
        "versions",
        f"{name} is {ours or 'unknown'} here and {theirs or 'unknown'} {where}",
        "Install the same rayface on every machine; it brings the same Ray.",
    )


def same_python(theirs: str, ours: str, where: str) -> Finding:
    """Ray refuses another second number of Python; the third number may differ."""
    if theirs.split(".")[:2] == ours.split(".")[:2]:
        return ok("versions", f"Python {ours} here and {theirs} {where}")
    return wrong(
        "versions",
        f"Python is {ours} here and {theirs or 'unknown'} {where}",
        f"Use the same second number on both machines, for example {'.'.join(theirs.split('.')[:2])}.x: set "
        "rayface up again with that Python.",
    )


def check_way_back(answer: HeadAnswer, own: str, *, lends: bool) -> Iterator[Finding]:
    """The head reaches this machine's ports; only a machine that lends needs that."""
    if answer.visited is None:
        yield warn(
            "way back",
            "nobody at the head tried it: no callback probe answered there",
            "Start the head by `rayface head`. If you did, read callback-probe-output.log beside its log; or "
            "make sure yourself that the head reaches this machine's ports.",
        )
    elif lends and (closed := {port: problem for port, problem in answer.visited.items() if problem}):
        yield wrong(
            "way back",
            f"the head does not reach {own} at {list_ports(closed)}",
            "Let these ports in through this machine's firewall, and check which address its name has at "
            "the head.",
        )
    elif lends and answer.visited:
        yield ok("way back", f"the head reaches {own} at {len(answer.visited)} ports")


def check_model(settings: DetectorSettings, *, is_needed: bool = True) -> Finding:
    """The model is here, as published; nothing is fetched."""
    state, path = models.state(settings)
    named = settings.model if settings.model_path is None else str(path)
    if state == "altered":
        return wrong(
            "model",
            f"{named} is not what was published: the sha256 of {path} is another",
            f"Remove that file; `rayface models fetch {settings.model}` gets it again.",
        )
    if state == "missing" and not is_needed:
        return ok("model", f"{named} is not here, and not needed: this machine lends no device")
    if state == "missing" and settings.model_path is not None:
        return wrong("model", f"there is no file {path}", "Set detector.model_path to an .onnx file.")
    if state == "missing":
        return warn(
            "model",
            f"{named} is not here",
            f"It is fetched at its first use; `rayface models fetch {settings.model}` does it now.",
        )
    return ok("model", f"{named} is here, as published" if state == "whole" else f"{named} is your own")


def check_device(device: str, settings: DetectorSettings) -> Generator[Finding, None, dict[str, Any] | None]:
    """The device finds the golden photo's face, in a process of its own.

    Returns:
        What `actors.self_test` says of the device; None if the device did not prove itself.
    """
    answer = self_test(device, settings)
    if isinstance(answer, Finding):
        yield answer
        return None
    yield ok(
        "device",
        f"{device} ({answer['provider']}) found the golden photo's face; "
        f"{answer['ms_per_image']} ms an image in batches of {answer['best_batch']}",
    )
    return answer


def self_test(device: str, settings: DetectorSettings) -> dict[str, Any] | Finding:
    """Run `actors.self_test` in a process of its own: a driver that crashes ends only that process."""
    try:
        done = run_module(
            "actors.self_test", device, settings.model_dump_json(), timeout_s=_SELF_TEST_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return wrong(
            "device",
            f"the device {device} did not find the golden photo's face within {_SELF_TEST_TIMEOUT_S} s; its "
            "driver hangs",
            "Restart this machine, and update the GPU's driver.",
        )
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or ["it wrote nothing"]
        return wrong(
            "device",
            f"the process that tried the device {device} crashed (exit code {done.returncode}): {last[0]}",
            "Update the GPU's driver.",
        )
    if answer["ok"]:
        return answer
    failure = Failure(answer["failure"])
    advice = REMEDIES.get(failure, "Update the GPU's driver, or lend another device.")
    if failure is Failure.DEVICE_HELD:
        return wrong("owner", answer["detail"], advice)
    return wrong("device", answer["detail"], advice)


def run_module(
    module: str, *arguments: str, timeout_s: float, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS…` with its output as text.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was ended.
    """
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
