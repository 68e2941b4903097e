"""A scan's photos are made small on other machines while this one's threads are busy, and else here."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from actors.errors import ImageFault
from actors.faces import Failed, Failure, Priority, Rejected, Rejection
from actors.images import Limits, prepare
from cluster.client.call import Call
from cluster.client.cluster_preparing import ClusterPreparing
from cluster.client.preprocessing import Preprocessor
from cluster.connection.cluster_api import Node
from cluster.protocol.rows import PrepareOrder
from cluster.settings import load_settings
from tests.unit.clients import InlineThreads
from tests.unit.fake_cluster import FakeCluster, health, quiet
from tests.virtual_time import run

PHOTO = Path(__file__).parents[1] / "photos" / "astronaut.jpg"
ORDER = PrepareOrder(((64, 64),), Limits(10_000_000, 10_000_000), 2.0)


class BusyThreads(InlineThreads):
    """Threads that never begin their work, so that all of them are busy after the first photo."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


def node(node_id: str, address: str, num_cpus: float) -> Node:
    return Node(node_id, address, node_id, {"CPU": num_cpus})


def cluster_of(*nodes: Node) -> FakeCluster:
    """A cluster with these machines; the client's own is "aa" at 10.0.0.1."""
    cluster = FakeCluster()
    cluster.node_list = [node("aa", "10.0.0.1", 8), *nodes]
    return cluster


async def preparing_on(cluster: FakeCluster) -> ClusterPreparing:
    clock = asyncio.get_running_loop().time
    preparing = ClusterPreparing(cluster, quiet(clock), clock, InlineThreads)
    await preparing.look()
    return preparing


def preprocessor(elsewhere: ClusterPreparing, threads: type[InlineThreads]) -> Preprocessor:
    settings = load_settings(client={"num_prepare_threads": 1})
    return Preprocessor(settings, health, threads, elsewhere=elsewhere, shapes=lambda: health().shapes)


def bulk(*sources: Any, seconds: float = 5.0) -> Call:
    return Call.of(sources, Priority.BULK, asyncio.get_running_loop().time() + seconds)


def test_only_other_machines_with_cpus_are_used_and_none_gets_more_than_it_has() -> None:
    async def whole() -> None:
        cluster = cluster_of(node("bb", "b", 2), node("cc", "c", 0), node("dd", "d", 1))
        preparing = await preparing_on(cluster)
        assert [preparing.take_cpu() for _ in range(4)] == ["bb", "bb", "dd", None]
        await preparing.prepare("bb", PHOTO, ORDER, asyncio.get_running_loop().time() + 5)
        assert preparing.take_cpu() == "bb", "a CPU is free again after its photo"

    run(whole())


def test_a_scan_uses_other_machines_while_its_own_threads_are_busy() -> None:
    async def whole() -> None:
        cluster = cluster_of(node("bb", "10.0.0.2", 1))
        prepares = preprocessor(await preparing_on(cluster), BusyThreads)
        call = bulk(PHOTO, PHOTO.read_bytes())
        await prepares.prepare(call)
        assert cluster.prepared_on == ["bb"]
        here, there = call.images
        assert here.outcome is not None, "the thread that never began has missed the deadline"
        assert there.photo is not None
        assert there.photo.shape == (64, 64)

    run(whole())


def test_a_persons_photo_and_pixels_are_made_small_here() -> None:
    async def whole() -> None:
        cluster = cluster_of(node("bb", "10.0.0.2", 1))
        prepares = preprocessor(await preparing_on(cluster), BusyThreads)
        until = asyncio.get_running_loop().time() + 1
        await prepares.prepare(Call.of([PHOTO, PHOTO], Priority.INTERACTIVE, until))
        assert cluster.prepared_on == []

    run(whole())


