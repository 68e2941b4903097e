"""A head behind published ports, a machine that joins from outside, and a cable that is pulled.

The other machine cannot reach the address of the head's machine. The head's ports are forwarded on the other
machine's own address, as Docker Desktop forwards them on the Windows host. Each machine knows the other by a
name, and a name means a different address on each side.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.lab import Network, in_namespace, need
from tests.hosts.machines import HERE, Machine, eventually, processes_with, rows, tell

_CONTAINER, _ROUTER_IN, _ROUTER_OUT, _WINDOWS = "10.78.0.2", "10.78.0.1", "192.168.78.1", "192.168.78.10"


@dataclass
class Lab:
    """The container with the head, the machine with the GPU, and that machine's cable."""

    network: Network
    container: Machine
    windows: Machine
    router: str
    cable: str
    forwarder: subprocess.Popen[str]

    def cut(self) -> None:
        """Pull the cable: nobody refuses and nobody answers; forwarded connections stop too."""
        self.forwarder.send_signal(signal.SIGSTOP)
        self.network.set_cable(self.router, self.cable, False)

    def heal(self) -> None:
        """Put the cable back."""
        self.network.set_cable(self.router, self.cable, True)
        self.forwarder.send_signal(signal.SIGCONT)

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `rayface …` in the container, as a driver of the head there."""
        return self.container.run(*arguments, "--address", "ray-head:6379")

    def said(self) -> str:
        """The last lines that the machine with the GPU wrote."""
        return self.windows.said("join")[-3000:]


@pytest.fixture(scope="module")
def lab(make_machine: Callable[..., Machine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need("network", "ip", "iptables", "nsenter", "unshare")
    folder = tmp_path_factory.mktemp("network")
    network = Network()
    forwarder: subprocess.Popen[str] | None = None
    machines: list[Machine] = []
    try:
        inside, router, outside = (network.machine(name) for name in ("head", "router", "win"))
        network.cable(inside, f"{_CONTAINER}/24", router, f"{_ROUTER_IN}/24")
        _, cable = network.cable(outside, f"{_WINDOWS}/24", router, f"{_ROUTER_OUT}/24")
        _in(inside, "ip", "route", "add", "default", "via", _ROUTER_IN)
        _in(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _in(router, "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.78.0.0/24", "-j", "MASQUERADE")
        # From outside, only the published ports of the container can be reached.
        _in(
            router,
            "iptables",
            "-A",
            "FORWARD",
            "-d",
            "10.78.0.0/24",
            "-m",
            "conntrack",
            "--ctstate",
            "NEW",
            "-j",
            "DROP",
        )
        ports = {
            "RAYFACE_HEAD__GCS_PORT": "6379",
            "RAYFACE_HEAD__FIRST_PORT": "6380",
            "RAYFACE_HEAD__FIRST_WORKER_PORT": "10002",
        }
        container = make_machine(**ports)
        names = {"ray-head": _CONTAINER, "win-host": _WINDOWS}
        container.prefix = _machine(inside, folder, "container", names)
        windows = make_machine(RAYFACE_JOIN__FIRST_PORT="7380", RAYFACE_JOIN__FIRST_WORKER_PORT="11002")
        windows.prefix = _machine(outside, folder, "windows", dict.fromkeys(names, _WINDOWS))
        machines = [container, windows]
        command = [sys.executable, "-m", "tests.hosts.port_forward", outside, _WINDOWS, inside, _CONTAINER]
        forwarder = subprocess.Popen(
            [*command, "6379-6381", "10002-10121"], cwd=HERE, stdout=subprocess.PIPE, text=True
        )
        assert forwarder.stdout is not None
        assert forwarder.stdout.readline() == "forwarding\n"
        container.start("head", "head", "--address", "ray-head")
        windows.start(
            "join", "join", "ray-head:6379", "--address", "win-host", "--device", "cpu:910", "--wait"
        )
        made = Lab(network, container, windows, router, cable, forwarder)
        eventually(
            lambda: made.ask("place").returncode == 0, 120, lambda: container.said("head") + made.said()
        )
        yield made
    finally:
        for machine in reversed(machines):
            machine.close()
        if forwarder is not None:
            forwarder.kill()
            forwarder.communicate()
        network.close()


def _machine(namespace: str, folder: Path, name: str, hosts: dict[str, str]) -> tuple[str, ...]:
    file = folder / f"hosts-{name}"
    lines = ["127.0.0.1 localhost", *(f"{address} {host}" for host, address in hosts.items())]
    file.write_text("\n".join(lines) + "\n")
    return in_namespace(namespace, file, name)


def _in(namespace: str, *command: str) -> str:
    done = subprocess.run([*in_namespace(namespace), *command], capture_output=True, text=True, check=True)
    return done.stdout


def test_photos_are_detected_through_published_ports(lab: Lab, photos: Path) -> None:
    found = rows(lab.ask("detect", str(photos), "--json").stdout)
    assert [row["status"] for row in found] == ["detected"] * 7
    assert sum(len(row["faces"]) for row in found) == 10


@pytest.mark.parametrize("cut_s", [5, 30, 90])
def test_the_cable_is_pulled_while_photos_are_in_flight(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], cut_s: int
) -> None:
    """I1, I6: each photo gets one outcome within its deadline, and the cluster recovers by itself."""
    file = tmp_path / "outcomes"
    seconds = str(cut_s + 45)
    variables = {"RAYFACE_CLUSTER__ADDRESS": "ray-head:6379"}
    command = [*lab.container.prefix, sys.executable, "-m", "tests.hosts.stream_photos", str(file), seconds]
    backend = subprocess.Popen(
        command, cwd=HERE, env=os.environ | lab.container.variables | variables, stdin=subprocess.DEVNULL
    )
    eventually(lambda: file.exists() and len(file.read_text().splitlines()) > 3, 60, lab.said)
    before = rows(file.read_text())[-1]
    lab.cut()
    pulled = time.time()
    time.sleep(cut_s)
    lab.heal()
    healed = time.time()
    assert backend.wait(cut_s + 120) == 0
    found: list[dict[str, Any]] = rows(file.read_text())
    wrong = [row for row in found if row["status"] == "detected" and row["num_faces"] != 7]
    assert not wrong, "a failure was shown as an answer"
    assert max(row["took_s"] for row in found) < 20 + 2, "a deadline was missed"
    after = [row for row in found if row["asked"] + row["took_s"] > healed and row["status"] == "detected"]
    assert after, f"no photo was detected after the cable was back: {found[-5:]}\n{lab.said()}"
    again_s = min(row["asked"] + row["took_s"] for row in after) - healed
    failed = [row for row in found if row["status"] != "detected"]
    tell(
        capsys,
        f"cable pulled {healed - pulled:.0f} s: {len(found)} photos, {len(failed)} failed "
        f"({sorted({row['reason'] for row in failed})}), well again after {again_s:.1f} s, "
        f"the same detector: {after[-1]['incarnation'] == before['incarnation']}",
    )
    assert found[-1]["status"] == "detected"
    if cut_s <= 10:
        assert after[-1]["incarnation"] == before["incarnation"], "Ray gave up the node after a short cut"


_WATCH = """
import sys, time
from cluster import load_settings
from cluster.deployment import joining
joining.join_or_start(load_settings(cluster={"address": "ray-head:6379"}))
import ray
def num_alive():
    return sum(node["Alive"] for node in ray.nodes())
