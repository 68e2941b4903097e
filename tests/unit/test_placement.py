"""How many detectors there should be."""

from __future__ import annotations

from typing import Any

from cluster.deployment.placement import num_devices


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