def test_a_photo_that_cannot_be_used_is_rejected_as_it_is_here() -> None:
    async def whole() -> None:
        cluster = cluster_of(node("bb", "10.0.0.2", 1))
        prepares = preprocessor(await preparing_on(cluster), BusyThreads)
        call = bulk(PHOTO, b"no photo")
        await prepares.prepare(call)
        outcome = call.images[1].outcome
        assert isinstance(outcome, Rejected)
        with pytest.raises(ImageFault) as here:
            prepare(b"no photo", ORDER.shapes, ORDER.limits, ORDER.max_enlargement)
        assert (outcome.reason, outcome.detail) == (here.value.reason, here.value.detail)
        assert outcome.reason is Rejection.NOT_AN_IMAGE

    run(whole())


def test_a_machine_that_does_not_answer_costs_no_photo_and_gets_no_more() -> None:
    async def whole() -> None:
        cluster = cluster_of(node("bb", "10.0.0.2", 2))
        preparing = await preparing_on(cluster)
        cluster.prepares = asyncio.Event()
        taken = preparing.take_cpu()
        assert taken == "bb"
        until = asyncio.get_running_loop().time() + 3
        assert await preparing.prepare(taken, PHOTO, ORDER, until) is None
        assert asyncio.get_running_loop().time() == pytest.approx(until, abs=0.1)
        assert preparing.take_cpu() is None
        await preparing.look()
        assert preparing.take_cpu() == "bb"

    run(whole())


def test_what_cannot_travel_is_made_small_here(tmp_path: Path) -> None:
    """A missing file gets its reason from preparing it here."""

    async def whole() -> None:
        cluster = cluster_of(node("bb", "10.0.0.2", 8))
        preparing = await preparing_on(cluster)
        until = asyncio.get_running_loop().time() + 3
        for source in (tmp_path / "missing.jpg", tmp_path, bytes(10_000_001)):
            assert await preparing.prepare("bb", source, ORDER, until) is None
        assert cluster.prepared_on == []

    run(whole())


class HungReads(InlineThreads):
    """Threads whose reads never end, as those of a network disk that is away."""

    def __init__(self, num_threads: int, name: str) -> None:
        super().__init__(num_threads, name)
        self.hung: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        hung: Future[Any] = Future()
        hung.set_running_or_notify_cancel()
        self.hung.append(hung)
        return hung


def test_a_file_that_cannot_be_read_in_time_costs_the_call_no_more_than_its_time() -> None:
    """Its CPU is free again, and photos after it are not kept waiting."""

    async def whole() -> None:
        cluster, clock = cluster_of(node("bb", "10.0.0.2", 8)), asyncio.get_running_loop().time
        preparing = ClusterPreparing(cluster, quiet(clock), clock, HungReads)
        await preparing.look()
        prepares = preprocessor(preparing, BusyThreads)
        call = bulk(*6 * [PHOTO], seconds=3.0)
        begun = clock()
        await prepares.prepare(call)
        assert clock() - begun == pytest.approx(3.0, abs=0.1)
        reasons = [image.outcome.reason for image in call.images if isinstance(image.outcome, Failed)]
        assert reasons == 6 * [Failure.DEADLINE]
        assert [preparing.take_cpu() for _ in range(9)] == [*8 * ["bb"], None]
        assert await preparing.prepare("bb", PHOTO, ORDER, clock() + 3) is None, "all readers hang"
        assert await preparing.prepare("bb", PHOTO.read_bytes(), ORDER, clock() + 3) is not None

    run(whole())


def test_a_read_that_ends_after_the_program_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Its event loop is closed by then."""
    made: list[HungReads] = []

    def threads(num_threads: int, name: str) -> HungReads:
        made.append(HungReads(num_threads, name))
        return made[-1]

    async def whole() -> None:
        clock = asyncio.get_running_loop().time
        preparing = ClusterPreparing(cluster_of(node("bb", "10.0.0.2", 1)), quiet(clock), clock, threads)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(preparing.prepare("bb", PHOTO, ORDER, clock() + 1), 1.0)

    run(whole())
    made[0].hung[0].set_result(b"")
    assert caplog.text == ""
