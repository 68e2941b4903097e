"""Whether the disks that Ray writes to have room, so that a start is not in vain."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

#: Ray's processes do not start with less; their logs take as much within hours.
_MIN_FREE_BYTES = 20_000_000


def full_disk(
    folders: Iterable[Path], free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
) -> str:
    """Why Ray would not start on these folders' disks, and what to do, in sentences; "" if it would.

    Args:
        folders: to which Ray or we write; one that does not exist yet is taken as its parent.
        free_bytes: of the disk of a folder.
    """
    for folder in folders:
        there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
        with contextlib.suppress(OSError):
            if (free := free_bytes(there)) < _MIN_FREE_BYTES:
                return (
                    f"The disk of {folder} is full: {free / 1e6:.0f} MB are free, and Ray needs "
                    f"{_MIN_FREE_BYTES / 1e6:.0f} MB to start. Make room there, or name folders on another "
                    "disk (temp_dir, log_folder)."
                )
    return ""
