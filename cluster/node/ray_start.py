"""The exact `ray start` of a head and of a machine that joins, with every port fixed.

The ports are fixed because they have to be published, forwarded and let through by firewalls. The times are
chosen for a home network: a blip of 10 s must not cost the machine, a dead one must be known within 20 s.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterUnavailable
from cluster.node.addresses import is_loopback, outer_address, own_address, split_address
from cluster.node.contract import COMMON, DEVICES_VARIABLE, NOTES_VARIABLE, RESOURCE
from cluster.ray_internals import COMMAND_MODULE, NODE_VARIABLES, metrics_port_variables, storage_variables
from cluster.settings import HeadSettings, JoinSettings, NodeSettings


@dataclass(frozen=True)
class Launch:
    """A `ray start` and the variables that it needs; the token is never among them.

    Attributes:
        arguments: of `ray`.
        variables: beside those of this process.
    """

    arguments: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def command(self) -> list[str]:
        """To run it with this Python, whatever `ray` is on the path."""
        return [sys.executable, "-m", COMMAND_MODULE, *self.arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Ours first: a variable that the person has set stays as it is."""
        return {**self.variables, **os.environ}

    def __str__(self) -> str:
        """As a person would type it, in the shell of this system."""
        if sys.platform == "win32":
            lines = [f"set {name}={value}" for name, value in self.variables.items()]
            return "\n".join([*lines, subprocess.list2cmdline(["ray", *self.arguments])])
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return "\n".join([*lines, shlex.join(["ray", *self.arguments])])


def head(settings: HeadSettings) -> Launch:
    """The head, with its dashboard on `dashboard_host`; at a loopback address it is for itself alone.

    Raises:
        ClusterUnavailable: it has no address that others could join by, and none was named.
    """
    address = settings.address or outer_address()
    variables = {**COMMON, **NODE_VARIABLES, **_reach(address)}
    # Ray opens these three on every head; unnamed, they would be the same for any two heads of a machine.
    client, autoscaler, dashboard = range(settings.first_port + 6, settings.first_port + 9)
    variables |= metrics_port_variables(autoscaler, dashboard)
    if settings.storage is not None:
        variables |= storage_variables(settings.storage)
    return Launch(
        (
            "start",
            "--head",
            "--block",
            f"--port={settings.gcs_port}",
            f"--dashboard-host={settings.dashboard_host}",
            f"--dashboard-port={settings.dashboard_port}",
            f"--ray-client-server-port={client}",
            *_common_arguments(settings, address),
        ),
        variables,
    )


def node_manager_ports(settings: NodeSettings) -> tuple[int, ...]:
    """Ports of which every start of Ray on a machine that joins takes the next; a head has one.

    Ray repeats a request for a process to a node that died until it knows of the death. A new node at the
    same port would take that request for its own: it would give its device to nobody, for good, and refuse
    it to the detector (Ray 2.60, seen under chaos).
    """
    first = settings.first_port
    return (first,) if isinstance(settings, HeadSettings) else (first, first + 6, first + 7)


def join(head_address: str, settings: JoinSettings, notes: str = "", turn: int = 0) -> Launch:
    """A machine that lends its devices to the head at `HOST:PORT`.

    Args:
        head_address: where the head is.
        settings: of this machine.
        notes: a folder in which its detectors look for notes of their supervisor.
        turn: which start of Ray this is; see `node_manager_ports`.

    Raises:
        ClusterUnavailable: one of the two would be known by a loopback address, or there is no way there.
    """
    address = settings.address or own_address(head_address)
    units = {RESOURCE: len(settings.devices)}
    if is_loopback(split_address(head_address)[0]) or is_loopback(address):
        raise ClusterUnavailable(
            f"Ray lets nobody join by a loopback address ({head_address}, as {address}), not even on one "
            "machine. Use the address that `rayface head` says at its start."
        )
    variables = {**COMMON, **NODE_VARIABLES, **_reach(address), DEVICES_VARIABLE: ",".join(settings.devices)}
    if notes:
        variables[NOTES_VARIABLE] = notes
    return Launch(
        (
            "start",
            "--block",
            f"--address={head_address}",
            f"--resources={json.dumps(units)}",
            *_common_arguments(settings, address, turn),
        ),
        variables,
    )


def environment(address: str) -> dict[str, str]:
    """For a process that only asks the head at that address; what a person has set stays."""
    return {**COMMON, **NODE_VARIABLES, **_reach(address), **os.environ}


def _reach(address: str) -> dict[str, str]:
    """Lets Windows into a cluster of several machines, and a head that is for itself stay on loopback.

    Where the switch is on, as it is by default on Linux, Ray takes the machine's outer address for 127.0.0.1.
    Where it is off, nobody can join.
    """
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if is_loopback(address) else "1"}


def reached_ports(settings: NodeSettings, num_workers: int) -> list[int]:
    """What other machines must reach: node manager, object manager, metrics, and so many processes' ports."""
    first, worker = settings.first_port, settings.first_worker_port
    fixed = [*node_manager_ports(settings), first + 1, first + 4]
    return [*fixed, *range(worker, worker + min(num_workers, settings.num_worker_ports))]


def _common_arguments(settings: NodeSettings, address: str, turn: int = 0) -> tuple[str, ...]:
    managers = node_manager_ports(settings)
    base, first = settings.first_port, settings.first_worker_port
    temp_dir = settings.temp_dir
    if temp_dir is None and sys.platform == "win32":
        # Left to itself Ray takes over the head's folder, which on Windows is no path.
        temp_dir = Path(tempfile.gettempdir()) / "ray"
    return (
        f"--node-ip-address={address}",
        f"--node-manager-port={managers[turn % len(managers)]}",
        f"--object-manager-port={base + 1}",
        f"--runtime-env-agent-port={base + 2}",
        f"--dashboard-agent-grpc-port={base + 3}",
        f"--metrics-export-port={base + 4}",
        f"--dashboard-agent-listen-port={base + 5}",
        f"--min-worker-port={first}",
        f"--max-worker-port={first + settings.num_worker_ports - 1}",
        f"--num-cpus={settings.num_cpus}",
        f"--object-store-memory={settings.object_store_bytes}",
        *([f"--temp-dir={temp_dir}"] if temp_dir else []),
        "--disable-usage-stats",
    )
