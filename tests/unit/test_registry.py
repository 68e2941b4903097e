"""What clients write for people, and what people write for them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from cluster.client.registry import ClientRegistry, leave_reset, read_clients
from cluster.client.status import ClientStatus
from tests.unit.fake_cluster import FakeCluster
from tests.virtual_time import run


class Circuits:
    """Remembers what was reset."""

    def __init__(self) -> None:
        self.resets: list[str | None] = []

    def reset(self, name: str | None = None) -> None:
        self.resets.append(name)


def status() -> ClientStatus:
    return ClientStatus("head:1", "", "", 0, 0, (), {}, 0)


def test_a_client_is_read_while_it_lives_and_not_after_it() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        board = ClientRegistry(cluster, Circuits(), status)
        board.open()
        await board.look()
        (note,) = await read_clients(cluster)
        assert "pid" in note.client
        assert note.status["address"] == "head:1"
        await board.close()
        assert await read_clients(cluster) == []

    run(story())


def test_a_note_that_nobody_renews_is_taken_away() -> None:
    """Its client was killed."""

    async def story() -> None:
        cluster = FakeCluster()
        old: dict[str, Any] = {"client": "x", "at": time.time() - 100, "status": {}}
        cluster.values["client/x"] = json.dumps(old).encode()
        assert await read_clients(cluster) == []
        assert cluster.values == {}

    run(story())


def test_a_reset_is_acted_on_once_and_an_old_one_never() -> None:
    async def story() -> None:
        cluster, circuits = FakeCluster(), Circuits()
        await leave_reset(cluster, None)
        board = ClientRegistry(cluster, circuits, status)
        await board.look()
        assert circuits.resets == [], "it was left before this client came"
        await leave_reset(cluster, "FaceDetector")
        await board.look()
        await board.look()
        assert circuits.resets == ["FaceDetector"]

    run(story())


def test_the_first_reset_of_a_cluster_is_seen() -> None:
    async def story() -> None:
        cluster, circuits = FakeCluster(), Circuits()
        board = ClientRegistry(cluster, circuits, status)
        await board.look()
        await leave_reset(cluster, None)
        await board.look()
        assert circuits.resets == [None]

    run(story())


#: Seconds since 1970, after any run of these tests: such an entry is never too old.
_LATER = 4_000_000_000


@pytest.mark.parametrize(
    "value",
    [
        b'{"client": "x", "at": ',
        b"[]",
        json.dumps({"client": "x", "at": _LATER, "standing": {"detectors": []}}).encode(),
        json.dumps({"client": "x", "at": _LATER, "status": {"detectors": []}}).encode(),
        json.dumps(
            {"client": "x", "at": _LATER, "status": {**status().as_dict(), "detectors": [{}]}}
        ).encode(),
    ],
    ids=["half", "a list", "an earlier word", "fields missing", "fields of a detector missing"],
)
def test_an_entry_of_another_version_is_shown_as_such(value: bytes) -> None:
    """`rayface status` reads every client's entry; one of them must not end it with a traceback."""

    async def story() -> None:
        cluster = FakeCluster()
        cluster.values["client/x"] = value
        (entry,) = await read_clients(cluster)
        assert entry.client == "x"
        assert "another version of rayface" in entry.status["why_not"]

    run(story())
