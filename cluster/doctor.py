"""Both sides of the wire: this machine, the way to the head and back, every other machine, every detector.

Each check says its verdict, the evidence and the remedy. What cannot be looked at, because something before
it is broken, is not guessed: the finding that matters is then the broken thing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from actors.device import Device
from actors.ownership import DeviceLock
from cluster import join_checks, placement
from cluster.carrier import Carrier
from cluster.doctor_detectors import Detectors
from cluster.doorman import knock
from cluster.errors import NotAnswered, RayfaceError
from cluster.examine import examine, facts
from cluster.findings import Finding, mind, of_dict, ok, wrong
from cluster.node import node_manager_ports, own_address, split_address
from cluster.quiet_log import sparing_log
from cluster.settings import Settings
from cluster.wire import Node

_KNOCK_TIMEOUT_S = 5.0
_EXAMINE_TIMEOUT_S = 60.0
_MAX_SKEW_S = 5.0
_TWO, _PORTS, _FAILS = "Two machines", "Ports", "When something fails"


class Doctor:
    """Looks at everything that it can get at.

    Args:
        settings: of this machine.
        head: its address, HOST:PORT; None takes the settings'; there may be none at all.
        lends: devices that this machine lends or would lend; none on the backend's machine.
    """

    def __init__(self, settings: Settings, head: str | None, lends: Sequence[str]) -> None:
        self._settings = settings
        self._head = head
        self._lends = lends
        self._ours = facts()

    async def findings(self) -> AsyncIterator[Finding]:
        """One after the other, as they are found."""
        for each in await asyncio.to_thread(
            examine, self._settings, self._lends, "join" if self._lends else "head"
        ):
            yield each
        head: str | None = None
        for each in self._find_head():
            yield each
        if self._head is None:
            return
        head = self._head
        reaches = True
        for each in await asyncio.to_thread(lambda: list(self._way(head))):
            yield each
            reaches = reaches and not (each.name in ("head", "token of the head") and each.verdict == "wrong")
        if self._lends:
            for each in await asyncio.to_thread(lambda: [*self._prove()]):
                yield each
        if not reaches:
            return
        async for each in self._cluster(head):
            yield each

    def _find_head(self) -> Iterator[Finding]:
        if self._head is None and self._settings.cluster.address is None:
            yield ok("cluster", "none is named: an embedded one is started by each program")
            return
        if self._head is None:
            try:
                self._head = placement.resolve(self._settings)
            except RayfaceError as error:
                yield wrong("head", str(error), "Start one: `rayface head`, or `docker compose up`.", _TWO)

    def _way(self, head: str) -> Iterator[Finding]:
        """To the head, into it, and back."""
        try:
            host, port = split_address(head)
            problem = knock(host, port, _KNOCK_TIMEOUT_S)
        except RayfaceError as error:
            problem = str(error)
        if problem:
            yield wrong(
                "head",
                f"nobody answers at {head}: {problem}",
                "Start the head, publish its port, and check what its name means on this machine.",
                _TWO,
            )
            return
        yield ok("head", f"{head} answers")
        try:
            yield from self._asked_head(head, host)
        except RayfaceError as error:
            said = str(error)
            if "refuses our token" in said or "no token" in said:
                yield wrong("token of the head", said, "`rayface token save` here, with the head's.", _TWO)
            else:
                yield wrong("head", said, "Check the address and that a Ray head is there.", _TWO)

    def _asked_head(self, head: str, host: str) -> Iterator[Finding]:
        own = self._settings.join.address or own_address(head)
        with self._reachable_ports() as ports:
            answer = join_checks.ask_head(head, own, ports)
        yield ok("token of the head", "the head takes it")
        yield from _same("Ray", answer["ray_version"], self._ours["ray"], "at the head")
        ours, theirs = self._ours["python"], answer["python_version"]
        if ours.split(".")[:2] != theirs.split(".")[:2]:
            yield wrong(
                "versions",
                f"Python is {ours} here and {theirs} at the head",
                "Use the same second number on both machines.",
                _TWO,
            )
        if answer["visited"] is None:
            yield mind(
                "way back",
                "nobody at the head could try it: it was not started by `rayface head`",
                "Start it by `rayface head`, or see that the head reaches this machine's ports.",
                _PORTS,
            )
        elif self._lends:
            closed = {port: problem for port, problem in answer["visited"].items() if problem}
            if closed:
                yield wrong(
                    "way back",
                    f"the head does not reach {own} at {_listed(closed)}",
                    "Let these ports in through this machine's firewall, and check what its name means at "
                    "the head.",
                    _PORTS,
                )
            else:
                yield ok("way back", f"the head reaches {own} at {len(answer['visited'])} ports")
            yield from self._way_there(host)
        skew_s = answer["clock_skew_s"]
        if skew_s is not None and abs(skew_s) > _MAX_SKEW_S:
            side = "ahead of" if skew_s > 0 else "behind"
            yield mind(
                "clock",
                f"this machine's clock is {abs(skew_s):.0f} s {side} the head's",
                "Set both by the same time server; till then their logs and figures cannot be compared.",
                _FAILS,
            )
        elif skew_s is not None:
            yield ok("clock", "as the head's, within seconds")

    def _way_there(self, host: str) -> Iterator[Finding]:
        """The head's node and object manager, which this machine's Ray needs."""
        first = self._settings.head.first_port
        closed = _closed(host, (first, first + 1))
        if closed:
            yield wrong(
                "way there",
                f"this machine does not reach {host} at {_listed(closed)}",
                "Publish these ports of the head and let them in through its firewall.",
                _PORTS,
            )
        else:
            yield ok("way there", f"{host} is reached at {first} and {first + 1} too")

    @contextlib.contextmanager
    def _reachable_ports(self) -> Iterator[list[int]]:
        """Ports of this machine for the head to try: those that Ray has open, or that it would have."""
        join = self._settings.join
        if not self._lends:
            # Any one: the head's doorman is asked for the time, and finds it closed.
            yield [join.first_port]
        elif DeviceLock(join.node_lock).is_used():
            managers = [port for port in node_manager_ports(join) if not knock("127.0.0.1", port, 1.0)]
            yield [*managers, join.first_port + 1, join.first_port + 4]
        else:
            with join_checks.listening(join) as ports:
                yield ports

    def _prove(self) -> Iterator[Finding]:
        """Devices that nobody has open are tried here; what a detector has, it proves itself."""
        for device in self._lends:
            if DeviceLock(Device.parse(device).lock_name).is_used():
                continue
            try:
                yield ok("device", join_checks.check_device(device, self._settings.detector).sentence)
            except RayfaceError as error:
                yield wrong("device", str(error), "Update or change the GPU's driver.", _FAILS)

    async def _cluster(self, head: str) -> AsyncIterator[Finding]:
        """Every other machine, and every detector, by way of a driver's process."""
        cluster = self._settings.cluster.model_copy(update={"address": head})
        settings = self._settings.model_copy(update={"cluster": cluster})
        carrier = Carrier(settings, sparing_log("rayface.command"))
        try:
            await carrier.open()
        except RayfaceError as error:
            if self._lends:
                yield ok(
                    "cluster", "this machine has not joined; ask the doctor on the backend's machine too"
                )
            else:
                yield wrong("cluster", str(error), "See what is wrong above.", _TWO)
            return
        try:
            nodes: list[Node] = await carrier.ask("nodes", timeout_s=10.0)
            async for each in self._machines(carrier, nodes):
                yield each
            async for each in Detectors(settings, carrier, nodes).findings():
                yield each
        except NotAnswered as error:
            yield wrong("cluster", f"it does not say how it is: {error}", "Look at the head's own log.", _TWO)
        finally:
            await carrier.close()

    async def _machines(self, carrier: Carrier, nodes: Sequence[Node]) -> AsyncIterator[Finding]:
        yield ok("machines", f"{len(nodes)}: " + ", ".join(each.name for each in nodes))
        for node in nodes:
            closed = await asyncio.to_thread(_closed, node.address, node.ports)
            if closed:
                yield wrong(
                    "way there",
                    f"this machine does not reach {node.address} at {_listed(closed)}",
                    "Let these ports in through that machine's firewall; publish those of a container.",
                    _PORTS,
                ).at(node.name)
            else:
                yield ok("way there", f"reached at {len(node.ports)} ports").at(node.name)
            try:
                known: dict[str, Any] = await carrier.ask(
                    "examine", node.node_id, timeout_s=_EXAMINE_TIMEOUT_S
                )
            except NotAnswered as error:
                yield wrong(
                    "machine",
                    f"it could not examine itself: {error}",
                    "Install the same rayface there; `rayface doctor HEAD` on that machine says more.",
                    _TWO,
                ).at(node.name)
                continue
            for each in known["findings"]:
                yield of_dict(each).at(node.name)
            theirs = known["facts"]
            for name in ("ray", "rayface"):
                for each in _same(name, theirs[name], self._ours[name], "there"):
                    yield each.at(node.name)


def _same(name: str, theirs: str, ours: str, where: str) -> Iterator[Finding]:
    if theirs == ours:
        yield ok("versions", f"{name} {ours} here and {where}")
    else:
        yield wrong(
            "versions",
            f"{name} is {ours} here and {theirs} {where}",
            "Install the same rayface on every machine; it brings the same Ray.",
            _TWO,
        )


def _closed(host: str, ports: Sequence[int]) -> dict[int, str]:
    """Ports that this machine does not reach, and why."""
    return {port: problem for port in ports if (problem := knock(host, port, _KNOCK_TIMEOUT_S))}


def _listed(closed: dict[Any, str]) -> str:
    return "; ".join(f"{port}: {problem}" for port, problem in closed.items())
