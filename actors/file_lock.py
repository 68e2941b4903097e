"""`flock` on a file that several users share. Not for Windows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def file_lock(name: str, folder: Path) -> Iterator[bool]:
    """Hold the lock while the block runs, if it was free; yields whether it was.

    Not filelock: it always opens with O_CREAT, which Linux refuses for another user's file in /tmp
    (sysctl fs.protected_regular), and two users must meet at one lock. The file is never removed: whoever
    had opened it before would hold a lock that nobody else sees.

    Raises:
        OSError: the file cannot be opened at all.
    """
    # Imported here, because Windows has no such module and this one is read by type checkers there.
    import fcntl

    path = folder / f"rayface-{name}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
