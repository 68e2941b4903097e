"""The connection replaces driver processes; each question gets an answer or a reason. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.faces import Failure
from cluster.backoff import Backoff
from cluster.connection.cluster_api import Pulse
from cluster.connection.connection import Connection
from cluster.errors import ClusterUnavailable, Fault, NotAnswered
from cluster.settings import Settings, load_settings
from tests.unit.fake_cluster import quiet
from tests.virtual_time import run


class Driver:
    """A driver process that answers with its number as a name, until the test changes that."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = f"head:{number}"
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.pulse = Pulse("")
        self.hangs = False
        self.seconds = 0.0
        self.num_asked = 0
        self.was_ended_at: float | None = None

    async def ask(self, question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answered(question)
        except TimeoutError:
            raise NotAnswered(Fault.of(Failure.DEADLINE, "No answer came in time.")) from None

    async def _answered(self, question: str) -> Any:
        if self.ended.done():
            raise NotAnswered(Fault.of(Failure.NO_CLUSTER, "gone"))
        if self.hangs:
            await asyncio.sleep(1e6)
        if question == "pulse":
            return self.pulse
        self.num_asked += 1
        try:
            await asyncio.wait([self.ended], timeout=self.seconds)
            if self.ended.done():
                raise NotAnswered(Fault.of(Failure.NO_CLUSTER, self.ended.result()))
            return [str(self.number)]
        finally:
            self.num_asked -= 1

    def dies(self) -> None:
        """End as if Ray's core had ended the process."""
        self.ended.set_result("it ended with code 1")

    async def end(self) -> None:
        self.was_ended_at = asyncio.get_running_loop().time()
        if not self.ended.done():
            self.ended.set_result("it was ended")


class Cluster:
    """Where driver processes are made; `away` says why none can join now, `unforeseen` is raised instead."""

    def __init__(self) -> None:
        self.driver_processes: list[Driver] = []
        self.away = ""
        self.unforeseen: Exception | None = None
        self.num_attempts = 0

    async def start(self, settings: Settings) -> Driver:
        """The next driver process."""
        self.num_attempts += 1
        await asyncio.sleep(1.0)
        if self.unforeseen is not None:
            raise self.unforeseen
        if self.away:
            raise ClusterUnavailable(self.away)
        self.driver_processes.append(Driver(len(self.driver_processes) + 1))
        return self.driver_processes[-1]


def connection(cluster: Cluster, address: str | None = "head:6379") -> Connection:
    settings = load_settings(cluster={"address": address} if address else {})
    log = quiet(asyncio.get_running_loop().time)
    # Seconds pass in virtual time only, so no life is a long one.
    return Connection(settings, log, cluster.start, Backoff(most_s=10.0, jitter=lambda: 1.0))


def story(told: Callable[[Cluster, Connection], Any], address: str | None = "head:6379") -> None:
    async def whole() -> None:
        cluster = Cluster()
        made = connection(cluster, address)
        await told(cluster, made)
        await made.close()
        assert all(each.was_ended_at is not None for each in cluster.driver_processes), (
            "a driver process was left behind"
        )

    run(whole())


async def ask(made: Connection, timeout_s: float = 5.0) -> Any:
    """Return which driver process answered, or the failure."""
    try:
        (name,) = await made.list_detectors(timeout_s=timeout_s)
        return int(name)
    except NotAnswered as error:
        return error.fault.failure


def test_a_cluster_that_cannot_be_joined_is_said() -> None:
    async def told(cluster: Cluster, made: Connection) -> None:
        cluster.away = "nobody answers at head:6379"
        with pytest.raises(ClusterUnavailable, match="nobody answers"):
            await made.open()

    story(told)


def test_without_waiting_it_joins_when_it_can() -> None:
    """Questions wait for the driver process within their time; after it they get the reason."""

    async def told(cluster: Cluster, made: Connection) -> None:
        cluster.away = "nobody answers at head:6379"
        await made.open(wait=False)
        with pytest.raises(NotAnswered, match="nobody answers") as unanswered:
            await made.list_detectors(timeout_s=3.0)
        assert unanswered.value.fault.failure is Failure.NO_CLUSTER
        asking = asyncio.create_task(ask(made, 60.0))
        await asyncio.sleep(20.0)
        cluster.away = ""
        assert await asking == 1

    story(told)


@pytest.mark.parametrize("error", [OSError("no more processes"), ZeroDivisionError("no number")], ids=repr)
def test_an_unforeseen_error_while_joining_is_told_and_joining_goes_on(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """An example is a process that cannot be started; a caller gets the reason."""

    async def told(cluster: Cluster, made: Connection) -> None:
        cluster.unforeseen = error
        await made.open(wait=False)
        with pytest.raises(NotAnswered, match=f"cannot be joined: {type(error).__name__}: {error}"):
            await made.list_detectors(timeout_s=30.0)
        assert cluster.num_attempts > 3
        cluster.unforeseen = None
        assert await ask(made, 60.0) == 1
        assert str(error) in caplog.text

    story(told)


def test_a_connection_that_is_closed_at_once_leaves_no_process() -> None:
    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        await made.close()

    story(told)


def test_an_unforeseen_error_while_watching_costs_one_driver_process() -> None:
    """The next driver process takes over, and the connection goes on."""

    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        cluster.driver_processes[0].pulse = None  # type: ignore[assignment]  # not what a driver process says
        await asyncio.sleep(20.0)
        assert await ask(made) == 2
        cluster.driver_processes[1].dies()
        await asyncio.sleep(20.0)
        assert await ask(made) == 3

    story(told)


def test_a_driver_process_that_ends_by_itself_is_replaced() -> None:
    """Open questions are answered with the reason; later questions wait for the next driver process."""

    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        cluster.driver_processes[0].seconds = 100.0
        asking = asyncio.create_task(ask(made, 60.0))
        await asyncio.sleep(5.0)
        cluster.driver_processes[0].dies()
        assert await asking is Failure.NO_CLUSTER
        assert await ask(made) == 2

    story(told)


def test_a_stranded_driver_process_finishes_while_another_takes_over() -> None:
    """The head was replaced, or the node of the driver process is gone: no question is lost."""

    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        first = cluster.driver_processes[0]
        first.seconds = 10.0
        asking = asyncio.create_task(ask(made, 60.0))
        await asyncio.sleep(1.0)
        first.pulse = Pulse("the node that it belonged to is gone")
        await asyncio.sleep(6.0)
        assert await ask(made) == 2
        assert await asking == 1
        await asyncio.sleep(1.0)
        assert first.was_ended_at is not None

    story(told)


def test_a_stranded_driver_process_stays_while_there_is_no_other() -> None:
    """The old driver process may still reach detectors that the head no longer lists."""

    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        cluster.away = "nobody answers"
        cluster.driver_processes[0].pulse = Pulse("the head answers others, and not this process")
        await asyncio.sleep(60.0)
        assert await ask(made) == 1
        cluster.away = ""
        await asyncio.sleep(20.0)
        assert await ask(made) == 2

    story(told)


def test_a_head_that_is_away_costs_no_driver_process() -> None:
    """Detectors still answer this driver process, and Ray itself connects to the head again."""

    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        cluster.driver_processes[0].pulse = Pulse("")
        await asyncio.sleep(600.0)
        assert len(cluster.driver_processes) == 1
        assert await ask(made) == 1

    story(told)


def test_a_driver_process_that_has_hung_is_replaced() -> None:
    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        cluster.driver_processes[0].hangs = True
        cluster.driver_processes[0].num_asked = 1
        await asyncio.sleep(100.0)
        assert await ask(made) == 2

    story(told)


def test_an_embedded_cluster_ends_before_the_next_begins() -> None:
    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        cluster.driver_processes[0].pulse = Pulse("the head answers others, and not this process")
        await asyncio.sleep(20.0)
        assert await ask(made) == 2
        assert cluster.driver_processes[0].was_ended_at is not None

    story(told, None)


def test_a_question_has_its_time_and_no_more() -> None:
    async def told(cluster: Cluster, made: Connection) -> None:
        await made.open()
        cluster.driver_processes[0].seconds = 1000.0
        begun = asyncio.get_running_loop().time()
        assert await ask(made, 3.0) is Failure.DEADLINE
        assert asyncio.get_running_loop().time() - begun == pytest.approx(3.0, abs=0.01)

    story(told)


def test_half_an_hour_without_a_head_is_few_attempts_and_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Each attempt starts a process, so there is one every ten seconds at most."""

    async def told(cluster: Cluster, made: Connection) -> None:
        cluster.away = "nobody answers at head:6379"
        await made.open(wait=False)
        await asyncio.sleep(1800.0)
        assert 100 < cluster.num_attempts < 200

    story(told)
    assert 2 <= len(caplog.records) <= 30
