"""Where every `rayface` command begins: before anything else is loaded, so that Ctrl-C ends it well."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

EXIT_INTERRUPTED = 130


def main() -> None:
    """Load the commands, and run the one that was typed.

    A person may press Ctrl-C while Python still loads modules, which takes up to a second.
    """
    try:
        from cluster.cli import main as commands

        commands.main()
    except KeyboardInterrupt:
        end_interrupted()


def end_interrupted() -> NoReturn:
    """End at once: Python would first wait for the thread that reads standard input, perhaps for ever."""
    sys.stderr.write("Stopped.\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)
