"""What each detector was placed with, in the cluster's store: a machine looks there before it joins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluster.ray_internals import KeyValueStore

_PREFIX = "placed/"


def note_placed(store: KeyValueStore, namespace: str, name: str, settings: Mapping[str, Any]) -> None:
    """Write down what a detector was placed with; `settings` are JSON-ready."""
    store.put(f"{_PREFIX}{namespace}/{name}", json.dumps(settings).encode())


def forget(store: KeyValueStore, namespace: str, name: str) -> None:
    """Delete what was written of a detector that was removed."""
    store.delete(f"{_PREFIX}{namespace}/{name}")


def read(store: KeyValueStore) -> dict[str, dict[str, Any]]:
    """The settings of each placed detector, JSON-ready, by "NAMESPACE/NAME"."""
    found = {}
    for key, value in store.get_all(_PREFIX).items():
        try:
            settings = json.loads(value)
        except ValueError:
            # What another version wrote must not keep a machine from joining.
            continue
        if isinstance(settings, dict):
            found[key.removeprefix(_PREFIX)] = settings
    return found
