"""What this machine spends: processor time by kind of process, and bytes on its network."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import psutil

from actors.intake import num_cores

#: The kinds of processes, in the order in which they are shown.
KINDS = ("client", "driver process", "detector", "Ray", "others")
_DRIVER_MODULE = "cluster.connection.driver"


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of this machine at one moment.

    Attributes:
        at: the moment, in seconds by `time.monotonic`.
        processes: kind and processor seconds of each process of ours, by process id.
        machine_s: processor seconds of all processes of this machine.
        sent: bytes sent by each network interface, loopback left out.
    """

    at: float
    processes: Mapping[int, tuple[str, float]]
    machine_s: float
    sent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent for each second between two moments.

    Attributes:
        cores: cores in use by kind of process; "others" are programs that do not belong to the bench.
        num_cores: cores that this process may use.
        sent_bytes_per_s: bytes that the busiest network interface sent, a second.
        nominal_bytes_per_s: what that interface can carry, as its driver says; None where it does not say.
    """

    cores: Mapping[str, float] = field(default_factory=dict)
    num_cores: int = 1
    sent_bytes_per_s: float = 0.0
    nominal_bytes_per_s: float | None = None

    @property
    def busy_cores(self) -> float:
        """Cores in use by all processes of this machine."""
        return sum(self.cores.values())


def usage(detectors: Collection[int]) -> Usage:
    """Read this machine's counters.

    Args:
        detectors: process ids of the detectors that run on this machine.
    """
    own = psutil.Process()
    found: dict[int, tuple[str, float]] = {}
    for process in (own, *own.children(recursive=True), *_of_ray(detectors)):
        # A process may end while it is looked at, and another user's may not be looked at.
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = (_kind(process, detectors), times.user + times.system)
    whole = psutil.cpu_times()
    idle = whole.idle + getattr(whole, "iowait", 0.0)
    # Linux counts the time of guests in `user` too.
    guests = getattr(whole, "guest", 0.0) + getattr(whole, "guest_nice", 0.0)
    counters = psutil.net_io_counters(pernic=True)
    return Usage(
        at=time.monotonic(),
        processes=found,
        machine_s=sum(whole) - idle - guests,
        sent={name: each.bytes_sent for name, each in counters.items() if not _is_loopback(name)},
    )


def spent(before: Usage, after: Usage) -> Spent:
    """What was spent between two moments."""
    seconds = max(1e-9, after.at - before.at)
    cores = dict.fromkeys(KINDS, 0.0)
    for pid, (kind, used_s) in after.processes.items():
        cores[kind] += max(0.0, used_s - before.processes.get(pid, (kind, 0.0))[1]) / seconds
    machine = max(0.0, after.machine_s - before.machine_s) / seconds
    cores["others"] = max(0.0, machine - sum(cores.values()))
    sent = {name: (num - before.sent.get(name, num)) / seconds for name, num in after.sent.items()}
    busiest = max(sent, key=lambda name: sent[name], default=None)
    return Spent(
        cores=cores,
        num_cores=num_cores(),
        sent_bytes_per_s=sent[busiest] if busiest is not None else 0.0,
        nominal_bytes_per_s=_speed(busiest) if busiest is not None else None,
    )


def _of_ray(detectors: Collection[int]) -> list[psutil.Process]:
    """The detectors of this machine, and the processes of Ray that started them."""
    found: dict[int, psutil.Process] = {}
    for pid in detectors:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found[pid] = process
            parent = process.parent()
            if parent is not None:
                found[parent.pid] = parent
    return list(found.values())


def _kind(process: psutil.Process, detectors: Collection[int]) -> str:
    if process.pid == os.getpid():
        return "client"
    if process.pid in detectors:
        return "detector"
    return "driver process" if _DRIVER_MODULE in " ".join(process.cmdline()) else "Ray"


def _is_loopback(name: str) -> bool:
    return name == "lo" or name.lower().startswith("loopback")


def _speed(interface: str) -> float | None:
    """Bytes a second; the driver says megabits, and 0 (or 65535) where it does not know."""
    known = psutil.net_if_stats().get(interface)
    return known.speed * 1e6 / 8 if known is not None and 0 < known.speed < 65535 else None
