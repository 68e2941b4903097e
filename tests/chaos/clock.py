"""A clock that a test can set, for the Python processes of one machine.

The system's clock cannot be set for one machine of a test alone, and under libfaketime Ray does not start. So
this folder goes first on a machine's PYTHONPATH, and its `sitecustomize` replaces `time.time`. Ray's own
processes in C++ keep the right time, as does everything that asks the system for the date in another way.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.hosts.machines import HERE

_VARIABLE = "RAYFACE_TEST_CLOCK"
_CUSTOMIZE = f"""\
import os
import time

_right, _file = time.time, os.environ.get("{_VARIABLE}", "")


def _set():
    try:
        with open(_file) as file:
            return _right() + float(file.read())
    except (OSError, ValueError):
        return _right()


if _file:
    time.time = _set
"""


def variables(folder: Path) -> dict[str, str]:
    """Make the clock in a folder, and return the variables of a machine that goes by it."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CUSTOMIZE)
    set_ahead(folder, 0.0)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{HERE}", _VARIABLE: str(folder / "ahead")}


def set_ahead(folder: Path, seconds: float) -> None:
    """Let the clock be so many seconds ahead of the right time; behind, if they are negative."""
    draft = folder / "draft"
    draft.write_text(str(seconds))
    draft.replace(folder / "ahead")
