"""What clients write for people into the cluster's store, and what people write for them.

Each client keeps a note of how it is; `rayface status` reads them all. `rayface circuit reset` leaves a note
that every client acts on when it next looks.
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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.background import repeat_async
from cluster.client.status import ClientStatus
from cluster.connection.cluster_api import ClusterApi
from cluster.errors import NotAnswered
from cluster.telemetry.rate_limit import rate_limited_log

_CLIENTS = "client/"
_RESET = "circuit-reset"
_LOOK_EVERY_S = 2.0
#: A note is renewed so often though nothing has changed, and older ones are nobody's any more.
_RENEW_EVERY_S = 10.0
_FORGOTTEN_S = 60.0
_TIMEOUT_S = 4.0


class Circuits(Protocol):
    """What can be reset; `DetectorPool` is one."""

    def reset(self, name: str | None = None) -> None:
        """Close them all, or one."""
        ...


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """What one client wrote.

    Attributes:
        client: host and pid.
        age_s: since it was written.
        status: of the client, as `ClientStatus.as_dict` has it.
    """

    client: str
    age_s: float
    status: dict[str, Any]


class ClientRegistry:
    """A client's end of it.

    Args:
        cluster: its key-value store is where notes are kept.
        circuits: of this client.
        status: how this client is.
        log: told what went wrong, unless it is only that the cluster is away.
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
        """Write and read from now on."""
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
        """Take this client's note away."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(NotAnswered):
            await self._cluster.delete_value(self._key, timeout_s=1.0)

    async def look(self) -> None:
        """Write what has changed, and act on what was left here.

        Raises:
            NotAnswered: the store cannot be reached.
        """
        status, now = self._status(), time.monotonic()
        gist = [(each.name, each.state, each.circuit, each.reason) for each in status.detectors]
        written_at, was = self._written
        if gist != was or now - written_at >= _RENEW_EVERY_S:
            note = json.dumps({"client": self._name, "at": time.time(), "status": status.as_dict()})
            await self._cluster.put_value(self._key, note.encode(), timeout_s=_TIMEOUT_S)
            self._written = (now, gist)
        left = await self._cluster.get_values(_RESET, timeout_s=_TIMEOUT_S)
        reset = json.loads(left[_RESET]) if _RESET in left else {"id": ""}
        if self._reset_seen not in (None, reset["id"]):
            self._circuits.reset(reset["detector"])
        self._reset_seen = reset["id"]


async def read_clients(cluster: ClusterApi) -> list[ClientEntry]:
    """What the clients of the cluster wrote lately.

    Raises:
        NotAnswered: the store cannot be reached.
    """
    kept = await cluster.get_values(_CLIENTS, timeout_s=_TIMEOUT_S)
    notes = []
    for key, value in kept.items():
        note = json.loads(value)
        age_s = time.time() - note["at"]
        if age_s < _FORGOTTEN_S:
            notes.append(ClientEntry(note["client"], round(age_s, 1), note["status"]))
        else:
            # Its client ended without taking it away.
            await cluster.delete_value(key, timeout_s=_TIMEOUT_S)
    return sorted(notes, key=lambda note: note.client)


async def leave_reset(cluster: ClusterApi, detector: str | None) -> float:
    """Ask every client to close its circuits, or the one of a detector.

    Returns:
        Seconds after which each client has seen it.

    Raises:
        NotAnswered: the store cannot be reached.
    """
    note = json.dumps({"id": uuid.uuid4().hex, "detector": detector})
    await cluster.put_value(_RESET, note.encode(), timeout_s=_TIMEOUT_S)
    return 2 * _LOOK_EVERY_S + 1.0
