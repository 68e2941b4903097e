"""Machines of a cluster as processes with ports, folders and variables of their own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

HERE = Path(__file__).parents[2]


def eventually(what: Callable[[], Any], within_s: float, says: Callable[[], str] = lambda: "") -> Any:
    """Ask until an answer is true, and return it. Raises AssertionError, with `says()`, after `within_s`."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if answer := what():
            return answer
        time.sleep(0.3)
    raise AssertionError(f"It did not happen within {within_s} s: {says()}")


@dataclass
class Machine:
    """Variables, ports and folders that stand for one machine. Its processes end when it ends."""

    folder: Path
    ports: int
    variables: dict[str, str]
    prefix: tuple[str, ...] = ()
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `rayface …` in the background; its output goes to the file `name`."""
        with (self.folder / name).open("wb") as output:
            process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "cluster", *arguments],
                env=os.environ | self.variables,
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def run(
        self,
        *arguments: str,
        timeout_s: float = 120,
        typed: str = "",
        changes: Mapping[str, str | None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `rayface …` to the end.

        Args:
            arguments: the command and its options.
            timeout_s: the command is killed after this many seconds.
            typed: the text of the command's standard input.
            changes: environment variables over the machine's own; None takes a variable away.
        """
        variables = {**os.environ, **self.variables, **(changes or {})}
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "cluster", *arguments],
            env={name: value for name, value in variables.items() if value is not None},
            cwd=HERE,
            capture_output=True,
            text=True,
            input=typed,
            timeout=timeout_s,
            check=False,
        )

    def said(self, name: str) -> str:
        """The output of a started command so far."""
        return (self.folder / name).read_text(errors="replace")

    def end(self) -> None:
        """End the processes that were started, the last one first; the machine may start others then."""
        for process in reversed(self.started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)
        self.started.clear()

    def close(self) -> None:
        """End the processes that were started, in order, and check that no process is left."""
        self.end()
        # When a command is killed, its driver process notices that and ends within seconds.
        _, left = psutil.wait_procs(processes_with(str(self.folder)), 5.0)
        left = [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
        for process in left:
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, f"left behind: {left}"


def tell(capsys: pytest.CaptureFixture[str], sentence: str) -> None:
    """Show a figure on the terminal, whether the test passes or not; nothing is asserted about it."""
    with capsys.disabled():
        print(f"\n{sentence}", flush=True)


def processes_with(text: str) -> list[psutil.Process]:
    """Processes whose command line or environment holds the text (a machine's own folder)."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                words = [*process.cmdline(), *process.environ().values()]
                if any(text in word for word in words):
                    found.append(process)
        except psutil.Error:
            continue
    return found


class Machines:
    """Makes machines that share a token, each by a call. `close` ends them, the last one first."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(32)
        self._made: list[Machine] = []
        self._bases = iter(range(_free_base(), 60000, 200))

    def __call__(self, **variables: str) -> Machine:
        """Make one more machine; these variables replace or add to the machine's own."""
        # Ray's sockets need a short path, so not pytest's own folder.
        folder = Path(tempfile.mkdtemp(prefix="rft", dir="/tmp"))
        base = next(self._bases)
        own = {
            "RAY_AUTH_TOKEN": self._token,
            "RAYFACE_HEAD__GCS_PORT": str(base),
            "RAYFACE_HEAD__DASHBOARD_PORT": str(base + 1),
            "RAYFACE_HEAD__FIRST_PORT": str(base + 10),
            "RAYFACE_HEAD__FIRST_WORKER_PORT": str(base + 20),
            "RAYFACE_JOIN__FIRST_PORT": str(base + 10),
            "RAYFACE_JOIN__FIRST_WORKER_PORT": str(base + 20),
            "RAYFACE_JOIN__NODE_LOCK": f"node{base}",
            # These machines are one in truth, and would share memory; the pixels are to take the network.
            "RAYFACE_CLIENT__MAX_SHARED_BYTES": "0",
        }
        for role in ("HEAD", "JOIN"):
            own[f"RAYFACE_{role}__TEMP_DIR"] = str(folder / "ray")
            own[f"RAYFACE_{role}__LOG_FOLDER"] = str(folder / "log")
            own[f"RAYFACE_{role}__OBJECT_STORE_BYTES"] = "80000000"
        machine = Machine(folder, base, own | variables)
        self._made.append(machine)
        return machine

    def close(self) -> None:
        """End them all."""
        for machine in reversed(self._made):
            machine.close()


def started_head(make: Callable[..., Machine], **variables: str) -> tuple[Machine, str]:
    """Start a head, and return it with the address at which others can join; it answers already."""
    machine = make(**variables)
    return machine, start_head(machine)


def start_head(machine: Machine) -> str:
    """Start a head on a machine, and return the address at which others can join; it answers already."""
    machine.start("head", "head")

    def address() -> str:
        said = machine.said("head").partition("rayface join ")[2].split()
        if said:
            host, port = said[0].split(":")
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return said[0]
        return ""

    return str(eventually(address, 60, lambda: machine.said("head")))


def _free_base() -> int:
    """The first of a row of free ports: systems do not hand them out, and sessions side by side differ."""
    for base in range(20000 + os.getpid() % 50 * 200, 32000, 200):
        try:
            for port in (base, base + 10, base + 20):
                with socket.create_server(("", port)):
                    pass
        except OSError:
            continue
        return base
    raise OSError("no free ports")


def rows(text: str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines output."""
    return [json.loads(line) for line in text.splitlines()]
