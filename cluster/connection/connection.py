"""The backend's connection to the cluster: keeps a driver process, and replaces it when it is of no more use.

All that the backend's own process holds of the cluster are two pipes to a process that may end at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from actors.faces import Failure
from cluster.background import repeat_async
from cluster.backoff import Backoff
from cluster.connection.cluster_client import ClusterClient
from cluster.connection.driver_process import DriverProcess
from cluster.connection.early_process import EarlyProcess
from cluster.errors import Fault, NotAnswered, RayfaceError
from cluster.settings import Settings
from cluster.slabs import Slabs

_PULSE_EVERY_S = 2.0
_PULSE_WITHIN_S = 6.0
#: A driver process that has not answered `pulse` for so long has hung.
_HUNG_AFTER_S = 20.0
#: A driver process that is replaced may take so long to bring the answers that are still due.
_FINISH_WITHIN_S = 30.0


class JoinedProcess(Protocol):
    """A driver process that has joined, as a connection watches it; `DriverProcess` is one.

    It is no `ClusterApi`: it carries questions without knowing them.

    Attributes:
        address: of the joined cluster, HOST:PORT.
        ended: is done when the process has ended; its result says why, in words.
    """

    address: str
    ended: asyncio.Future[str]

    @property
    def num_asked(self) -> int:
        """Questions without an answer so far."""
        ...

    async def ask(self, question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """The answer to a question.

        Raises:
            NotAnswered: no answer came within `timeout_s` seconds; says why.
        """
        ...

    async def end(self) -> None:
        """Hang up, and wait until the process has ended."""
        ...


class Connection(ClusterClient):
    """Asks the cluster every question of `ClusterApi`; while no cluster is joined, questions wait.

    Args:
        settings: say which cluster to join.
        log: is told when a cluster is joined or lost, and why.
        start: starts a driver process and waits until it has joined; None starts a `DriverProcess`.
        backoff: pauses between attempts to join; None takes the usual ones.
        on_joined: called each time a driver process has joined.
        slabs: the memory for pixels that each driver process shares; None for none.
        early: a driver process that loads already, for the first time that a cluster is joined.
    """

    def __init__(
        self,
        settings: Settings,
        log: logging.Logger,
        start: Callable[[Settings], Awaitable[JoinedProcess]] | None = None,
        backoff: Backoff | None = None,
        on_joined: Callable[[], None] = lambda: None,
        slabs: Slabs | None = None,
        early: EarlyProcess | None = None,
    ) -> None:
        super().__init__(self._carry, slabs)
        self._settings = settings
        self._on_joined = on_joined
        self._log = log
        self._start = start or partial(DriverProcess.start, slabs=slabs, early=early)
        self._backoff = backoff or Backoff(most_s=10.0)
        self._driver_process: JoinedProcess | None = None
        #: A driver process that has joined and is not in use yet.
        self._next: JoinedProcess | None = None
        self._came = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._num_joined = 0
        self._why_not = "The cluster is being joined."

    @property
    def address(self) -> str:
        """The joined cluster's address, HOST:PORT; empty while none is joined."""
        return self._driver_process.address if self._driver_process else ""

    @property
    def why_not(self) -> str:
        """Why no cluster is joined at the moment, in a sentence."""
        return self._why_not

    @property
    def num_joined(self) -> int:
        """How often a cluster was joined so far; each time by another driver process."""
        return self._num_joined

    async def open(self, *, wait: bool = True) -> None:
        """Join the cluster, and stay joined from now on.

        Args:
            wait: whether to wait until it is joined; else joining goes on in the background.

        Raises:
            ClusterUnavailable: with `wait`, the cluster could not be joined; says why.
        """
        self._next = await self._start(self._settings) if wait else None
        self._keeping = asyncio.create_task(
            repeat_async(
                self._live_once,
                name="The connection to the cluster",
                log=self._log,
                backoff=self._backoff,
            )
        )

    async def close(self) -> None:
        """Leave the cluster; an embedded cluster ends."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for driver_process in (self._driver_process, self._next):
            if driver_process is not None:
                await driver_process.end()
        self._driver_process = self._next = None

    async def _carry(self, question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """Ask the present driver process; if there is none, wait for one within the time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(until):
                while (driver_process := self._driver_process) is None:
                    await self._came.wait()
        except TimeoutError:
            raise NotAnswered(Fault.of(Failure.NO_CLUSTER, self._why_not)) from None
        return await driver_process.ask(question, arguments, until - loop.time())

    async def _live_once(self) -> None:
        """Join, and watch the driver process until it is of no more use."""
        driver_process, self._next = self._next, None
        try:
            driver_process = driver_process or await self._start(self._settings)
        except RayfaceError as error:
            self._cannot_join(str(error))
            self._log.warning("No cluster: %s", error)
            return
        except Exception as error:
            self._cannot_join(f"The cluster cannot be joined: {type(error).__name__}: {error}.")
            raise
        self._take(driver_process)
        why = await self._watched(driver_process)
        self._log.warning("The connection to the cluster is made anew: %s.", why)
        if driver_process.ended.done() or self._settings.cluster.address is None:
            # An embedded cluster belongs to its driver process and ends with it, before the next one starts.
            self._drop(driver_process, why)
            await driver_process.end()

    def _cannot_join(self, why: str) -> None:
        if self._driver_process is None:
            self._why_not = why

    def _take(self, driver_process: JoinedProcess) -> None:
        old, self._driver_process = self._driver_process, driver_process
        self._num_joined += 1
        self._on_joined()
        driver_process.ended.add_done_callback(lambda ended: self._drop(driver_process, ended.result()))
        self._came.set()
        self._log.info("Joined the cluster at %s.", driver_process.address)
        if old is not None:
            task = asyncio.create_task(self._retire(old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _drop(self, driver_process: JoinedProcess, why: str) -> None:
        if self._driver_process is driver_process:
            self._driver_process = None
            self._came.clear()
            self._why_not = f"The connection to the cluster was lost: {why}."

    async def _retire(self, driver_process: JoinedProcess) -> None:
        """End a driver process that was replaced, once it has brought the answers that are still due."""
        try:
            async with asyncio.timeout(_FINISH_WITHIN_S):
                while driver_process.num_asked and not driver_process.ended.done():
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pass
        finally:
            await driver_process.end()

    async def _watched(self, driver_process: JoinedProcess) -> str:
        """Watch a driver process until it is of no more use; returns the reason, in words."""
        heard = asyncio.get_running_loop().time()
        while True:
            await asyncio.wait([driver_process.ended], timeout=_PULSE_EVERY_S)
            if driver_process.ended.done():
                return driver_process.ended.result()
            with contextlib.suppress(NotAnswered):
                pulse = await ClusterClient(driver_process.ask).pulse(timeout_s=_PULSE_WITHIN_S)
                heard = asyncio.get_running_loop().time()
                if pulse.stranded:
                    return pulse.stranded
            if asyncio.get_running_loop().time() - heard > _HUNG_AFTER_S:
                return "the process that carries calls to it has hung"
