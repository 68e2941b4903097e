"""When a client may be used: opened, closed, in another loop, after a fork. Each refusal is a sentence."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from actors.faces import Detected, Failure, State
from cluster.client.face_client import FaceClient
from cluster.errors import ClientNotUsable
from cluster.settings import load_settings
from tests.unit.clients import client_on, collected, inline_parts, photos
from tests.unit.fake_cluster import FakeCluster, health
from tests.virtual_time import VirtualTimeLoop, run

Use = Callable[[FaceClient], Coroutine[Any, Any, object]]


async def _detect(client: FaceClient) -> object:
    return await client.detect(photos(1))


async def _stream(client: FaceClient) -> object:
    return await collected(client.stream(photos(1)))


async def _health(client: FaceClient) -> object:
    return await client.health()


async def _status(client: FaceClient) -> object:
    return client.status()


every_use = pytest.mark.parametrize("use", [_detect, _stream, _health, _status])


def made(cluster: FakeCluster | None = None) -> FaceClient:
    return FaceClient(load_settings(), _parts=inline_parts(cluster or FakeCluster()))


def test_a_client_is_opened_by_async_with_and_closed_after_it() -> None:
    """aiohttp and httpx have the same usage."""

    async def story() -> None:
        cluster = FakeCluster()
        async with made(cluster) as client:
            (outcome,) = await client.detect(photos(1))
            assert isinstance(outcome, Detected)
        assert cluster.is_closed

    run(story())


def test_connect_gives_an_open_client_that_async_with_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Here(FaceClient):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options, _parts=inline_parts(cluster))

    cluster = FakeCluster()

    async def story() -> None:
        client = await Here.connect(load_settings())
        assert len(await client.detect(photos(2))) == 2
        async with client as same:
            assert same is client
        assert cluster.is_closed

    run(story())


@every_use
def test_before_it_is_opened_a_client_says_how_to_open_it(use: Use) -> None:
    async def story() -> None:
        client = made()
        assert client.paused == ""
        with pytest.raises(ClientNotUsable, match=r"not open yet.*async with.*FaceClient\.connect"):
            await use(client)

    run(story())


@every_use
def test_after_it_is_closed_a_client_says_so(use: Use) -> None:
    """A second close does no harm."""

    async def story() -> None:
        client = made()
        async with client:
            pass
        await client.close()
        assert client.paused == ""
        with pytest.raises(ClientNotUsable, match=r"closed\. Make a new one"):
            await use(client)
        with pytest.raises(ClientNotUsable, match=r"closed\. Make a new one"):
            async with client:
                pass

    run(story())


@every_use
def test_in_another_event_loop_a_client_says_so(use: Use) -> None:
    """Two calls of `asyncio.run` make two loops."""
    client = made()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as first, asyncio.Runner() as second:
        first.run(client.__aenter__())
        with pytest.raises(ClientNotUsable, match=r"another one or none.*BlockingFaceClient"):
            second.run(use(client))
        with pytest.raises(ClientNotUsable, match="another one or none"):
            second.run(client.close())
        with pytest.raises(ClientNotUsable, match="another one or none"):
            client.status()
        first.run(client.close())
        second.run(client.close())


@every_use
def test_after_a_fork_a_client_says_so(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with client_on(FakeCluster()) as client:
            with monkeypatch.context() as forked:
                forked.setattr(os, "getpid", lambda: 1)
                with pytest.raises(ClientNotUsable, match="before a fork"):
                    await use(client)

    run(story())


def test_closing_ends_the_calls_under_way() -> None:
    """The calls do not wait for their deadlines, and a stream does not go on."""

    async def story() -> None:
        loop, cluster = asyncio.get_running_loop(), FakeCluster(seconds=1000)
        async with client_on(cluster) as client:
            one = asyncio.create_task(client.detect(photos(1), deadline_s=900.0))
            other = asyncio.create_task(collected(client.stream(photos(100))))
            while cluster.under_way < 2:
                await asyncio.sleep(0.1)
            begun = loop.time()
        for call in (one, other):
            with pytest.raises(ClientNotUsable, match="closed while the call was under way"):
                await call
        assert loop.time() - begun < 1.0
        assert cluster.under_way == 0

    run(story())


def test_closing_ends_the_call_and_not_the_task_that_made_it() -> None:
    """`close` waits for no more of the task than the call."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1000)
        has_gone_on, may_end = asyncio.Event(), asyncio.Event()

        async def caller() -> str:
            with pytest.raises(ClientNotUsable, match="closed while"):
                await client.detect(photos(1), deadline_s=900.0)
            has_gone_on.set()
            await may_end.wait()
            return "its own end"

        async with client_on(cluster) as client:
            calling = asyncio.create_task(caller())
            while not cluster.under_way:
                await asyncio.sleep(0.1)
        await has_gone_on.wait()
        assert not calling.cancelling()
        may_end.set()
        assert await calling == "its own end"

    run(story())


