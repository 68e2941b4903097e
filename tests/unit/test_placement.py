"""How many detectors there should be, and what an embedded cluster is given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.deployment.placement import num_devices, prepare_embedded
from cluster.node import token
from cluster.ray_internals import EMBEDDED_VARIABLES

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def node(address: str, port: int = 7381, units: float = 1.0, alive: bool = True) -> dict[str, Any]:
    return {
        "NodeManagerAddress": address,
        "ObjectManagerPort": port,
        "Alive": alive,
        "Resources": {"directml": units, "CPU": 1.0} if units else {"CPU": 1.0},
    }


def test_each_lent_device_counts() -> None:
    """Two machines, one of them with two adapters, and a head that lends none."""
    assert num_devices([node("head", units=0), node("a"), node("b", units=2.0)]) == 3


def test_two_nodes_of_one_machine_count_both() -> None:
    """They have different ports."""
    assert num_devices([node("a", 7381), node("a", 7581)]) == 2


def test_a_machine_whose_ray_was_started_again_counts_once() -> None:
    """Its first node is not given up yet; found by twenty minutes of chaos."""
    assert num_devices([node("a"), node("a"), node("a", alive=False)]) == 1


def test_nothing_of_a_dead_node_counts() -> None:
    assert num_devices([node("a", alive=False)]) == 0


def test_the_token_of_an_embedded_cluster_is_this_users_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """I7: Ray would create one that everybody can read."""
    file = tmp_path / "token"
    monkeypatch.setattr(token, "token_file", lambda: file)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    prepare_embedded({}, lambda is_allowed: None)
    assert len(file.read_text()) >= 32
    assert sys.platform == "win32" or file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("set_by_a_person", "is_allowed"), [({}, False), ({SWITCH: "1"}, True)])
def test_an_embedded_cluster_is_for_its_own_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, set_by_a_person: dict[str, str], is_allowed: bool
) -> None:
    """I7: unless a person says otherwise."""
    monkeypatch.setattr(token, "token_file", lambda: tmp_path / "token")
    environment, allowed = dict(set_by_a_person), list[bool]()
    prepare_embedded(environment, allowed.append)
    assert allowed == [is_allowed]
    assert (
        environment == {"RAY_USAGE_STATS_ENABLED": "0", **EMBEDDED_VARIABLES, SWITCH: "0"} | set_by_a_person
    )
