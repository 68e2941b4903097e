"""The doctor's checks of machines: each examines itself, is compared with this one, knocks at others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import permutations
from typing import Any

from actors.settings import DetectorSettings
from cluster.connection.cluster_api import ActorEntry, ClusterApi, DriverAddress, Node
from cluster.doctor.host import examine_here
from cluster.errors import NotAnswered
from cluster.node.addresses import knock_all
from cluster.node.checks import same_python, same_version
from cluster.node.contract import RESOURCE
from cluster.node.findings import Finding, of_dict, ok, warn, wrong
from cluster.protocol.identity import identity, skew_said

_ANSWER_WITHIN_S = 8.0
_EXAMINE_TIMEOUT_S = 60.0
_MAX_SKEW_S = 5.0


class Machines:
    """Checks every machine of a cluster.

    Args:
        cluster: answers the questions about it.
        nodes: the machines of the cluster.
        detector: the settings with which this machine would place a detector.
        ours: facts of this machine.
        found: findings of this machine; they are not repeated if it is one of the cluster's machines.
        now: seconds since 1970.
    """

    def __init__(
        self,
        cluster: ClusterApi,
        nodes: Sequence[Node],
        detector: DetectorSettings,
        ours: Mapping[str, Any],
        found: Collection[Finding] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._detector = detector
        self._ours = ours
        self._found = set(found)
        self._now = now

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield the findings of one machine after the other, and then of the ways between them."""
        names = ", ".join(f"{each.name} ({each.address})" for each in self._nodes)
        yield ok("machines", f"{len(self._nodes)}: {names}")
        # All of them at once: a machine that does not answer must not delay the others.
        for found in await asyncio.gather(*(self._examined(node) for node in self._nodes)):
            for each in found:
                yield each
        for each in await self._ways():
            yield each

    async def _examined(self, node: Node) -> list[Finding]:
        if node.identity is not None and node.identity.tag != identity().tag:
            # Nothing that it says of itself could be trusted.
            evidence, advice = skew_said(node.identity, identity())
            return [wrong("rayface", evidence.rstrip("."), advice).at(node.name)]
        asked_at = self._now()
        try:
            work = partial(examine_here, self._detector.model_dump(mode="json"))
            known = await self._cluster.run_on(node.node_id, work, timeout_s=_EXAMINE_TIMEOUT_S)
        except NotAnswered as error:
            return [
                wrong(
                    "machine",
                    f"it could not examine itself: {error}",
                    "Install the same rayface there. `rayface doctor HEAD` on that machine says more. "
                    "`rayface doctor HEAD --listen 60` there and `rayface doctor --knock HOST` here try the "
                    "ports without Ray.",
                ).at(node.name)
            ]
        theirs = [of_dict(each) for each in known["findings"]]
        is_here = known["facts"].get("host") == self._ours["host"]
        new = [each for each in theirs if not (is_here and each in self._found)]
        different = compared(self._ours, known["facts"], asked_at, self._now())
        return [each.at(node.name) for each in (*new, *different)]

    async def _ways(self) -> list[Finding]:
        """Try the way from each machine to each other one that it has to reach, by a small task there."""
        pairs = [
            (one, other)
            for one, other in permutations(self._nodes, 2)
            # Two machines that only lend devices never talk to each other.
            if not (one.resources.get(RESOURCE) and other.resources.get(RESOURCE))
        ]
        if not pairs:
            return []
        try:
            driver = await self._cluster.driver_address(timeout_s=_ANSWER_WITHIN_S)
            entries = await self._cluster.actor_entries(timeout_s=_ANSWER_WITHIN_S)
        except NotAnswered as error:
            return [
                warn("way", f"the ports to try could not be found out: {error}", "See what is wrong above.")
            ]
        return await asyncio.gather(
            *(self._way(one, other, ports_of(other, driver, entries)) for one, other in pairs)
        )

    async def _way(self, one: Node, other: Node, ports: Mapping[int, str]) -> Finding:
        there = other.address if other.name == other.address else f"{other.name} ({other.address})"
        try:
            found = await self._cluster.run_on(
                one.node_id, partial(knock_all, other.address, list(ports)), timeout_s=_EXAMINE_TIMEOUT_S
            )
        except NotAnswered as error:
            return warn("way", f"to {there} could not be tried: {error}", "See what is wrong above.").at(
                one.name
            )
        closed = {port: problem for port, problem in found.items() if problem}
        if closed:
            listed = "; ".join(f"{port} ({ports[port]}): {problem}" for port, problem in closed.items())
            return wrong(
                "way",
                f"it does not reach {there} at {listed}",
                f"Publish these ports of {other.name}, let them in through its firewall, and check which "
                f"address its name has at {one.name}.",
            ).at(one.name)
        listed = ", ".join(f"{port} ({what})" for port, what in ports.items())
        return ok("way", f"it reaches {there} at {listed}").at(one.name)


def ports_of(node: Node, driver: DriverAddress, entries: Mapping[str, ActorEntry]) -> dict[int, str]:
    """The ports at which others have to reach a machine, each with what listens there now."""
    ports = {port: what for what, port in node.ports.items() if port}
    if driver.port and driver.node_id == node.node_id:
        ports[driver.port] = "this command's own, as a backend has one"
    for name, entry in entries.items():
        if entry.port and entry.state == "ALIVE" and entry.address == node.address:
            ports[entry.port] = name
    return ports


def compared(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], asked_at: float, answered_at: float
) -> Iterator[Finding]:
    """Compare this machine's facts with another's; the times say when it was asked and when it answered."""
    for name in ("ray", "rayface"):
        yield same_version(name, theirs.get(name, ""), ours[name], "there")
    yield same_python(theirs.get("python", ""), ours["python"], "there")
    yield from _same_runtimes(ours["onnxruntime"], theirs.get("onnxruntime", {}))
    # The other machine read its clock at some moment between question and answer.
    at = float(theirs.get("time", asked_at))
    yield from clock(max(0.0, at - answered_at) - max(0.0, asked_at - at), "this machine's")


def clock(skew_s: float, whose: str) -> Iterator[Finding]:
    """How far a clock is ahead of another one; a large difference makes logs and figures incomparable."""
    if abs(skew_s) > _MAX_SKEW_S:
        yield warn(
            "clock",
            f"it is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} {whose}",
            "Set both clocks by the same time server; until then their logs and figures cannot be compared.",
        )
    else:
        yield ok("clock", f"it agrees with {whose} to within a few seconds")


def _same_runtimes(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Finding]:
    """Windows has a package of its own with other versions; only two versions of one package are a slip."""
    different = {name for name in ours if name in theirs and ours[name] != theirs[name]}
    here, there = (", ".join(f"{k} {v}" for k, v in each.items()) or "none" for each in (ours, theirs))
    if different:
        yield warn(
            "versions",
            f"onnxruntime: {here} here and {there} there",
            "Install the same rayface on both with `python3 start.py`, which pins it.",
        )
    else:
        yield ok("versions", f"onnxruntime: {here} here and {there} there")
