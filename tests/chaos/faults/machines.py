"""Machines that run out of something: disks that are full, memory that is short, clocks that jump."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.chaos import clock
from tests.chaos.faults.kind import FaultKind, Load
from tests.chaos.site import Needs
from tests.hosts.machines import eventually

_HOUR_S = 3600.0
_GROUPS = Path("/sys/fs/cgroup")
#: Less than a detector's process needs to start.
_SHORT_MB = 64


def _full_disk(machine: str, words: str) -> FaultKind:
    @contextmanager
    def plant(load: Load) -> Iterator[None]:
        filler = load.site.machine(machine).folder / "filler"
        with filler.open("wb", buffering=0) as file:
            for num_bytes in (1_000_000, 4096):
                # Until there is no room; others write at the same time.
                with contextlib.suppress(OSError):
                    while file.write(bytes(num_bytes)):
                        pass
        try:
            yield
        finally:
            filler.unlink()

    needs = Needs(small_disks=(machine,))
    return FaultKind(f"disk-{machine}", f"the disk of {words} is full for 30 s", plant, 30.0, needs)


def _clock(name: str, words: str, machine: str, ahead_s: float) -> FaultKind:
    @contextmanager
    def plant(load: Load) -> Iterator[None]:
        folder = load.site.clock_folder(machine)
        clock.set_ahead(folder, ahead_s)
        try:
            yield
        finally:
            clock.set_ahead(folder, 0.0)

    # The table says what is not planted, too.
    whole = f"{words} for 15 s (Python's time.time; not Ray's own processes)"
    return FaultKind(name, whole, plant, 15.0, Needs(own_clocks=(machine,)))


@contextmanager
def _short_memory(load: Load) -> Iterator[None]:
    """Those that run have their memory already, so the detector has to start again to notice."""
    detectors = eventually(load.site.detectors, 60, load.site.said)
    raylet = eventually(load.site.raylet, 60, load.site.said)
    with limited([raylet.pid], _SHORT_MB * 1_000_000):
        for each in detectors:
            each.kill()
        yield


@contextmanager
def limited(pids: Sequence[int], num_bytes: int) -> Iterator[None]:
    """Let these processes and their later children together take only so much more memory.

    A control group does it, and the system kills one of them where they take more. Where there are no control
    groups, each process has the limit for itself, and its allocations fail.
    """
    parent, limit_file = _GROUPS / "memory", "memory.limit_in_bytes"
    if not parent.is_dir():
        parent, limit_file = _GROUPS, "memory.max"
    group = parent / f"rayface-chaos-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit_file).write_text(str(num_bytes))
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        with _limited_each(pids, num_bytes):
            yield
        return
    try:
        yield
    finally:
        # Those that live go on without a limit; a group can be removed only when it is empty.
        (group / limit_file).write_text("-1" if limit_file != "memory.max" else "max")
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (parent / "cgroup.procs").write_text(left)
        with contextlib.suppress(OSError):
            group.rmdir()


@contextmanager
def _limited_each(pids: Sequence[int], num_bytes: int) -> Iterator[None]:
    assert sys.platform == "linux"
    for pid in pids:
        most = psutil.Process(pid).memory_info().vms + num_bytes
        resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


KINDS = (
    _full_disk("gpu", "the GPU's machine"),
    _full_disk("head", "the head's machine"),
    FaultKind(
        "memory",
        f"the detector's process, killed, and no more than {_SHORT_MB} MB for another one for 15 s",
        _short_memory,
        15.0,
    ),
    _clock("clock-gpu-ahead", "the clock of the GPU's machine is an hour ahead", "gpu", _HOUR_S),
    _clock("clock-gpu-behind", "the clock of the GPU's machine is an hour behind", "gpu", -_HOUR_S),
    _clock("clock-head-ahead", "the clock of the head and its backends is an hour ahead", "head", _HOUR_S),
    _clock("clock-head-behind", "the clock of the head and its backends is an hour behind", "head", -_HOUR_S),
)
