"""The exact `ray start` of a head and of a machine that joins, with every port fixed.

The ports are fixed because people have to publish and forward them, and let them through firewalls. The times
suit a home network: an interruption of 10 s must not cost the machine; a dead one is known within 20 s.
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
from cluster.protocol.identity import labels
from cluster.ray_variables import COMMAND_MODULE, NODE_VARIABLES, metrics_port_variables, storage_variables
from cluster.settings import HeadSettings, JoinSettings, NodeSettings


@dataclass(frozen=True)
class Launch:
    """A `ray start` and the variables that it needs; the token is never one of them.

    Attributes:
        arguments: the arguments of `ray`.
        variables: environment variables in addition to those of this process.
    """

    arguments: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def command(self) -> list[str]:
        """The command that runs it with this Python, whatever `ray` is on the path."""
        return [sys.executable, "-m", COMMAND_MODULE, *self.arguments]

    @property
    def environment(self) -> dict[str, str]:
        """All environment variables for it; one that the person has set keeps the person's value."""
        return {**self.variables, **os.environ}

    def value(self, option: str) -> str:
        """The value of an option that is written OPTION=VALUE; "" without it."""
        found = (each.partition("=")[2] for each in self.arguments if each.startswith(f"{option}="))
        return next(found, "")

    def __str__(self) -> str:
        """The command as a person would type it in the shell of this system."""
        if sys.platform == "win32":
            lines = [f"set {name}={value}" for name, value in self.variables.items()]
            return "\n".join([*lines, subprocess.list2cmdline(["ray", *self.arguments])])
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return "\n".join([*lines, shlex.join(["ray", *self.arguments])])


def head(settings: HeadSettings) -> Launch:
    """The launch of a head. At a loopback address it serves programs on its own machine alone.

    Raises:
        ClusterUnavailable: the machine has no address by which others could join, and none was named.
    """
    address = settings.address or outer_address()
    variables = {**COMMON, **NODE_VARIABLES, **_reach(address)}
    # Ray opens these three ports on every head. By default, two heads on one machine would share them.
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
    """The node manager's ports: each start of Ray on a machine that joins takes the next one; a head has one.

    Until Ray knows that a node died, it repeats a request for a process to that node. A new node at the same
    port would take the request for its own: it would reserve its device for nobody, for ever, and refuse it
    to the detector (seen with Ray 2.60 in the chaos tests).
    """
    first = settings.first_port
    return (first,) if isinstance(settings, HeadSettings) else (first, first + 6, first + 7)


def join(head_address: str, settings: JoinSettings, notes: str = "", turn: int = 0) -> Launch:
    """The launch of a machine that lends its devices.

    Args:
        head_address: of the head, HOST:PORT.
        settings: of this machine.
        notes: the folder in which its detectors look for notes of their supervisor; "" for none.
        turn: the number of this start of Ray; see `node_manager_ports`.

    Raises:
        ClusterUnavailable: the head or this machine has a loopback address, or there is no way to the head.
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
    """Environment variables for a process that asks the head; a person's own variables keep their values."""
    return {**COMMON, **NODE_VARIABLES, **_reach(address), **os.environ}


def _reach(address: str) -> dict[str, str]:
    """The variable that lets Windows join, and that keeps a head at a loopback address on loopback.

    With "1", as by default on Linux, Ray replaces 127.0.0.1 by the machine's outer address. With "0", no
    other machine can join.
    """
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if is_loopback(address) else "1"}


def reached_ports(settings: NodeSettings, num_workers: int) -> list[int]:
    """The ports that other machines must reach: node manager, object manager, metrics, and some workers'."""
    first, worker = settings.first_port, settings.first_worker_port
    fixed = [*node_manager_ports(settings), first + 1, first + 4]
    return [*fixed, *range(worker, worker + min(num_workers, settings.num_worker_ports))]


def _common_arguments(settings: NodeSettings, address: str, turn: int = 0) -> tuple[str, ...]:
    managers = node_manager_ports(settings)
    base, first = settings.first_port, settings.first_worker_port
    temp_dir = settings.temp_dir
    if temp_dir is None and sys.platform == "win32":
        # By default, Ray takes the head's folder, whose path means nothing on Windows.
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
        # Whoever looks at the cluster sees which rayface each machine has.
        f"--labels={','.join(f'{name}={value}' for name, value in labels().items())}",
        *([f"--temp-dir={temp_dir}"] if temp_dir else []),
        "--disable-usage-stats",
    )
