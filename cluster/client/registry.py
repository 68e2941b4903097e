"""The clients of a cluster, registered in its key-value store, and requests that people leave there for them.

Each client keeps an entry with its status; `rayface status` reads them all. `rayface circuit reset` leaves a
request, and every client follows it when it looks the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from cluster.background import repeat_async
from cluster.client.status import ClientStatus, DetectorStatus
from cluster.connection.cluster_api import ClusterApi
from cluster.errors import NotAnswered
from cluster.telemetry.rate_limit import rate_limited_log

_CLIENTS = "client/"
_RESET = "circuit-reset"
_LOOK_EVERY_S = 2.0
#: An entry is written again after so long although nothing has changed.
_RENEW_EVERY_S = 10.0
#: The client of an entry that is older than this has ended without deleting it.
_FORGOTTEN_S = 60.0
_UNREADABLE = (
    "This client runs another version of rayface: its entry cannot be read. Install the same everywhere."
)
_TIMEOUT_S = 4.0


class Circuits(Protocol):
    """The circuits of a client; `DetectorPool` has them."""

    def reset(self, name: str | None = None) -> None:
        """Close every circuit, or the one of a detector."""
        ...


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """The entry of one client.

    Attributes:
        client: its host and process number, in words.
        age_s: seconds since the entry was written.
        status: the client's status, as `ClientStatus.as_dict` gives it.
    """

    client: str
    age_s: float
    status: dict[str, Any]


class ClientRegistry:
    """Keeps the entry of this client, and follows requests to reset its circuits.

    Args:
        cluster: has the key-value store.
        circuits: the circuits of this client.
        status: gives this client's status.
        log: told of unforeseen errors; a cluster that is away is none.
    """

    def __init__(
        self,
        cluster: ClusterApi,
        circuits: Circuits,
        status: Callable[[], ClientStatus],
        log: logging.Logger | None = None,
    ) -> None:
        self._cluster = cluster
        self._circuits = circuits
        self._status = status
        self._log = log or rate_limited_log("rayface.client")
        self._name = f"{platform.node()} pid {os.getpid()}"
        self._key = f"{_CLIENTS}{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._reset_seen: str | None = None
        self._written: tuple[float, object] = (-_RENEW_EVERY_S, None)
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Write the entry, and look for requests, from now on."""
        self._task = asyncio.create_task(
            repeat_async(
                self.look,
                name="Writing the client's entry",
                log=self._log,
                every_s=_LOOK_EVERY_S,
                expected=(NotAnswered,),
            )
        )

    async def close(self) -> None:
        """Delete this client's entry."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(NotAnswered):
            await self._cluster.delete_value(self._key, timeout_s=1.0)

    async def look(self) -> None:
        """Write the entry if it has changed or is old, and follow a request that is new.

        Raises:
            NotAnswered: the store cannot be reached.
        """
        status, now = self._status(), time.monotonic()
        important = [(each.name, each.state, each.circuit, each.reason) for each in status.detectors]
        written_at, written = self._written
        if important != written or now - written_at >= _RENEW_EVERY_S:
            entry = json.dumps({"client": self._name, "at": time.time(), "status": status.as_dict()})
            await self._cluster.put_value(self._key, entry.encode(), timeout_s=_TIMEOUT_S)
            self._written = (now, important)
        requests = await self._cluster.get_values(_RESET, timeout_s=_TIMEOUT_S)
        reset = json.loads(requests[_RESET]) if _RESET in requests else {"id": ""}
        if self._reset_seen not in (None, reset["id"]):
            self._circuits.reset(reset["detector"])
        self._reset_seen = reset["id"]


async def read_clients(cluster: ClusterApi) -> list[ClientEntry]:
    """Read the entries of the clients that live, and delete those of clients that have ended.

    Raises:
        NotAnswered: the store cannot be reached.
    """
    values = await cluster.get_values(_CLIENTS, timeout_s=_TIMEOUT_S)
    entries = []
    for key, value in values.items():
        entry = _read(key, value)
        if entry.age_s < _FORGOTTEN_S:
            entries.append(entry)
        else:
            await cluster.delete_value(key, timeout_s=_TIMEOUT_S)
    return sorted(entries, key=lambda entry: entry.client)


def _read(key: str, value: bytes) -> ClientEntry:
    """One client's entry; one that another version wrote says so in place of its status."""
    name, age_s = key.removeprefix(_CLIENTS), 0.0
    try:
        entry = json.loads(value)
        name, age_s = str(entry["client"]), round(time.time() - float(entry["at"]), 1)
        status = entry["status"]
        if _has(ClientStatus, status) and all(_has(DetectorStatus, each) for each in status["detectors"]):
            return ClientEntry(name, age_s, status)
    except (ArithmeticError, ValueError, TypeError, LookupError, RecursionError):
        pass  # half an entry, or one of another shape
    unread = ClientStatus("", _UNREADABLE, "", 0, 0, (), {}, 0)
    return ClientEntry(name, age_s, unread.as_dict())


def _has(kind: type[ClientStatus | DetectorStatus], values: Mapping[str, object]) -> bool:
    return {each.name for each in fields(kind)} <= set(values)


async def leave_reset(cluster: ClusterApi, detector: str | None) -> float:
    """Ask every client to close all its circuits, or the one of a detector.

    Returns:
        Seconds after which every client has seen the request.

    Raises:
        NotAnswered: the store cannot be reached.
    """
    request = json.dumps({"id": uuid.uuid4().hex, "detector": detector})
    await cluster.put_value(_RESET, request.encode(), timeout_s=_TIMEOUT_S)
    return 2 * _LOOK_EVERY_S + 1.0
