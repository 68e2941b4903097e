"""The task that runs a function of rayface on one machine of the cluster, for the doctor."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from cluster.deployment.packed import pack_value, pack_work, unpack_work
from cluster.errors import VersionSkew
from cluster.protocol.identity import skew_reply
from cluster.protocol.rows import WorkOrder

_OURS = ("actors", "cluster")


def order_of(work: partial[Any]) -> bytes:
    """The order for a function with its arguments, which are plain values.

    Raises:
        TypeError: an argument is no plain value.
    """
    assert not work.keywords, "arguments travel by position"
    return pack_work(WorkOrder(f"{work.func.__module__}:{work.func.__qualname__}", list(work.args)))


def run_work(packed: bytes) -> bytes:
    """Run the function of an order, and return its value, which is plain; or the reply to another version.

    Raises:
        ValueError: the order names no function of rayface.
    """
    try:
        order = unpack_work(packed)
    except VersionSkew:
        return skew_reply()
    module, _, name = order.function.partition(":")
    if module.split(".")[0] not in _OURS:
        raise ValueError(f"{order.function!r} is no function of rayface.")
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    return pack_value(function(*order.arguments))
