"""A head and a machine that joins, as two `rayface` commands on one system."""

from __future__ import annotations

import ipaddress
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.node import addresses
from cluster.settings import HeadSettings
from tests.hosts.machines import Machine, eventually, processes_with, rows

Make = Callable[..., Machine]


@pytest.fixture(scope="module")
def head(make_machine: Make) -> Machine:
    machine = make_machine()
    machine.start("head", "head")
    eventually(lambda: _answers(machine.ports), 60, lambda: machine.said("head"))
    return machine


@pytest.fixture(scope="module")
def lender(make_machine: Make) -> Machine:
    """The machine that joins. The user's own token file may hold another token, so it is not read."""
    return make_machine(RAY_AUTH_TOKEN_PATH="/nowhere/token")


@pytest.fixture
def host(lender: Machine, head: Machine) -> Machine:
    """The machine with its detector ready; it joins (again) unless an earlier test has left it joined."""
    if not lender.started or lender.started[-1].poll() is not None:
        lender.start("join", "join", _address(head), "--device", f"cpu:{lender.ports}")
    eventually(lambda: _detectors(head)[0]["state"] == "ready", 90, lambda: lender.said("join"))
    return lender


def _address(head: Machine) -> str:
    return head.said("head").partition("rayface join ")[2].split()[0]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0  # Ray's store listens on every interface


def _detectors(head: Machine) -> list[dict[str, Any]]:
    done = head.run("place", "--address", _address(head), "--json")
    if done.returncode not in (0, 3):
        raise AssertionError(done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout) if done.stdout else [{"state": "none"}]
    return found


def _detect(head: Machine, photos: Path) -> list[dict[str, Any]]:
    done = head.run("detect", str(photos), "--json", "--address", _address(head))
    return rows(done.stdout)


def test_photos_are_detected_on_the_machine_that_joined(head: Machine, host: Machine, photos: Path) -> None:
    found = _detect(head, photos)
    assert len(found) == 7
    assert {row["status"] for row in found} == {"detected"}
    assert sum(len(row["faces"]) for row in found) == 10


def test_the_checks_said_what_they_found(host: Machine) -> None:
    said = host.said("join")
    for name in ("token", "head", "versions", "way back", "model", "device"):
        assert f"ok      {name}:" in said


def test_a_second_join_says_who_has_joined(head: Machine, host: Machine) -> None:
    done = host.run("join", _address(head), "--device", "cpu")
    assert done.returncode == 4
    assert f"pid {host.started[-1].pid}" in done.stderr
    assert f"for {_address(head)}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_node_meets_the_devices_owner(head: Machine, host: Machine, make_machine: Make) -> None:
    """I2: a second node on this system gets past the lock of the node; the lock of the device stops it."""
    second = make_machine()
    done = second.run("join", _address(head), "--device", f"cpu:{host.ports}", "--check")
    assert done.returncode == 4
    assert "FaceDetector (pid" in done.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses our token"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, "rayface token save"),
    ],
)
def test_nobody_joins_without_the_token(
    head: Machine, make_machine: Make, variables: dict[str, str], words: str
) -> None:
    """I7."""
    stranger = make_machine(**variables)
    done = stranger.run("join", _address(head), "--device", "cpu:7", "--check")
    assert done.returncode in (2, 3)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    asked = stranger.run("detect", "tests/photos", "--address", _address(head))
    assert asked.returncode == 3
    assert "token" in asked.stderr


def test_a_head_that_is_away_is_said_at_once(make_machine: Make) -> None:
    done = make_machine().run("join", f"{addresses.outer_address()}:9", "--device", "cpu:8")
    assert done.returncode == 3
    assert "does not answer" in done.stderr


def test_a_loopback_head_is_refused_with_the_reason(make_machine: Make) -> None:
    done = make_machine().run("join", "127.0.0.1:9", "--print")
    assert done.returncode == 3
    assert "loopback" in done.stderr


def test_only_the_ports_of_the_page_are_open_to_others(head: Machine, host: Machine) -> None:
    """I7: all other ports listen on loopback only, also that of the dashboard."""
    outside = {
        (connection.laddr.port, process.name())
        for machine in (head, host)
        for process in processes_with(str(machine.folder))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and not _is_loopback(connection.laddr.ip)
    }
    allowed = {head.ports}
    # Each client takes one of the head's worker ports; the other machine has its detector alone.
    for machine, num_workers in ((head, HeadSettings().num_worker_ports), (host, 20)):
        allowed |= {
            *range(machine.ports + 10, machine.ports + 19),
            *range(machine.ports + 20, machine.ports + 20 + num_workers),
        }
    assert head.ports in {port for port, _ in outside}
    assert not {each for each in outside if each[0] not in allowed}


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def test_the_token_is_in_no_log_and_on_no_command_line(head: Machine, host: Machine) -> None:
    """I7."""
    token = head.variables["RAY_AUTH_TOKEN"]
    for machine in (head, host):
        for file in machine.folder.rglob("*"):
            if file.is_file() and file.suffix in (".log", ".out", ".err", ".json", ""):
                assert token.encode() not in file.read_bytes(), file
        for process in processes_with(str(machine.folder)):
            assert not any(token in word for word in process.cmdline())


def test_a_killed_owner_is_replaced_on_the_same_device(head: Machine, host: Machine, photos: Path) -> None:
    before = _detectors(head)[0]
    psutil.Process(before["pid"]).kill()
    after = eventually(
        lambda: next(
            (d for d in _detectors(head) if d["state"] == "ready" and d["pid"] != before["pid"]), None
        ),
        60,
    )
    assert after["device"] == before["device"]
    assert {row["status"] for row in _detect(head, photos)} == {"detected"}


def test_a_killed_raylet_is_started_again(head: Machine, host: Machine) -> None:
    """When Ray loses a node, it tells each driver on standard output; that must not be among our lines."""
    raylet = next(p for p in processes_with(str(host.folder)) if p.name() == "raylet")
    raylet.kill()
    eventually(
        lambda: any(p.name() == "raylet" for p in processes_with(str(host.folder)) if p.pid != raylet.pid),
        60,
        lambda: host.said("join"),
    )
    eventually(lambda: _detectors(head)[0]["state"] == "ready", 90, lambda: host.said("join"))
    assert "Ray ended by itself" in host.said("join")
    done = head.run("place", "--address", _address(head), "--json")
    assert json.loads(done.stdout)[0]["state"] == "ready"


def test_join_killed_outright_leaves_no_orphan(head: Machine, host: Machine) -> None:
    joined = host.started[-1]
    joined.kill()
    joined.wait()
    eventually(
        lambda: not processes_with(str(host.folder)), 30, lambda: str(processes_with(str(host.folder)))
    )


def test_join_starts_by_itself_where_one_was_killed(head: Machine, host: Machine) -> None:
    """With --wait, as a scheduled task runs it: lock and detector of the dead process block nobody."""
    before = _detectors(head)[0]
    host.started[-1].kill()
    host.started[-1].wait()
    host.start("join", "join", _address(head), "--device", f"cpu:{host.ports}", "--wait")

    def replaced() -> bool:
        now = _detectors(head)[0]
        return bool(now["state"] == "ready" and now["pid"] != before["pid"])

    eventually(replaced, 90, lambda: host.said("join"))


def test_ctrl_c_drains_and_leaves_nothing(host: Machine) -> None:
    joined = host.started[-1]
    joined.send_signal(signal.SIGINT)
    assert joined.wait(40) == 0
    assert "nothing of Ray is left" in host.said("join")
    assert not processes_with(str(host.folder))
