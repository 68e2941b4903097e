"""The sides of the benchmarks stand in for parts of the product, and must fit where those do."""

from __future__ import annotations

import inspect

from cluster.connection.connection import Connection
from tests.benchmarks.sides.ours import SameProcess


def test_the_driver_in_the_same_process_takes_what_a_connection_takes() -> None:
    """But for what starts processes, which it has none of."""
    connection, same = (list(inspect.signature(each).parameters) for each in (Connection, SameProcess))
    assert same == [name for name in connection if name not in ("start", "backoff")]
