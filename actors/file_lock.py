"""`flock` on a file that several users share. Not for Windows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def file_lock(name: str, folder: Path) -> Iterator[bool]:
    """Take the lock if it is free, and hold it while the block runs; yields whether it was free.

    Not filelock: it always opens with O_CREAT, which Linux refuses for another user's file in /tmp
    (sysctl fs.protected_regular), and two users must meet at one lock. The file is never removed: a process
    that had opened it before would hold a lock that no other process sees.

    Raises:
        OSError: the file cannot be opened.
    """
    # Imported here: Windows has no such module, and type checkers read this file there too.
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
