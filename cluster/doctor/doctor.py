"""`Doctor`: looks at this machine, the way to the head and back, every other machine, and every detector.

Each finding has a verdict, the evidence and a remedy. Where something is broken, the doctor guesses nothing
about what lies behind it: the broken thing is the finding that matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence

from actors import golden
from actors.device import Device
from actors.errors import DetectorFault
from actors.ownership import DeviceLock
from cluster.connection.connection import Connection
from cluster.deployment import joining
from cluster.doctor.detectors import Detectors, agreement, on_cpu
from cluster.doctor.host import examine, facts
from cluster.doctor.machines import Machines, clock
from cluster.errors import NotAnswered, RayfaceError
from cluster.node import checks
from cluster.node.addresses import knock, knock_all, list_ports, split_address
from cluster.node.checks import REMEDIES, HeadAnswer
from cluster.node.findings import Finding, Verdict, ok, warn, wrong
from cluster.node.ray_start import node_manager_ports, reached_ports
from cluster.settings import Settings
from cluster.telemetry.rate_limit import rate_limited_log

#: Checks without which nothing behind the head can be asked.
_NEEDED_FURTHER = ("head", "token of the head")


class Doctor:
    """Makes every check that can be made from this machine.

    Args:
        settings: of this machine.
        head: the head's address, HOST:PORT; None takes the one of the settings, which may name none.
        lends: devices that this machine lends or would lend; none on the backend's machine.
        connection: makes a connection to the cluster.

    Attributes:
        found: the findings so far.
        reaches: whether the head answered and took our token, so that the cluster can be asked.
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
        self.found: list[Finding] = []
        self.reaches = False

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield one finding after the other, as soon as each is known."""
        stages = {
            "this machine": self._here,
            "the settings": self._named_head,
            "the head": self._to_head,
            "the devices": self._devices,
            "the cluster": self._cluster,
        }
        for name, stage in stages.items():
            try:
                async for each in stage():
                    self.found.append(each)
                    yield each
            except Exception as error:
                # The doctor runs when things are broken: an error that nobody foresaw is a finding as well.
                each = warn(
                    "doctor",
                    f"it could not finish looking at {name}: {error!r}",
                    "See what is wrong above; if nothing is, please report this.",
                )
                self.found.append(each)
                yield each

    async def _here(self) -> AsyncIterator[Finding]:
        role = "join" if self._lends else "head"
        is_far = not self._lends and (self._head or self._settings.cluster.address) is not None
        needs_model = not is_far or self._settings.fallback.policy != "never"
        for each in await asyncio.to_thread(
            lambda: examine(self._settings, self._lends, role, needs_model=needs_model)
        ):
            yield each

    async def _named_head(self) -> AsyncIterator[Finding]:
        if self._head is not None:
            return
        if self._settings.cluster.address is None:
            yield ok("cluster", "the settings name none: each program starts an embedded one")
            return
        try:
            self._head = await asyncio.to_thread(joining.resolve, self._settings)
        except RayfaceError as error:
            yield wrong("head", str(error), "Start one: `rayface head`, or `docker compose up`.")

    async def _to_head(self) -> AsyncIterator[Finding]:
        if (head := self._head) is None:
            return
        found = await asyncio.to_thread(lambda: list(self._way(head)))
        self.reaches = not any(
            each.name in _NEEDED_FURTHER and each.verdict is Verdict.WRONG for each in found
        )
        for each in found:
            yield each

    async def _devices(self) -> AsyncIterator[Finding]:
        for each in await asyncio.to_thread(lambda: list(self._tested())):
            yield each

    def _way(self, head: str) -> Iterator[Finding]:
        """To the head, into it, and back to this machine."""
        lends = bool(self._lends)
        own = yield from checks.check_head(head, self._settings.join, lends=lends)
        if own is None:
            return
        answer = yield from self._ask(head, own)
        if answer is None:
            return
        yield from checks.check_versions(answer, self._ours)
        yield from checks.check_way_back(answer, own, lends=lends)
        if lends:
            yield self._way_there(split_address(head)[0])
        if answer.clock_skew_s is not None:
            yield from clock(answer.clock_skew_s, "the head's")

    def _ask(self, head: str, own: str) -> Generator[Finding, None, HeadAnswer | None]:
        """Ask the head to try the ports of this machine that Ray has open, or would have."""
        join = self._settings.join
        if not self._lends:
            # The head says its time only if it is asked to try a port; it finds this one closed.
            return (yield from checks.ask_head(head, own, [join.first_port], listen=False))
        if DeviceLock(join.node_lock).is_used():
            turns = node_manager_ports(join)
            others = [port for port in reached_ports(join, 0) if port not in turns]
            is_open = [port for port in turns if not knock("127.0.0.1", port, 1.0)]
            return (yield from checks.ask_head(head, own, [*is_open, *others], listen=False))
        ports = reached_ports(join, join.num_worker_ports)
        return (yield from checks.ask_head(head, own, ports, listen=True))

    def _way_there(self, host: str) -> Finding:
        """This machine's Ray needs the head's node and object manager, and the ports of its processes."""
        head = self._settings.head
        first, (_, _, _, *workers) = head.first_port, reached_ports(head, head.num_worker_ports)
        problems = knock_all(host, [first, first + 1, *workers])
        # Perhaps no process listens at a worker's port now; a refusal is an answer from the machine as well.
        closed = {
            port: problem
            for port, problem in problems.items()
            if problem and (port not in workers or problem.startswith("no answer"))
        }
        if closed:
            return wrong(
                "way there",
                f"this machine does not reach {host} at {list_ports(closed)}",
                "Publish these ports of the head and let them in through its firewall.",
            )
        return ok("way there", f"{host} is reached at {first}, {first + 1} and {workers[0]} to {workers[-1]}")

    def _tested(self) -> Iterator[Finding]:
        """Test the devices that no process has open here; a detector tests its own device itself."""
        detector = self._settings.detector
        for device in self._lends:
            if DeviceLock(Device.parse(device).lock_name).is_used():
                continue
            answer = yield from checks.check_device(device, detector)
            if answer is None or Device.parse(device).provider == "cpu":
                continue
            try:
                yield agreement(answer, on_cpu(detector, golden.photos(1, detector.shapes[0])[0]))
            except DetectorFault as fault:
                yield warn(
                    "golden photo",
                    f"this machine's CPU could not be asked for comparison: {fault}",
                    REMEDIES.get(fault.failure, "Set rayface up again: `python3 start.py`."),
                )

    async def _cluster(self) -> AsyncIterator[Finding]:
        """Ask every other machine and every detector, through a driver process."""
        if not self.reaches:
            return
        cluster = self._settings.cluster.model_copy(update={"address": self._head})
        settings = self._settings.model_copy(update={"cluster": cluster})
        connection = self._connection(settings)
        try:
            await connection.open()
        except RayfaceError as error:
            if self._lends and not DeviceLock(self._settings.join.node_lock).is_used():
                yield ok(
                    "cluster",
                    "not looked at, because this machine has not joined; run the doctor on the backend's "
                    "machine too",
                )
            else:
                yield wrong("cluster", str(error), "See what is wrong above.")
            return
        try:
            nodes = await connection.nodes(timeout_s=10.0)
            machines = Machines(connection, nodes, settings.detector, self._ours, self.found)
            async for each in machines.findings():
                yield each
            async for each in Detectors(settings, connection, nodes).findings():
                yield each
        except NotAnswered as error:
            yield wrong("cluster", f"it does not say how it is: {error}", "Look at the head's own log.")
        finally:
            await connection.close()