def test_closing_ends_a_stream_that_waits_for_a_detector() -> None:
    """The pause might last an hour."""

    async def story() -> None:
        loop, cluster = asyncio.get_running_loop(), FakeCluster()
        cluster.healths["FaceDetector"] = health(
            state=State.FAULTY, detail="zeros", failure=Failure.DEVICE_LIES
        )
        async with client_on(cluster) as client:
            paused = asyncio.create_task(collected(client.stream(photos(100))))
            await asyncio.sleep(5.0)
            assert client.paused == "zeros"
            begun = loop.time()
        with pytest.raises(ClientNotUsable, match="closed while the call was under way"):
            await paused
        assert loop.time() - begun < 2.0

    run(story())


async def _closed_while_the_source_stalls(client: FaceClient, source: Any) -> None:
    """Read the one photo that the source gives, close the client, and see the stream end at once."""
    async with client:
        answers = client.stream(source)
        assert isinstance(await anext(answers), Detected)
        reader = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)
        await client.close()
        async with asyncio.timeout(5.0):
            with pytest.raises(ClientNotUsable, match="closed while the call was under way"):
                await reader


def test_closing_ends_a_stream_whose_source_stalls() -> None:
    """The stream has no call to cancel then."""

    async def source() -> AsyncIterator[Any]:
        yield photos(1)[0]
        await asyncio.sleep(1e6)

    run(_closed_while_the_source_stalls(made(), source()))


def test_closing_ends_a_stream_whose_source_blocks() -> None:
    """A plain source blocks a thread, so this is in a loop that a thread can wake."""
    blocks = threading.Event()

    def source() -> Iterator[Any]:
        yield photos(1)[0]
        blocks.wait()

    try:
        asyncio.run(_closed_while_the_source_stalls(made(), source()))
    finally:
        blocks.set()


def test_a_caller_that_is_cancelled_is_cancelled() -> None:
    """The caller does not get the message that the client was closed."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1000)
        async with client_on(cluster) as client:
            call = asyncio.create_task(client.detect(photos(1)))
            while not cluster.under_way:
                await asyncio.sleep(0.1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert cluster.under_way == 0

    run(story())


def test_what_was_opened_is_closed_when_opening_fails() -> None:
    """In this test no detector answers in time."""

    async def story() -> None:
        cluster = FakeCluster()
        cluster.is_away = True
        with pytest.raises(Exception, match="it was"):
            async with made(cluster):
                pass
        assert cluster.is_closed

    run(story())


def test_a_stream_that_is_dropped_leaves_no_call_behind() -> None:
    """The event loop closes the stream; no caller waits for that."""

    async def story() -> None:
        cluster = FakeCluster(seconds=1000)
        async with client_on(cluster) as client:
            answers = client.stream(photos(100))
            waiting = asyncio.ensure_future(anext(answers))
            while not cluster.under_way:
                await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            del answers, waiting
            await asyncio.sleep(1.0)
            assert cluster.under_way == 0

    run(story())
