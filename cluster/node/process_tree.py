"""A process and all that it starts; they end together, however this process itself ends.

Windows: a Job Object that kills what is in it when its last handle is closed, by us or by our death. Linux:
the child gets SIGTERM when we die (PR_SET_PDEATHSIG; `ray start` then ends its own), and what loses its
parent becomes our child (PR_SET_CHILD_SUBREAPER), so that we can find it. A process belongs to the tree if it
carries the tree's mark or is in its session. Elsewhere only what psutil finds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import IO, Any

import psutil

from actors import windows_job

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# processthreadsapi.h
_CREATE_SUSPENDED = 0x4
_CREATE_NEW_PROCESS_GROUP = 0x200

#: Variable that marks the processes of one tree, whose orphans become our children.
_MARK = "_RAYFACE_FAMILY"


class ProcessTree:
    """One command, and all its descendants.

    Args:
        command: program and arguments.
        environment: all its variables.
        output: file for its output.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: IO[Any]) -> None:
        self._job: int | None = None
        self._mark = uuid.uuid4().hex
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": output,
            "stderr": subprocess.STDOUT,
            "env": {**environment, _MARK: self._mark},
        }
        if sys.platform == "win32":
            self._job = _new_job()
            self._process = subprocess.Popen(
                command, creationflags=_CREATE_SUSPENDED | _CREATE_NEW_PROCESS_GROUP, **streams
            )
            # Suspended until it is in the job, or what it starts first would be outside.
            _assign(self._job, int(self._process._handle))
            psutil.Process(self._process.pid).resume()
        else:
            adopt_orphans()
            self._process = subprocess.Popen(
                # A session of its own: Ctrl+C is for us, who let the detectors finish first.
                command,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (one system call, which takes no lock)
                **streams,
            )

    @property
    def pid(self) -> int:
        """Number of the process of the command."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while the command runs."""
        return self._process.poll()

    def end(self, grace_s: float) -> list[str]:
        """Ask the command to end, wait `grace_s` seconds and kill what is left; returns its names."""
        if self._process.poll() is None and sys.platform != "win32":
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        if sys.platform == "win32":
            # Windows has no gentle way for a process without a console.
            windows_job.kernel().TerminateJobObject(self._job, 1)
            windows_job.kernel().CloseHandle(self._job)
            self._process.wait(10)
            return []
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        return _end_all(self._mark, self._process.pid)


def _end_all(mark: str, session: int) -> list[str]:
    """Kill our descendants of that tree until there are none; a tree being killed may still grow."""
    names = []
    until = time.monotonic() + 10.0
    while time.monotonic() < until:
        left = [each for each in psutil.Process().children(recursive=True) if _belongs(each, mark, session)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                names.append(process.name())
                process.kill()
        if not left:
            break
        psutil.wait_procs(left, timeout=1)
    return names


def _belongs(process: psutil.Process, mark: str, session: int) -> bool:
    # A process that sets its own title, as Ray's agents and workers do, writes over its environment: only
    # the session still tells whose it is. A process that began a session of its own still has the mark.
    with contextlib.suppress(psutil.Error):
        if process.environ().get(_MARK) == mark:
            return True
    with contextlib.suppress(OSError):
        # A zombie has nothing that could be ended.
        return os.getsid(process.pid) == session and _runs(process)
    return False


def _runs(process: psutil.Process) -> bool:
    """Whether the process is there and no zombie."""
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """On Linux, let what loses its parent among our descendants become our child, so that we can find it."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _new_job() -> int:
    job = windows_job.kernel().CreateJobObjectW(None, None)
    limits = windows_job.ExtendedLimits()
    limits.basic.limit_flags = windows_job.KILL_ON_CLOSE
    if not job or not windows_job.set_limits(job, limits):
        raise OSError("Windows gave no Job Object, so nothing could promise that Ray ends with rayface.")
    return int(job)


def _assign(job: int, process: int) -> None:
    if not windows_job.kernel().AssignProcessToJobObject(job, process):
        raise OSError("Windows did not take Ray into the Job Object.")
