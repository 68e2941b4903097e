"""Machines that are different, and ways between them that are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from actors.settings import DetectorSettings
from cluster.connection.cluster_api import ActorEntry, DriverAddress, Node
from cluster.doctor.host import examine_here
from cluster.doctor.machines import Machines, compared, ports_of
from cluster.node.addresses import knock_all
from cluster.node.findings import Finding, Verdict, ok
from tests.unit.fake_cluster import FakeCluster, lost

OURS: dict[str, Any] = {
    "host": "backend",
    "python": "3.11.7",
    "ray": "2.60.0",
    "rayface": "0.1.0",
    "onnxruntime": {"onnxruntime": "1.32.0"},
    "time": 1000.0,
}
HEAD = Node("aa", "10.0.0.1", "backend", {"CPU": 1.0}, {"node manager": 6380, "object manager": 6381})
GPU = Node("bb", "10.0.0.2", "gpu", {"directml": 1.0}, {"node manager": 7380, "object manager": 7381})
OTHER = Node("cc", "10.0.0.3", "gpu2", {"directml": 1.0}, {"node manager": 7380})
ENTRIES = {
    "FaceDetector": ActorEntry("ALIVE", 0, "10.0.0.2", 11003),
    "FaceDetector-2": ActorEntry("RESTARTING", 1, "10.0.0.2", 11004),
}


def differing(**theirs: Any) -> list[Finding]:
    return [each for each in compared(OURS, OURS | theirs, 1000.0, 1001.0) if each.verdict is not Verdict.OK]


def test_the_same_on_both_machines() -> None:
    assert differing() == []


@pytest.mark.parametrize(
    ("theirs", "verdict", "says"),
    [
        ({"ray": "2.59.0"}, Verdict.WRONG, "ray is 2.60.0 here and 2.59.0 there"),
        ({"rayface": "0.0.9"}, Verdict.WRONG, "rayface is 0.1.0 here"),
        ({"python": "3.12.1"}, Verdict.WRONG, "Python is 3.11.7 here and 3.12.1 there"),
        ({"onnxruntime": {"onnxruntime": "1.31.0"}}, Verdict.WARN, "onnxruntime 1.31.0 there"),
        ({"time": 1100.0}, Verdict.WARN, "99 s ahead of this machine's"),
        ({"time": 400.0}, Verdict.WARN, "600 s behind this machine's"),
    ],
)
def test_what_is_different(theirs: dict[str, Any], verdict: Verdict, says: str) -> None:
    (found,) = differing(**theirs)
    assert found.verdict is verdict
    assert says in found.evidence


@pytest.mark.parametrize(
    "theirs",
    [
        {"python": "3.11.2"},
        {"onnxruntime": {"onnxruntime-directml": "1.24.4"}},
        {"time": 1000.5},
        {"time": 1004.0},
    ],
)
def test_what_may_be_different(theirs: dict[str, Any]) -> None:
    """A patch of Python, Windows' own package, and what a slow answer makes of a clock."""
    assert differing(**theirs) == []


def test_an_older_version_that_says_less() -> None:
    """It is a finding, and no error."""
    found = list(compared(OURS, {"ray": "2.60.0"}, 1000.0, 1001.0))
    assert any("unknown" in each.evidence for each in found)


def test_where_a_machine_has_to_be_reached() -> None:
    """Its Ray, the detectors that live there, and whoever asks."""
    driver = DriverAddress("aa", "10.0.0.1", 10004)
    assert set(ports_of(GPU, driver, ENTRIES)) == {7380, 7381, 11003}
    assert set(ports_of(HEAD, driver, ENTRIES)) == {6380, 6381, 10004}


class Site(FakeCluster):
    """Machines that are told what they find."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: dict[tuple[str, str], str] = {}
        self.visits: list[tuple[str, str, list[int]]] = []
        self.mute: set[str] = set()
        self.entries = ENTRIES

    async def run_on(self, node_id: str, work: partial[Any], *, timeout_s: float) -> Any:
        answers: dict[Callable[..., Any], Callable[..., Any]] = {
            examine_here: self._examine,
            knock_all: self._visit,
        }
        return answers[work.func](node_id, *work.args)

    def _examine(self, node_id: str, detector: DetectorSettings) -> dict[str, Any]:
        if node_id in self.mute:
            raise lost()
        host = "backend" if node_id == "aa" else "gpu"
        return {"facts": OURS | {"host": host}, "findings": [ok("ray", "Ray 2.60.0").as_dict()]}

    def _visit(self, node_id: str, host: str, ports: Sequence[int]) -> dict[int, str]:
        if node_id in self.mute:
            raise lost()
        self.visits.append((node_id, host, list(ports)))
        return {port: self.closed.get((node_id, host), "") for port in ports}


def look(site: Site, *nodes: Node) -> list[Finding]:
    said = [ok("ray", "Ray 2.60.0")]

    async def found() -> list[Finding]:
        machines = Machines(site, nodes, DetectorSettings(), OURS, said, lambda: 1000.0)
        return [each async for each in machines.findings()]

    return asyncio.run(found())


def test_each_way_is_tried_from_both_ends() -> None:
    site = Site()
    found = look(site, HEAD, GPU, OTHER)
    ways = {(each.where, each.verdict) for each in found if each.name == "way"}
    assert ways == {("backend", Verdict.OK), ("gpu", Verdict.OK), ("gpu2", Verdict.OK)}
    assert {(one, other) for one, other, _ in site.visits} == {
        ("aa", "10.0.0.2"),
        ("aa", "10.0.0.3"),
        ("bb", "10.0.0.1"),
        ("cc", "10.0.0.1"),
    }, "two that only lend need not reach each other"
    assert ("aa", "10.0.0.2", [7380, 7381, 11003]) in site.visits


def test_a_closed_way_says_from_where_to_where() -> None:
    site = Site()
    site.closed["bb", "10.0.0.1"] = "no answer"
    (found,) = (each for each in look(site, HEAD, GPU) if each.verdict is Verdict.WRONG)
    assert (found.name, found.where) == ("way", "gpu")
    assert "does not reach backend (10.0.0.1)" in found.evidence
    assert "6380 (node manager): no answer" in found.evidence


def test_a_machine_that_is_mute_holds_nobody_up() -> None:
    site = Site()
    site.mute.add("bb")
    found = look(site, HEAD, GPU)
    assert [each.where for each in found if each.verdict is Verdict.WRONG] == ["gpu"]
    assert [each.where for each in found if each.name == "way" and each.verdict is Verdict.OK] == ["backend"]


def test_what_this_machine_has_said_already_is_not_said_again() -> None:
    found = look(Site(), HEAD, GPU)
    assert [each.where for each in found if each.name == "ray"] == ["gpu"]
