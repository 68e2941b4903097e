"""Another version of rayface at the same path, for the processes of one machine, by a mount namespace.

Ray's processes look for modules at the paths of the program that started their work. On real machines these
are other disks; so here only the files differ, and not their paths.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.hosts.machines import HERE

_MOUNT = 'mount --bind "$1/actors" actors && mount --bind "$1/cluster" cluster && shift && exec "$@"'


def other_version(folder: Path, changes: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """Copy the code, change it, and return the words to put before a command that is to find the copy.

    Args:
        folder: for the copy; it must not be there yet.
        changes: for each file (its path in the checkout), a text and what stands in its place; the text must
            be there once.
    """
    for room in ("actors", "cluster"):
        shutil.copytree(HERE / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (text, instead) in changes.items():
        file = folder / name
        code = file.read_text()
        assert code.count(text) == 1, f"{name} has {code.count(text)} times {text!r}"
        file.write_text(code.replace(text, instead))
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, "sh", str(folder))
