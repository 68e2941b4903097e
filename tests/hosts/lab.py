"""Checks what the slow suites need: root, Debian's packages, network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

#: The suites that must not be skipped; .ci/run names them, for example "engine,wine,network".
REQUIRED = os.environ.get("RAYFACE_TEST_REQUIRE", "").split(",")


def need(suite: str, *programs: str) -> None:
    """Skip a suite that this system cannot run, and say why; in CI, fail instead."""
    missing = [program for program in programs if shutil.which(program) is None]
    problem = ""
    if sys.platform != "linux" or os.geteuid() != 0:
        problem = "this suite needs root on Linux (for namespaces and a Docker engine)"
    elif missing:
        problem = f"these programs are missing: {', '.join(missing)}; `.ci/run` shows the packages"
    if problem and suite in REQUIRED:
        pytest.fail(f"{suite}: {problem}")
    if problem:
        pytest.skip(f"{suite}: {problem}")


def can_make_networks() -> bool:
    """Whether this system lets us make network namespaces."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"rayface-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return True


def sh(*command: str | Path, timeout_s: float = 120, **options: Any) -> str:
    """Run a command to its end and return its output; raise AssertionError with the output if it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


class Network:
    """Network namespaces that stand for machines; all of them end with `close`."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._num_cables = 0

    def machine(self, name: str) -> str:
        """Make a namespace whose loopback is up, and return its name on the system."""
        whole = f"rayface-{name}-{os.getpid()}"
        sh("ip", "netns", "add", whole)
        self._made.append(whole)
        sh(*in_namespace(whole), "ip", "link", "set", "lo", "up")
        return whole

    def cable(self, one: str, one_address: str, other: str, other_address: str) -> tuple[str, str]:
        """Connect two machines by a cable, and return the names of the two ends."""
        self._num_cables += 1
        ends = (f"cable{self._num_cables}a", f"cable{self._num_cables}b")
        sh("ip", "link", "add", ends[0], "netns", one, "type", "veth", "peer", ends[1], "netns", other)
        for name, address, end in ((one, one_address, ends[0]), (other, other_address, ends[1])):
            sh(*in_namespace(name), "ip", "addr", "add", address, "dev", end)
            sh(*in_namespace(name), "ip", "link", "set", end, "up")
        return ends

    @staticmethod
    def set_cable(machine: str, end: str, up: bool) -> None:
        """Pull one end of a cable, or put it back."""
        sh(*in_namespace(machine), "ip", "link", "set", end, "up" if up else "down")

    def close(self) -> None:
        """Remove the namespaces that were made here."""
        for name in reversed(self._made):
            sh("ip", "netns", "del", name)
        self._made.clear()


def in_namespace(namespace: str, hosts: Path | None = None, host_name: str = "") -> tuple[str, ...]:
    """The beginning of a command that runs on that machine, with a hosts file and a name of its own."""
    # We use nsenter, because `ip -n` and `ip netns exec` mount /sys again, which hides the cgroups.
    enter: Sequence[str] = ("nsenter", f"--net=/run/netns/{namespace}")
    if hosts is None:
        return tuple(enter)
    inside = f'hostname {host_name or "host"}; mount --bind {hosts} /etc/hosts; exec "$@"'
    return (*enter, "unshare", "--mount", "--uts", "sh", "-c", inside, "sh")
