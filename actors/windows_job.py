"""Windows' Job Objects: limits for processes, which end together (winnt.h, jobapi2.h)."""

from __future__ import annotations

import ctypes
from typing import Any

PROCESS_TIME = 0x2
PROCESS_MEMORY = 0x100
KILL_ON_CLOSE = 0x2000
_EXTENDED_LIMIT_INFORMATION = 9


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("per_process_user_time", ctypes.c_int64),
        ("per_job_user_time", ctypes.c_int64),
        ("limit_flags", ctypes.c_uint32),
        ("min_working_set", ctypes.c_size_t),
        ("max_working_set", ctypes.c_size_t),
        ("active_process_limit", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION; `basic.limit_flags` says which of its fields count."""

    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


def kernel() -> Any:
    """kernel32, with the types of the functions that concern jobs."""
    found = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]  # Windows only
    found.CreateJobObjectW.restype = ctypes.c_void_p
    found.CreateJobObjectW.argtypes = (ctypes.c_void_p, ctypes.c_wchar_p)
    found.GetCurrentProcess.restype = ctypes.c_void_p
    found.SetInformationJobObject.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_uint32,
    )
    found.AssignProcessToJobObject.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    found.TerminateJobObject.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    found.CloseHandle.argtypes = (ctypes.c_void_p,)
    return found


def set_limits(job: int, limits: ExtendedLimits) -> bool:
    """Give a job its limits; returns whether Windows took them."""
    return bool(
        kernel().SetInformationJobObject(
            job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
        )
    )
