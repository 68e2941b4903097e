"""A head, a machine that lends the simulated device, callers, and a cable if the system allows one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.device import FOLDER_VARIABLE, OPENER, notes
from tests.hosts.lab import Network, in_namespace
from tests.hosts.machines import HERE, Machine, Machines, eventually, rows

HEAD_ADDRESS, GPU_ADDRESS = "10.79.0.1", "10.79.0.2"
#: Ray's fault injection loses so many of a hundred calls to actors before, during and after their work.
_LOST_CALLS = {"req_failure_prob": 2, "in_flight_failure_prob": 2, "resp_failure_prob": 2}
_RPC_FAILURE = json.dumps({"CoreWorkerService.grpc_client.PushTask": {"num_failures": -1, **_LOST_CALLS}})


class Site:
    """Everything that a run under chaos needs. Use it as a context manager: at the end, every process ends.

    Args:
        has_cable: whether the machines are two namespaces with a cable between them (root on Linux), or the
            same machine.
        variables: environment variables for every process.
    """

    def __init__(self, *, has_cable: bool, **variables: str) -> None:
        self.device = Path(tempfile.mkdtemp(prefix="rfc", dir="/tmp"))
        self.has_cable = has_cable
        self._machines = Machines()
        self._network = Network()
        self._cable: tuple[str, str] | None = None
        common = {
            FOLDER_VARIABLE: str(self.device),
            "RAYFACE_DETECTOR__OPENER": OPENER,
            "RAYFACE_DETECTOR__INPUT_SIZE": "320",
            "PYTHONPATH": str(HERE),
            **variables,
        }
        self._common = common
        self.head: Machine = self._machines(**common)
        self.gpu: Machine = self._machines(**common)
        self.callers: dict[Path, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Site:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def call(self, name: str, priority: str, seconds: float, first: int, **variables: str) -> Path:
        """Start a caller, and return the file in which it writes its outcomes."""
        file = self.device / f"{name}.jsonl"
        command = [*self.head.prefix, sys.executable, "-m", "tests.chaos.caller", str(file)]
        with file.with_suffix(".log").open("wb") as output:
            self.callers[file] = subprocess.Popen(
                [*command, priority, str(seconds), str(first)],
                cwd=HERE,
                env=os.environ
                | self.head.variables
                | {"RAYFACE_CLUSTER__ADDRESS": self.address, "RAY_testing_rpc_failure": _RPC_FAILURE}
                # Pixels go both ways: those of a scan by shared memory, a person's by the network.
                | {"RAYFACE_CLIENT__MAX_SHARED_BYTES": "160000000" if priority == "bulk" else "0"}
                | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return file

    def another(self) -> Machine:
        """A machine beside the one with the GPU, which has not joined."""
        machine = self._machines(**self._common)
        machine.prefix = self.gpu.prefix
        return machine

    def answers(self, file: Path) -> list[dict[str, Any]]:
        """The rows that a caller has written so far."""
        return rows(file.read_text().rpartition("\n")[0]) if file.exists() else []

    def num_asked(self) -> int:
        """How many photos the callers asked for; they must have ended."""
        return sum(json.loads(file.with_suffix(".last").read_text())["num_asked"] for file in self.callers)

    def kill_actor(self) -> bool:
        """Kill the detector's process, as a crash of the GPU's driver would; return whether there was one."""
        pids = {note["pid"] for note in notes(self.device)[-200:]}
        found = False
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if "DetectorActor" in " ".join(process.cmdline()):
                    process.kill()
                    found = True
        return found

    def kill_node(self) -> bool:
        """Kill the raylet of the machine that lends the device; return whether there was one."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "raylet" and str(self.gpu.folder) in " ".join(process.cmdline()):
                    process.kill()
                    return True
        return False

    def cut(self) -> None:
        """Pull the cable."""
        assert self._cable is not None
        self._network.set_cable(*self._cable, up=False)

    def heal(self) -> None:
        """Put the cable back."""
        assert self._cable is not None
        self._network.set_cable(*self._cable, up=True)

    def num_lines(self) -> dict[str, int]:
        """How many lines each supervisor and each caller wrote."""
        logs = {
            "head": self.head.folder / "head",
            "join": self.gpu.folder / "join",
            **{file.stem: file.with_suffix(".log") for file in self.callers},
        }
        return {name: len(log.read_text(errors="replace").splitlines()) for name, log in logs.items()}

    def said(self) -> str:
        """The last lines of every process."""
        said = [self.head.said("head")[-1500:], self.gpu.said("join")[-1500:]]
        return "\n".join([*said, *(f.with_suffix(".log").read_text()[-1500:] for f in self.callers)])

    def _start(self) -> None:
        head_arguments, join_arguments = ["head"], []
        if self.has_cable:
            one, other = self._network.machine("chaoshead"), self._network.machine("chaosgpu")
            ends = self._network.cable(one, f"{HEAD_ADDRESS}/24", other, f"{GPU_ADDRESS}/24")
            self._cable = (other, ends[1])
            self.head.prefix, self.gpu.prefix = in_namespace(one), in_namespace(other)
            head_arguments += ["--address", HEAD_ADDRESS]
            join_arguments += ["--address", GPU_ADDRESS]
        self.head.start("head", *head_arguments)
        self.address = str(eventually(self._said_address, 60, lambda: self.head.said("head")))
        device = f"directml:{self.gpu.ports}"
        self.gpu.start("join", "join", self.address, "--device", device, "--wait", *join_arguments)
        eventually(lambda: "Lending" in self.gpu.said("join"), 60, self.said)

    def _said_address(self) -> str:
        words = self.head.said("head").partition("rayface join ")[2].split()
        return words[0] if words else ""

    def _close(self) -> None:
        for process in self.callers.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.callers.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        self._machines.close()
        self._network.close()
        shutil.rmtree(self.device, ignore_errors=True)
