"""A head, a machine that lends the simulated device, callers, and a cable if the system allows one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos import clock
from tests.chaos.device import FOLDER_VARIABLE, OPENER, notes
from tests.hosts.cable import ENDS, Cable
from tests.hosts.lab import Network, in_namespace, sh
from tests.hosts.machines import HERE, Machine, Machines, eventually, rows

HEAD_ADDRESS, GPU_ADDRESS = "10.79.0.1", "10.79.0.2"
_LOST_CALLS = {"req_failure_prob": 2, "in_flight_failure_prob": 2, "resp_failure_prob": 2}
#: For a caller: Ray's fault injection loses so many of a hundred calls to actors before, during and after
#: their work.
LOSES_CALLS = {
    "RAY_testing_rpc_failure": json.dumps(
        {"CoreWorkerService.grpc_client.PushTask": {"num_failures": -1, **_LOST_CALLS}}
    )
}
#: Ray's processes take seconds to start, and minutes on a machine that has other work.
_START_WITHIN_S = 240.0
#: Megabytes of a small disk: room for Ray's session, and little more.
_DISK_MB = 200


@dataclass(frozen=True)
class Needs:
    """What a fault needs of the machines.

    Attributes:
        wire: whether the cable is `tests.hosts.cable`, which can do more than be pulled.
        finds_address: whether the GPU's machine finds its own address, and so may get another one.
        small_disks: which machines have a small disk for all that their processes write: "head", "gpu".
        own_clocks: which machines have a clock that a test can set: "head", "gpu".
    """

    wire: bool = False
    finds_address: bool = False
    small_disks: tuple[str, ...] = ()
    own_clocks: tuple[str, ...] = ()


class Site:
    """Everything that a run under chaos needs. Use it as a context manager: at the end, every process ends.

    Args:
        has_cable: whether the machines are two namespaces with a cable between them (root on Linux), or the
            same machine.
        needs: what else the machines must have.
        variables: environment variables for every process.
    """

    def __init__(self, *, has_cable: bool, needs: Needs = Needs(), **variables: str) -> None:
        self.device = Path(tempfile.mkdtemp(prefix="rfc", dir="/tmp"))
        self.has_cable = has_cable
        self._machines = Machines()
        self._network = Network()
        self._cable: tuple[str, str] | None = None
        self._needs = needs
        #: The cable, if it can do more than be pulled; its end b is at the GPU's machine.
        self.wire: Cable | None = None
        self.gpu_address = GPU_ADDRESS
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
        for name in needs.own_clocks:
            self.machine(name).variables.update(clock.variables(self.clock_folder(name)))
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

    def machine(self, name: str) -> Machine:
        """The head's machine, where the callers are too, or the GPU's: "head" or "gpu"."""
        return {"head": self.head, "gpu": self.gpu}[name]

    def clock_folder(self, name: str) -> Path:
        """The folder of a machine's own clock."""
        return self.device / f"clock-{name}"

    def call(self, name: str, priority: str, seconds: float, first: int, **variables: str) -> Path:
        """Start a caller, and return the file in which it writes its outcomes.

        Args:
            name: of the caller; another one may not have it.
            priority: "interactive" or "bulk".
            seconds: how long it asks.
            first: the number of its first photo.
            variables: environment variables for it.
        """
        file = self.device / f"{name}.jsonl"
        # Pixels go both ways: those of a scan by shared memory, a person's by the network.
        shared = {"RAYFACE_CLIENT__MAX_SHARED_BYTES": "160000000" if priority == "bulk" else "0"}
        arguments = (priority, str(seconds), str(first))
        self.callers[file] = self.run_beside(file, "tests.chaos.caller", arguments, shared | variables)
        return file

    def run_beside(
        self,
        file: Path,
        module: str,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        *,
        code: Path = HERE,
        is_told: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start `python -m MODULE FILE ARGUMENTS…` on the head's machine, as a backend there would run.

        Args:
            file: the module's first argument; its output goes to the same name with ".log".
            module: of `tests.chaos`.
            arguments: the others.
            variables: environment variables for it.
            code: the checkout that it runs from.
            is_told: whether it ends when we close its standard input.
        """
        with file.with_suffix(".log").open("wb") as output:
            return subprocess.Popen(
                [*self.head.prefix, sys.executable, "-m", module, str(file), *arguments],
                cwd=code,
                env=os.environ
                | self.head.variables
                | {"RAYFACE_CLUSTER__ADDRESS": self.address}
                | ({"PYTHONPATH": str(code)} if code != HERE else {})
                | dict(variables or {}),
                stdin=subprocess.PIPE if is_told else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def another(self) -> Machine:
        """A machine beside the one with the GPU, which has not joined."""
        machine = self._machines(**self._common)
        machine.prefix = self.gpu.prefix
        return machine

    def answers(self, file: Path) -> list[dict[str, Any]]:
        """The rows that a caller has written so far."""
        return rows(file.read_text().rpartition("\n")[0]) if file.exists() else []

    def num_asked(self, files: Sequence[Path] = ()) -> int:
        """How many photos these callers asked for, or all of them; they must have ended."""
        lasts = (file.with_suffix(".last") for file in files or self.callers)
        return sum(json.loads(last.read_text())["num_asked"] for last in lasts)

    def detectors(self) -> list[psutil.Process]:
        """The processes of detectors that have noted something on the device, and live."""
        # By pid: Ray changes a process's title with each call, to "ray::FaceDetector.detect" for example.
        noted = {note["pid"] for note in notes(self.device)}
        return [each for each in self._processes_of(self.gpu) if each.pid in noted]

    def raylet(self) -> psutil.Process | None:
        """Ray's process on the GPU's machine."""
        return self._process(self.gpu, "raylet")

    def store(self) -> psutil.Process | None:
        """The process on the head's machine that holds all of Ray's tables."""
        return self._process(self.head, "gcs_server")

    def driver(self, file: Path) -> psutil.Process | None:
        """A caller's driver process."""
        for each in _living(psutil.Process(self.callers[file].pid).children()):
            if "cluster.connection.driver" in " ".join(each.cmdline()):
                return each
        return None

    def kill_actor(self) -> bool:
        """Kill the detector's process, as a crash of the GPU's driver would; return whether there was one."""
        found = self.detectors()
        for process in found:
            process.kill()
        return bool(found)

    def kill_node(self) -> bool:
        """Kill the raylet of the machine that lends the device; return whether there was one."""
        if raylet := self.raylet():
            raylet.kill()
        return raylet is not None

    def cut(self) -> None:
        """Pull the cable."""
        assert self._cable is not None
        self._network.set_cable(*self._cable, up=False)

    def heal(self) -> None:
        """Put the cable back."""
        assert self._cable is not None
        self._network.set_cable(*self._cable, up=True)

    def give_address(self, address: str) -> None:
        """Take the GPU's machine its address, and give it another one."""
        assert self._cable is not None
        namespace, end = self._cable
        for change in (f"del {self.gpu_address}/24", f"add {address}/24"):
            sh(*in_namespace(namespace), "ip", "addr", *change.split(), "dev", end)
        self.gpu_address = address

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
            ends = (one, f"{HEAD_ADDRESS}/24", other, f"{GPU_ADDRESS}/24")
            if self._needs.wire:
                self.wire = Cable(*ends)
                self._cable = (other, ENDS[1])
            else:
                self._cable = (other, self._network.cable(*ends)[1])
            self.head.prefix, self.gpu.prefix = in_namespace(one), in_namespace(other)
            head_arguments += ["--address", HEAD_ADDRESS]
            join_arguments += [] if self._needs.finds_address else ["--address", GPU_ADDRESS]
        for name in self._needs.small_disks:
            sh("mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", self.machine(name).folder)
        self.head.start("head", *head_arguments)
        self.address = str(eventually(self._said_address, _START_WITHIN_S, lambda: self.head.said("head")))
        device = f"directml:{self.gpu.ports}"
        self.gpu.start("join", "join", self.address, "--device", device, "--wait", *join_arguments)
        eventually(self.raylet, _START_WITHIN_S, self.said)

    @staticmethod
    def _processes_of(machine: Machine) -> list[psutil.Process]:
        """All that the machine's command has started; what loses its parent becomes the command's child."""
        if not machine.started:
            return []
        try:
            return _living(psutil.Process(machine.started[-1].pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def _process(self, machine: Machine, name: str) -> psutil.Process | None:
        return next((each for each in self._processes_of(machine) if each.name() == name), None)

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
        try:
            self._machines.close()
        finally:
            for name in self._needs.small_disks:
                folder = self.machine(name).folder
                subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
                shutil.rmtree(folder, ignore_errors=True)
            if self.wire is not None:
                self.wire.close()
            self._network.close()
            shutil.rmtree(self.device, ignore_errors=True)


def _living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that are there and no zombies."""
    found = []
    for each in processes:
        try:
            if each.status() != psutil.STATUS_ZOMBIE and each.cmdline():
                found.append(each)
        except psutil.Error:
            continue
    return found
