"""A scan whose photos are made small on another machine of the cluster too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import BlockingFaceClient, load_settings
from cluster.connection.connection import Connection
from tests.hosts.machines import Machine, eventually, started_head, tell

NUM_PHOTOS = 40


def test_a_scan_is_prepared_on_another_machine_too(
    make_machine: Callable[..., Machine],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    head, address = started_head(make_machine)
    other = make_machine(RAYFACE_JOIN__NUM_CPUS="2")
    other.start("join", "join", address, "--device", f"cpu:{other.ports}", "--wait")

    def is_ready() -> bool:
        done = head.run("place", "--address", address, "--json", timeout_s=200)
        return [row["state"] for row in json.loads(done.stdout or "[]")] == ["ready"]

    eventually(is_ready, 240, lambda: other.said("join"))
    for name, value in head.variables.items():
        monkeypatch.setenv(name, value)

    async def counted(self: Connection, *arguments: Any, **named: Any) -> Any:
        made.append(await prepare(self, *arguments, **named))
        return made[-1]

    made: list[Any] = []
    prepare = Connection.prepare
    monkeypatch.setattr(Connection, "prepare", counted)
    settings = load_settings(
        cluster={"address": address}, client={"prepare": "cluster", "num_prepare_threads": 1}
    )
    names = sorted(photos.glob("*.jpg"))
    scan = [names[number % len(names)] for number in range(NUM_PHOTOS)]
    with BlockingFaceClient(settings) as client:
        alone = {name: client.detect([name])[0].as_dict()["faces"] for name in names}
        outcomes = list(client.stream(scan))
    assert [each.status for each in outcomes] == ["detected"] * NUM_PHOTOS
    assert [each.as_dict()["faces"] for each in outcomes] == [alone[name] for name in scan]
    assert made, "no photo was made small elsewhere"
    tell(capsys, f"{len(made)} of {NUM_PHOTOS} photos were made small on the other machine")
    for machine in (other, head):
        machine.close()
