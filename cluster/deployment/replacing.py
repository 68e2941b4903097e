"""Replaces a detector by one with other settings; no photo is lost, and nobody else places it meanwhile.

The detector drains: it answers what it has accepted, and tells others to ask again in a moment. Then its
actor is removed, and one of the same name is placed. Clients look for missing detectors every few seconds,
and would place it by their own settings. So the new order lies in the cluster's store for as long as that
takes: whoever is the first to place the detector places it by that order.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from cluster.ray_internals import KeyValueStore

_PREFIX = "replacing/"
#: An order that lies there for longer was left by a process that died.
_VALID_S = 120.0
#: Answers that the detector gave last are on their way to their callers.
_LAST_ANSWERS_S = 0.5
_LOOK_EVERY_S = 0.05
_GONE_WITHIN_S = 10.0


def ordered(store: KeyValueStore, namespace: str, name: str) -> Any:
    """The order by which a detector is to be placed now; None if nobody replaces it."""
    kept = store.get(f"{_PREFIX}{namespace}/{name}")
    with contextlib.suppress(ValueError, TypeError, LookupError):
        note = json.loads(kept or b"null")
        # The clock of another machine may be ahead or behind; then the order is found to be another later.
        if note is not None and abs(time.time() - float(note["at"])) < _VALID_S:
            return note["order"]
    return None


def replace(
    store: KeyValueStore,
    namespace: str,
    name: str,
    order: Any,
    *,
    drain: Callable[[], object],
    remove: Callable[[], object],
    is_gone: Callable[[], bool],
    place: Callable[[], object],
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Drain a detector, remove it, and place it anew by an order; blocks.

    Args:
        store: of the cluster.
        namespace: Ray's, that the detector's name belongs to.
        name: of the detector.
        order: JSON-ready; what `ordered` gives to everybody meanwhile.
        drain: lets the detector answer what it has accepted; an error means that it does not answer.
        remove: removes its actor.
        is_gone: whether the name is free.
        place: places the detector by what `ordered` gives.
        sleep: waits for so many seconds; handed in for tests.

    Raises:
        TimeoutError: Ray does not free the detector's name.
    """
    key = f"{_PREFIX}{namespace}/{name}"
    # A detector that is away, or hangs, cannot drain. Calls that it holds are asked again of its successor.
    with contextlib.suppress(Exception):
        drain()
        sleep(_LAST_ANSWERS_S)
    store.put(key, json.dumps({"at": time.time(), "order": order}).encode())
    try:
        remove()
        for _ in range(round(_GONE_WITHIN_S / _LOOK_EVERY_S)):
            if is_gone():
                break
            sleep(_LOOK_EVERY_S)
        else:
            raise TimeoutError(f"Ray does not give up the name {name}.")
        place()
    finally:
        store.delete(key)
