"""Limits that a process sets for itself: memory, processor time, and the end of its parent.

Linux has resource limits, and Windows a Job Object. macOS has no limit of the address space, so there the
deadline and the declared size are what bounds a decoder.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time

from actors import windows_job

if sys.platform != "win32":
    import resource

_HUNDRED_NS_PER_S = 10_000_000
#: The highest value, which every process may give itself. `man 5 proc`, oom_score_adj.
_ENDED_FIRST = 1000


class ProcessLimits:
    """The limits of this process.

    Args:
        max_bytes: memory that it may take beyond what it has now.
    """

    def __init__(self, max_bytes: int) -> None:
        self._job = _new_job() if sys.platform == "win32" else None
        self._max_memory = _memory_now() + max_bytes
        if sys.platform != "win32":
            # A core of half a gigabyte is of no use to anybody.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            # macOS refuses a limit of the address space.
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_AS, (self._max_memory, self._max_memory))

    def allow_cpu(self, seconds: float) -> None:
        """Let the process use this much more processor time; the system ends it when that is used up."""
        until = time.process_time() + seconds
        if sys.platform == "win32":
            _limit_job(self._job, self._max_memory, until)
        else:
            # Only the soft limit is set: a later photo raises it. The system counts whole seconds.
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(until), resource.RLIM_INFINITY))


def end_first_without_memory() -> None:
    """When a Linux machine has no memory left, let it end this process, and not the one that asked it."""
    # A container may forbid it, and other systems have no such file.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(_ENDED_FIRST))


def _memory_now() -> int:
    """Bytes of the address space on Linux; of committed memory on Windows."""
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    import psutil

    return int(psutil.Process().memory_info().vms)


def _new_job() -> int | None:
    """A Job Object that holds this process; None if Windows gives none, and then the deadline must do."""
    kernel = windows_job.kernel()
    job = kernel.CreateJobObjectW(None, None)
    if job and kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess()):
        return int(job)
    return None


def _limit_job(job: int | None, max_memory: int, cpu_until_s: float) -> None:
    if job is None:
        return
    limits = windows_job.ExtendedLimits()
    limits.basic.limit_flags = windows_job.PROCESS_TIME | windows_job.PROCESS_MEMORY
    limits.basic.per_process_user_time = int(cpu_until_s * _HUNDRED_NS_PER_S)
    limits.process_memory = max_memory
    windows_job.set_limits(job, limits)
