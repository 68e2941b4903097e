"""`rayface doctor` on two machines with a real network between them, before and after one lends a device."""

from __future__ import annotations

import json
import os
import signal
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.device import FOLDER_VARIABLE, OPENER, tell
from tests.hosts.machines import Machine, eventually, started_head


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the simulated device."""
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="module")
def cluster(make_machine: Callable[..., Machine], device: Path) -> tuple[Machine, Machine, str]:
    """A head, a machine that may join, and the head's address."""
    common = {
        FOLDER_VARIABLE: str(device),
        "RAYFACE_DETECTOR__OPENER": OPENER,
        "RAYFACE_DETECTOR__GOLDEN_INTERVAL_S": "1",
    }
    head, address = started_head(make_machine, **common)
    joined = make_machine(**common)
    joined.variables["RAYFACE_HEAD__FIRST_PORT"] = head.variables["RAYFACE_HEAD__FIRST_PORT"]
    joined.variables["RAYFACE_HEAD__FIRST_WORKER_PORT"] = head.variables["RAYFACE_HEAD__FIRST_WORKER_PORT"]
    head.variables["RAYFACE_CLUSTER__ADDRESS"] = address
    return head, joined, address


def _look(machine: Machine, *arguments: str, **changes: str) -> tuple[int, list[dict[str, Any]]]:
    done = machine.run("doctor", *arguments, "--json", changes=changes)
    assert "Traceback" not in done.stderr, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return done.returncode, found


def _of(found: list[dict[str, Any]], name: str, verdict: str | None = None) -> list[str]:
    return [each["evidence"] for each in found if each["name"] == name and verdict in (None, each["verdict"])]


def test_before_a_machine_has_joined(cluster: tuple[Machine, Machine, str]) -> None:
    """The backend's machine finds no device; the other machine may join, and a port in use is named."""
    head, joined, address = cluster
    code, found = _look(head)
    assert code == 3
    assert "no machine lends a device" in _of(found, "devices", "wrong")[0]
    assert _of(found, "token of the head", "ok")
    code, found = _look(joined, address, "--device", "cpu:3")
    assert not _of(found, "way back", "wrong"), found
    assert "reaches" in _of(found, "way back", "ok")[0]
    assert _of(found, "way there", "ok"), found
    assert "golden photo" in _of(found, "device", "ok")[0]
    with socket.create_server(("", joined.ports + 21)):
        _, found = _look(joined, address, "--device", "cpu:3")
    assert str(joined.ports + 21) in _of(found, "ports", "wrong")[0]


def test_a_wrong_token_is_found(cluster: tuple[Machine, Machine, str]) -> None:
    _, joined, address = cluster
    code, found = _look(joined, address, "--device", "cpu:3", RAY_AUTH_TOKEN="t" * 64)
    assert code == 3
    assert "refuses our token" in _of(found, "token of the head", "wrong")[0]


def test_with_a_machine_that_has_joined(cluster: tuple[Machine, Machine, str], tmp_path: Path) -> None:
    """Both machines examine themselves and reach each other; then the device falls back in silence."""
    head, joined, address = cluster
    joined.start("join", "join", address, "--device", "cpu:3")
    eventually(
        lambda: '"ready"' in head.run("place", "--address", address, "--json").stdout,
        120,
        lambda: joined.said("join"),
    )
    bundle = tmp_path / "bundle.zip"
    code, found = _look(head, "--bundle", str(bundle))
    assert code in (0, 1), [each for each in found if each["verdict"] == "wrong"]
    assert len(_of(found, "way", "ok")) == 2, found
    said = " ".join(_of(found, "way"))
    assert "FaceDetector" in said
    assert "this command's own" in said
    assert "is ready on CPUExecutionProvider" in _of(found, "detector", "ok")[0]
    assert _of(found, "golden photo")
    assert [each for each in found if each["name"] == "owner" and each["where"]]
    assert any("onnxruntime" in each for each in _of(found, "versions", "ok"))
    with zipfile.ZipFile(bundle) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist()]
        assert "status.json" in archive.namelist()
    assert not any(head.variables["RAY_AUTH_TOKEN"] in text for text in texts)


def test_a_device_that_fell_back_in_silence(cluster: tuple[Machine, Machine, str], device: Path) -> None:
    """I4: no session opener can make the detector serve on another provider."""
    head, _, address = cluster
    tell(device, provider="AnotherExecutionProvider")
    before = json.loads(head.run("place", "--address", address, "--json").stdout)[0]
    os.kill(before["pid"], signal.SIGKILL)

    def fell_back() -> list[str]:
        return [said for said in _of(_look(head)[1], "detector", "wrong") if "is faulty" in said]

    said = eventually(fell_back, 120)[0]
    assert "CPUExecutionProvider was asked for, and the session uses AnotherExecutionProvider" in said
    assert "device_unavailable" in said
    assert "1 restarts" in said
