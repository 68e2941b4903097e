"""A named mutex of Windows, through kernel32; only Windows can run this."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

# Results of WaitForSingleObject and GetLastError, winbase.h and winerror.h.
_WAIT_OBJECT_0 = 0x0
_WAIT_ABANDONED = 0x80
_WAIT_TIMEOUT = 0x102
_ERROR_ACCESS_DENIED = 5


@contextlib.contextmanager
def mutex(name: str, folder: Path) -> Iterator[bool]:
    """Take `Global\\rayface-<name>` if it is free, and hold it during the block; yields whether it was free.

    Every session sees `Global\\`, the services' session 0 too. A mutex whose owner died is ours
    (WAIT_ABANDONED): the device that it guards was closed with that process. A mutex of another user cannot
    be opened, and counts as held.

    Args:
        name: name of the device.
        folder: not used; the mutex lives in no file.

    Raises:
        OSError: Windows gave no mutex.
    """
    del folder
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]  # Windows only
    kernel.CreateMutexW.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_wchar_p)
    kernel.CreateMutexW.restype = ctypes.c_void_p
    kernel.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    kernel.WaitForSingleObject.restype = ctypes.c_uint32
    kernel.ReleaseMutex.argtypes = (ctypes.c_void_p,)
    kernel.CloseHandle.argtypes = (ctypes.c_void_p,)
    handle = kernel.CreateMutexW(None, False, f"Global\\rayface-{name}")
    if not handle:
        code = ctypes.get_last_error()  # type: ignore[attr-defined,unused-ignore]  # Windows only
        if code == _ERROR_ACCESS_DENIED:
            yield False
            return
        raise OSError(code, f"Windows did not create the mutex for {name} (error {code}).")
    try:
        waited = kernel.WaitForSingleObject(handle, 0)
        if waited not in (_WAIT_OBJECT_0, _WAIT_ABANDONED, _WAIT_TIMEOUT):
            raise OSError(waited, f"Windows could not wait for the mutex of {name}.")
        is_ours = waited != _WAIT_TIMEOUT
        try:
            yield is_ours
        finally:
            if is_ours:
                kernel.ReleaseMutex(handle)
    finally:
        kernel.CloseHandle(handle)
