"""What each process of Ray does first on our nodes: from then on, a full disk does not end it.

Ray's Python writes a line into the log of its process before each task. If the disk is full, that raises an
error where Ray's core allows none, and the core ends the process: the task, a photo's call too, with it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO


class LossyStream:
    """A stream that loses what cannot be written, and is the given one in all else.

    Args:
        stream: of text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write lines, or lose them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand to the system what it takes."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def let_writes_fail() -> None:
    """Lose what this process cannot write to its standard output and standard error."""
    sys.stdout, sys.stderr = LossyStream(sys.stdout), LossyStream(sys.stderr)
