"""What is run on a machine, its token, and the task that runs it."""

from __future__ import annotations

import socket
import xml.etree.ElementTree as ElementTree
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from cluster.errors import ClusterUnavailable, ConfigurationError
from cluster.node import addresses, ray_start, token, windows_task
from cluster.settings import HeadSettings, JoinSettings, load_settings


def test_the_ports_of_head_and_machine_do_not_overlap() -> None:
    """They share one address where the container's ports are published on the machine that joins."""

    def ports(settings: HeadSettings | JoinSettings) -> set[int]:
        first, workers = settings.first_port, settings.first_worker_port
        return {*range(first, first + 9), *range(workers, workers + settings.num_worker_ports)}

    head = ports(HeadSettings()) | {6379, 8265}
    assert not head & ports(JoinSettings())


def test_a_head_for_itself_stays_on_loopback() -> None:
    """I7."""
    launch = ray_start.head(HeadSettings(address="127.0.0.1"))
    arguments = launch.arguments
    assert launch.variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "--dashboard-host=127.0.0.1" in arguments


def test_the_token_is_in_no_command_and_in_nothing_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """I7."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s" * 64)
    for launch in (
        ray_start.head(HeadSettings(address="ray-head")),
        ray_start.join("ray-head:6379", JoinSettings(address="win-host")),
    ):
        assert "s" * 64 not in str(launch) + " ".join(launch.command)
        assert launch.variables["RAY_AUTH_MODE"] == "token"


def test_a_machine_advertises_the_devices_it_was_told_of() -> None:
    launch = ray_start.join("h:6379", JoinSettings(address="w", devices=("directml:0", "directml:1")))
    assert '--resources={"directml": 2}' in launch.arguments
    assert launch.variables["RAYFACE_NODE_DEVICES"] == "directml:0,directml:1"


def test_every_start_takes_another_port_for_the_node_manager() -> None:
    """At the same one a restarted machine takes requests to its dead predecessor for its own."""
    settings = JoinSettings(address="w")
    taken = [
        next(
            each for each in ray_start.join("h:6379", settings, turn=turn).arguments if "node-manager" in each
        )
        for turn in range(4)
    ]
    assert taken == [f"--node-manager-port={port}" for port in (7380, 7386, 7387, 7380)]
    assert set(ray_start.node_manager_ports(settings)) < set(ray_start.reached_ports(settings, 0))


@pytest.mark.parametrize("devices", [[], ["cuda"], ["directml:0", "directml"], ["cpu", "directml:0"]])
def test_devices_that_cannot_be_lent(devices: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(join={"devices": devices})


@pytest.mark.parametrize("address", ["host:", "host:x", ":6379", "host:70000"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ClusterUnavailable, match="no address"):
        addresses.split_address(address)


@pytest.fixture
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray" / "token"))
    return tmp_path / "ray" / "token"


def test_a_token_is_made_once_for_this_user_alone(no_token: Path) -> None:
    with pytest.raises(ConfigurationError, match="rayface token save"):
        token.read_token()
    value, is_new = token.have_token()
    assert is_new
    assert len(value) == 64
    assert no_token.stat().st_mode & 0o077 == 0
    assert token.have_token() == (value, False)


@pytest.mark.parametrize("text", ["", "short", "two words of a token", "x" * 20 + "\n" + "y" * 20])
def test_what_is_no_token(no_token: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        token.save_token(text)
    assert not no_token.exists()


@pytest.mark.parametrize("at_boot", [False, True])
def test_the_windows_task_is_well_formed_and_names_what_it_runs(at_boot: bool) -> None:
    task = windows_task.describe("a&b:6379", at_boot, None)
    root = ElementTree.fromstring(task.replace('encoding="UTF-16"', ""))
    space = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
    arguments = root.findtext(".//t:Arguments", namespaces=space)
    assert arguments == "-m cluster join a&b:6379 --wait"
    folder = root.findtext(".//t:WorkingDirectory", namespaces=space)
    assert folder is not None
    assert (Path(folder) / "cluster" / "__main__.py").is_file(), "`python -m cluster` works from there"
    trigger = "BootTrigger" if at_boot else "LogonTrigger"
    assert root.find(f".//t:{trigger}", space) is not None
    assert root.findtext(".//t:RestartOnFailure/t:Interval", namespaces=space) == "PT1M"
    assert root.findtext(".//t:ExecutionTimeLimit", namespaces=space) == "PT0S"


def test_without_a_way_out_any_address_of_its_own_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: str) -> str:
        raise ClusterUnavailable("Network is unreachable")

    address = namedtuple("address", ["family", "address"])
    monkeypatch.setattr(addresses, "own_address", nowhere)
    found = {"lo": [address(socket.AF_INET, "127.0.0.1")], "eth0": [address(socket.AF_INET, "10.0.0.7")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    assert addresses.outer_address() == "10.0.0.7"
    found.pop("eth0")
    with pytest.raises(ClusterUnavailable, match="--address"):
        addresses.outer_address()
