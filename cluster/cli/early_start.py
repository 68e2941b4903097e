"""Starts what `rayface detect` needs from another process, before the command loads what it needs itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cluster.cli.kept_cluster import find_kept, is_address_chosen
from cluster.connection.early_process import EarlyProcess


@contextlib.contextmanager
def starting_early(address: str | None, config: Path | None) -> Iterator[EarlyProcess | None]:
    """While the block runs, have a driver process that loads; None if this run may start a Ray of its own.

    Nobody has read the settings yet. So the process may turn out to be of no use, and is ended then.

    Args:
        address: of a cluster, as a person gave it on the command line.
        config: a settings file, as a person gave it there.
    """
    if is_address_chosen(address, config):
        will_join = bool(address or os.environ.get("RAYFACE_CLUSTER__ADDRESS"))
    else:
        will_join = find_kept()[0] is not None
    early = EarlyProcess() if will_join else None
    try:
        yield early
    finally:
        if early is not None:
            early.end()
