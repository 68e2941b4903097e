"""Both sides of the wire: this machine, the way to the head and back, every other machine, every detector.

Each check says its verdict, the evidence and the remedy. What cannot be looked at, because something before
it is broken, is not guessed: the finding that matters is then the broken thing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

from actors import golden
from actors.device import Device
from actors.errors import DetectorFault
from actors.faces import Failure
from actors.ownership import DeviceLock
from cluster.connection.connection import Connection
from cluster.connection.messages import Node
from cluster.deployment import placement
from cluster.doctor.detectors import REMEDIES, Detectors, agreement, on_cpu
from cluster.doctor.host import examine, facts
from cluster.doctor.machines import Machines, clock, same, same_python
from cluster.errors import NotAnswered, RayfaceError
from cluster.node import preflight
from cluster.node.addresses import is_loopback, knock, knock_all, own_address, split_address
from cluster.node.findings import Finding, Verdict, ok, warn, wrong
from cluster.node.ray_start import node_manager_ports, reached_ports
from cluster.node.token import read_token
from cluster.settings import Settings
from cluster.telemetry.rate_limit import rate_limited_log

_KNOCK_TIMEOUT_S = 5.0
#: Findings after which nobody can be asked behind the head.
_BARS = ("head", "token of the head")


class Doctor:
    """Looks at everything that it can get at.

    Args:
        settings: of this machine.
        head: its address, HOST:PORT; None takes the settings'; there may be none at all.
        lends: devices that this machine lends or would lend; none on the backend's machine.
        connection: made for a way into the cluster.

    Attributes:
        said: what was found so far.
        reaches: whether the head was found and takes us; what lies behind it can be asked.
    """

    def __init__(
        self,
        settings: Settings,
        head: str | None,
        lends: Sequence[str],
        connection: Callable[[Settings], Connection] = lambda settings: Connection(
            settings, rate_limited_log("rayface.command")
        ),
    ) -> None:
        self._settings = settings
        self._head = head
        self._lends = lends
        self._connection = connection
        self._ours = facts()
        self.said: list[Finding] = []
        self.reaches = False

    async def findings(self) -> AsyncIterator[Finding]:
        """One after the other, as they are found."""
        stages = (self._here, self._found_head, self._to_head, self._devices, self._cluster)
        for stage in stages:
            try:
                async for each in stage():
                    self.said.append(each)
                    yield each
            except Exception as error:
                # The doctor is asked when things are broken: what it did not foresee is a finding as well.
                said = f"it could not look further ({stage.__name__.strip('_')}): {error!r}"
                each = warn("doctor", said, "See what is wrong above; if nothing is, please report it.")
                self.said.append(each)
                yield each

    async def _here(self) -> AsyncIterator[Finding]:
        role = "join" if self._lends else "head"
        is_far = not self._lends and (self._head or self._settings.cluster.address) is not None
        needs_model = not is_far or self._settings.fallback.policy != "never"
        for each in await asyncio.to_thread(
            lambda: examine(self._settings, self._lends, role, needs_model=needs_model)
        ):
            yield each

    async def _found_head(self) -> AsyncIterator[Finding]:
        if self._head is not None:
            return
        if self._settings.cluster.address is None:
            yield ok("cluster", "none is named: an embedded one is started by each program")
            return
        try:
            self._head = await asyncio.to_thread(placement.resolve, self._settings)
        except RayfaceError as error:
            yield wrong("head", str(error), "Start one: `rayface head`, or `docker compose up`.")

    async def _to_head(self) -> AsyncIterator[Finding]:
        if (head := self._head) is None:
            return
        found = await asyncio.to_thread(lambda: list(self._way(head)))
        self.reaches = not any(each.name in _BARS and each.verdict is Verdict.WRONG for each in found)
        for each in found:
            yield each

    async def _devices(self) -> AsyncIterator[Finding]:
        for each in await asyncio.to_thread(lambda: list(self._proved())):
            yield each

    def _way(self, head: str) -> Iterator[Finding]:
        """To the head, into it, and back."""
        try:
            host, port = split_address(head)
        except RayfaceError as error:
            yield wrong("head", str(error), "Give it as HOST:PORT, as `rayface head` says it at its start.")
            return
        if problem := knock(host, port, _KNOCK_TIMEOUT_S):
            yield wrong(
                "head",
                f"nobody answers at {head}{_meant(host)}: {problem}",
                "Start the head, publish its port (with Docker at RAYFACE_BIND; without it only this machine "
                "itself reaches it), and check what its name means on this machine.",
            )
            return
        yield ok("head", f"{head}{_meant(host)} answers")
        own = self._settings.join.address or own_address(head)
        if self._lends and (is_loopback(host) or is_loopback(own)):
            yield wrong(
                "head",
                f"{head} is known here by a loopback address, as {own}, by which Ray lets nobody join",
                "Use the address that `rayface head` says at its start, or give its name this machine's own "
                "address in the hosts file.",
            )
            return
        try:
            read_token()
        except RayfaceError:
            said = "without a token nobody is let in"
            yield wrong("token of the head", said, "`rayface token save` here, with the head's.")
            return
        try:
            with contextlib.ExitStack() as stack:
                ports = self._own_ports(stack)
                answer = preflight.ask_head(head, own, ports)
        except _PortTaken as taken:
            yield wrong("ports", str(taken), "End what uses it, or choose others with join.first_port.")
            answer = preflight.ask_head(head, own, [])
        except RayfaceError as error:
            said = str(error)
            if "token" in said:
                yield wrong("token of the head", said, "`rayface token save` here, with the head's.")
            else:
                yield wrong("head", said, "Check the address, and that a Ray head is there.")
            return
        yield from self._head_said(answer, host, own)

    def _head_said(self, answer: dict[str, Any], host: str, own: str) -> Iterator[Finding]:
        yield ok("token of the head", "the head takes it")
        yield from same("Ray", answer["ray_version"], self._ours["ray"], "at the head")
        yield from same_python(answer["python_version"], self._ours["python"], "at the head")
        visited: dict[str, str] | None = answer["visited"]
        if visited is None:
            yield warn(
                "way back",
                "nobody at the head could try it: it was not started by `rayface head`",
                "Start it by `rayface head`, or see that the head reaches this machine's ports.",
            )
        elif self._lends:
            if closed := {port: problem for port, problem in visited.items() if problem}:
                yield wrong(
                    "way back",
                    f"the head does not reach {own} at {_listed(closed)}",
                    "Let these ports in through this machine's firewall, and check what its name means at "
                    "the head.",
                )
            else:
                yield ok("way back", f"the head reaches {own} at {len(visited)} ports")
        if self._lends:
            yield self._way_there(host)
        if answer["clock_skew_s"] is not None:
            yield from clock(answer["clock_skew_s"], "the head's")

    def _way_there(self, host: str) -> Finding:
        """The head's node and object manager, and its processes' ports, which this machine's Ray needs."""
        head = self._settings.head
        first, (_, _, _, *workers) = head.first_port, reached_ports(head, head.num_worker_ports)
        problems = knock_all(host, [first, first + 1, *workers])
        # Behind a worker's port there need not be a process now; but refusing, too, is an answer.
        closed = {
            port: problem
            for port, problem in problems.items()
            if problem and (port not in workers or problem.startswith("no answer"))
        }
        if closed:
            return wrong(
                "way there",
                f"this machine does not reach {host} at {_listed(closed)}",
                "Publish these ports of the head and let them in through its firewall.",
            )
        return ok("way there", f"{host} is reached at {first}, {first + 1} and {workers[0]} to {workers[-1]}")

    def _own_ports(self, stack: contextlib.ExitStack) -> list[int]:
        """Ports of this machine for the head to try: those that Ray has open, or that it would have."""
        join = self._settings.join
        if not self._lends:
            # Any one: the head's callback probe is asked for the time, and finds it closed.
            return [join.first_port]
        if DeviceLock(join.node_lock).is_used():
            turns = node_manager_ports(join)
            others = [port for port in reached_ports(join, 0) if port not in turns]
            return [*(port for port in turns if not knock("127.0.0.1", port, 1.0)), *others]
        try:
            return stack.enter_context(preflight.listening(join, join.num_worker_ports))
        except RayfaceError as error:
            raise _PortTaken(str(error)) from error

    def _proved(self) -> Iterator[Finding]:
        """Devices that nobody has open are tried here; what a detector has, it proves itself."""
        detector = self._settings.detector
        for device in self._lends:
            if DeviceLock(Device.parse(device).lock_name).is_used():
                continue
            try:
                answer = preflight.self_test(device, detector)
                yield ok("device", preflight.proof(device, answer).sentence)
                if Device.parse(device).provider != "cpu":
                    photo = golden.photos(1, detector.shapes[0])[0]
                    yield agreement(answer, on_cpu(detector, photo))
            except DetectorFault as fault:
                yield warn(
                    "golden photo", f"this CPU could not be asked: {fault}", REMEDIES.get(fault.failure, "")
                )
            except RayfaceError as error:
                failure = getattr(error, "failure", Failure.DEVICE_HELD)
                yield wrong("device", str(error), REMEDIES.get(failure, "Update or change the GPU's driver."))

    async def _cluster(self) -> AsyncIterator[Finding]:
        """Every other machine, and every detector, by way of a driver's process."""
        if not self.reaches:
            return
        cluster = self._settings.cluster.model_copy(update={"address": self._head})
        settings = self._settings.model_copy(update={"cluster": cluster})
        connection = self._connection(settings)
        try:
            await connection.open()
        except RayfaceError as error:
            if self._lends and not DeviceLock(self._settings.join.node_lock).is_used():
                yield ok("cluster", "this machine has not joined; ask the doctor on the backend's too")
            else:
                yield wrong("cluster", str(error), "See what is wrong above.")
            return
        try:
            nodes: list[Node] = await connection.ask("nodes", timeout_s=10.0)
            async for each in _all(
                Machines(connection, nodes, settings.detector, self._ours, self.said).findings(),
                Detectors(settings, connection, nodes).findings(),
            ):
                yield each
        except NotAnswered as error:
            yield wrong("cluster", f"it does not say how it is: {error}", "Look at the head's own log.")
        finally:
            await connection.close()


class _PortTaken(Exception):
    """Somebody else listens where Ray would."""


async def _all(*parts: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    for part in parts:
        async for each in part:
            yield each


def _meant(host: str) -> str:
    """What a name means on this machine, where it is one and means something."""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return ""
    return "" if address == host else f" ({address})"


def _listed(closed: dict[Any, str]) -> str:
    """Ports by what is wrong with them, rows of them as one."""
    by_problem: dict[str, list[int]] = {}
    for port, problem in closed.items():
        by_problem.setdefault(problem, []).append(int(port))
    return "; ".join(f"{_rows(sorted(ports))}: {problem}" for problem, ports in by_problem.items())


def _rows(ports: Iterable[int]) -> str:
    rows: list[list[int]] = []
    for port in ports:
        if rows and port == rows[-1][-1] + 1:
            rows[-1].append(port)
        else:
            rows.append([port])
    return ", ".join(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows)