assert num_alive() == 2
print("watching", flush=True)
sys.stdin.readline()
begun = time.monotonic()
while num_alive() == 2 and time.monotonic() - begun < 60:
    time.sleep(0.2)
print("known", time.monotonic() - begun, flush=True)
"""


def test_a_machine_that_dies_is_known_soon(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """We chose fifteen checks, one second apart, at most 2 s each: a dead machine is known within 50 s."""
    watcher = subprocess.Popen(
        [*lab.container.prefix, sys.executable, "-c", _WATCH],
        cwd=HERE,
        env=os.environ | lab.container.variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "watching\n"
    lab.cut()
    try:
        said, _ = watcher.communicate("\n", timeout=90)
    finally:
        lab.heal()
    # Ray itself writes between the lines of a driver's output.
    known_s = float(next(line for line in said.splitlines() if line.startswith("known ")).split()[1])
    tell(capsys, f"a machine that dies is known after {known_s:.1f} s")
    # The wait itself is bounded by Ray's own timers, not by this machine's speed.
    assert known_s < 50
    eventually(lambda: lab.ask("place").returncode == 0, 120, lab.said)


def test_nothing_is_left_on_the_machine_at_the_end(lab: Lab) -> None:
    joined = lab.windows.started[0]
    joined.send_signal(signal.SIGINT)
    assert joined.wait(60) == 0
    assert not processes_with(str(lab.windows.folder))
