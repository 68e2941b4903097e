"""A driver process that is started before this one has loaded what talks to it, so that both load at once.

This module loads nothing of ours, and nothing heavy.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from cluster.connection.driver import main; main(is_early=True)"
)


def start_process(program: str, descriptors: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a driver process, with pipes for its standard input, output and error.

    Args:
        program: for `python -c`; `{path!r}` in it becomes the module search path of this process.
        descriptors: of open files that the process inherits.

    Raises:
        OSError: the system does not start it.
    """
    return subprocess.Popen(
        # The process imports the same modules as this one, wherever they are.
        [sys.executable, "-c", program.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Ctrl+C reaches this process only; the driver process ends when this one hangs up.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        pass_fds=descriptors,
    )


class EarlyProcess:
    """A driver process that loads Ray already; it learns later which cluster to join.

    It is for a cluster that runs: Ray is loaded with other variables where an embedded one is started.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        # If the system refuses, whoever needs a driver process tries again, and says why.
        with contextlib.suppress(OSError):
            self._process = start_process(_PROGRAM)

    def take(self) -> subprocess.Popen[bytes] | None:
        """The process, which belongs to the caller then; None if it was taken before or did not start."""
        process, self._process = self._process, None
        return process

    def end(self) -> None:
        """Kill the process if nobody took it; it has joined nothing."""
        if (process := self.take()) is not None:
            process.kill()
            process.communicate()
