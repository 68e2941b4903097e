"""Tells the head that a node of this machine has ended: `python -m cluster.node.leaving HEAD ADDRESS PORT`.

A node that ends in order says so itself. One that crashed cannot, nor can one whose address was taken away.
The head would learn it from 45 s of silence, and would only then start the detector again.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from cluster.node.checks import run_module
from cluster.node.ray_start import Launch
from cluster.ray_internals import unregister_nodes

_RPC_TIMEOUT_S = 5.0
#: Ray takes seconds to be imported on a busy machine.
_TIMEOUT_S = 20.0


def announcer(head_address: str, log: logging.Logger) -> Callable[[Launch], None]:
    """Make a function that tells the head in a thread of its own that a launch has ended.

    All processes of the launch must have ended: the head may start a detector elsewhere at once.
    """

    def tell(launch: Launch) -> None:
        address, port = (launch.value(name) for name in ("--node-ip-address", "--node-manager-port"))
        try:
            done = run_module(
                __name__, head_address, address, port, timeout_s=_TIMEOUT_S, variables=launch.environment
            )
            problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason"])[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            log.info(
                "The head was not told that Ray at %s ended; it finds that out by itself within 20 s. %s",
                address,
                problem,
                extra={"about": "leaving"},
            )

    def announce(launch: Launch) -> None:
        # Beside the next start, which must not wait for it.
        threading.Thread(target=tell, args=(launch,), name="leaving").start()

    return announce


def main(arguments: Sequence[str]) -> int:
    """Tell it; returns 1, with a line on stderr, if the head did not hear it."""
    head_address, address, port = arguments
    try:
        unregister_nodes(head_address, address, int(port), _RPC_TIMEOUT_S)
    except Exception as error:  # Ray promises no class
        # The text of gRPC's errors has many lines; their details have one.
        details = getattr(error, "details", None)
        sys.stderr.write(f"{details() if details else error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
