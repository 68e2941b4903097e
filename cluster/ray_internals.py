"""Every private name of Ray that we use: why no public way serves, and which test fails when it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def silence_error_listener() -> None:
    """End Ray's thread that prints other processes' errors; without a head it takes half a core.

    Private, but Ray is pinned and a test looks.
    """
    from ray._private.worker import global_worker

    global_worker.threads_stopped.set()


def own_place() -> tuple[str, int]:
    """Address and port of this process, as it tells them to those that answer it."""
    import ray
    from ray.core.generated.common_pb2 import Address

    # Private, but Ray is pinned and a test looks: no public way tells a driver's own port.
    worker = ray._private.worker.global_worker.core_worker
    place = Address.FromString(worker.get_owner_address(ray.put(None)))
    return str(place.ip_address), int(place.port)


def death_cause(death: Any) -> str:
    """Ray's words for why a process ended, in one line."""
    kind = death.WhichOneof("context") if death is not None else None
    said = getattr(getattr(death, kind), "error_message", "") if kind else ""
    return (said.strip().splitlines() or [""])[0][:300]


def store_client() -> Any:
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    return internal_kv_get_gcs_client()


def node_id_of(binary: bytes) -> Any:
    from ray import NodeID

    return NodeID(binary)


def session_folder() -> Path:
    """Of the session of Ray that this process belongs to."""
    import ray._private.worker as worker

    return Path(worker._global_node.get_session_dir_path())
