"""The client without `await`: no thread waits for ever, whatever is dropped, closed or collected."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest

from actors.faces import Detected, Outcome
from cluster.client.blocking import BlockingFaceClient
from cluster.errors import ClientNotUsable, DetectorNotReady
from cluster.settings import load_settings
from tests.unit.clients import inline_parts, photo, photos
from tests.unit.fake_cluster import FakeCluster, lost

Value = TypeVar("Value")
#: Longer than anything here takes; a test that hangs fails after this time.
_LONG_S = 20.0


def within(work: Callable[[], Value]) -> Value:
    """Run the work in a thread of its own and return the result; fail if it hangs."""
    done: concurrent.futures.Future[Value] = concurrent.futures.Future()

    def do() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return done.result(_LONG_S)


def made(cluster: FakeCluster) -> BlockingFaceClient:
    settings = load_settings(client={"images_per_call": 2, "max_calls_in_flight": 2})
    return BlockingFaceClient(settings, _parts=inline_parts(cluster))


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def client(cluster: FakeCluster) -> Iterator[BlockingFaceClient]:
    client = made(cluster)
    yield client
    within(client.close)


def in_the_clients_thread(client: BlockingFaceClient, work: Callable[[], Value]) -> Value:
    """Do the work in the client's thread, as the garbage collector may."""

    async def do() -> Value:
        return work()

    return asyncio.run_coroutine_threadsafe(do(), client._loop).result(_LONG_S)


def test_it_answers_and_is_closed_after_its_block(cluster: FakeCluster) -> None:
    with made(cluster) as client:
        assert [type(each) for each in client.detect(photos(3))] == [Detected] * 3
        assert len(list(client.stream(photo(n) for n in range(1, 8)))) == 7
        assert client.health().name == "FaceDetector"
        assert client.status().address == "here:1"
        assert client.paused == ""
    assert cluster.is_closed


class OnlyTheFirstCall(FakeCluster):
    """Answers the first call at once, and those after it never."""

    async def detect(self, *call: Any, **options: Any) -> list[Outcome]:
        if self.calls:
            self.seconds = 1000
        return await super().detect(*call, **options)


class Job:
    """Is left by an exception that it holds: error, traceback, frame, stream and job are a cycle."""

    def run(self, client: BlockingFaceClient) -> None:
        try:
            outcomes = client.stream([photo(1)] * 12)
            for _ in outcomes:
                raise ValueError("the backend could not save the row")
        except ValueError as error:
            self.error = error


def test_a_stream_in_a_cycle_may_be_collected_in_the_clients_own_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its finalizer must not wait for the loop that it stands on, and closes the stream once."""
    cluster = OnlyTheFirstCall()
    client = made(cluster)
    gc.disable()
    try:
        within(lambda: Job().run(client))
        in_the_clients_thread(client, gc.collect)
    finally:
        gc.enable()
    within(lambda: _until(lambda: cluster.under_way == 0))
    cluster.seconds = 0
    within(client.status)
    within(client.close)
    gc.collect()
    assert [each.getMessage() for each in caplog.records if each.name == "asyncio"] == []


def test_who_leaves_a_stream_leaves_no_call_behind(client: BlockingFaceClient, cluster: FakeCluster) -> None:
    """The caller does not wait for the calls to end."""
    cluster.seconds = 0.001

    def leave() -> None:
        answers = client.stream(photo(1 + n) for n in range(1000))
        next(answers)
        cluster.seconds = 1000
        answers.close()

    within(leave)
    within(lambda: _until(lambda: cluster.under_way == 0))


def test_a_client_is_closed_with_streams_that_were_just_left(caplog: pytest.LogCaptureFixture) -> None:
    """A stream closes its own generators; the end of the event loop must not close them meanwhile."""

    def close_just_then(client: BlockingFaceClient, cluster: FakeCluster) -> None:
        while cluster.under_way:
            # The calls have ended, and the stream is about to.
            pass
        client.close()

    for _ in range(60):
        cluster = FakeCluster(seconds=0.001)
        client = made(cluster)
        answers = client.stream(photo(1 + n) for n in range(1000))
        next(answers)
        cluster.seconds = 1000
        answers.close()
        within(partial(close_just_then, client, cluster))
    assert [each.getMessage() for each in caplog.records if each.name == "asyncio"] == []


@pytest.mark.parametrize("collected_in", ["the client's thread", "another thread"])
def test_a_finalizer_may_close_the_client(cluster: FakeCluster, collected_in: str) -> None:
    """The finalizer belongs to an object that holds the client and is garbage."""
    client = made(cluster)

    class Backend:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            client.close()

    gc.disable()
    try:
        Backend()
        if collected_in == "another thread":
            within(gc.collect)
        else:
            in_the_clients_thread(client, gc.collect)
    finally:
        gc.enable()
    within(client._thread.join)
    assert cluster.is_closed


def test_in_its_own_thread_a_client_does_not_wait_for_itself(client: BlockingFaceClient) -> None:
    for use in (
        lambda: client.detect(photos(1)),
        client.status,
        client.health,
        lambda: list(client.stream([])),
    ):
        with pytest.raises(ClientNotUsable, match=r"in its own thread.*another thread"):
            in_the_clients_thread(client, use)


def test_a_closed_client_says_so_and_may_be_closed_again(cluster: FakeCluster) -> None:
    client = made(cluster)
    answers = client.stream(photos(1))
    within(client.close)
    within(client.close)
    assert client.paused == ""
    uses: list[Callable[[], Any]] = [
        lambda: client.detect(photos(1)),
        lambda: client.stream(photos(1)),
        lambda: next(answers),
        client.health,
        client.status,
        client.__enter__,
    ]
    for use in uses:
        with pytest.raises(ClientNotUsable, match=r"closed\. Make a new one"):
            within(use)


def test_closing_wakes_the_threads_that_wait(cluster: FakeCluster) -> None:
    """The threads may wait for an answer, or for a source that stalls."""
    cluster.seconds = 1000
    client = made(cluster)
    stalled = threading.Event()

    def source() -> Iterator[Any]:
        yield from ()
        stalled.wait()

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        waiting = [
            threads.submit(client.detect, photos(1)),
            threads.submit(lambda: list(client.stream(photos(10)))),
            threads.submit(lambda: list(client.stream(source()))),
        ]
        within(lambda: _until(lambda: cluster.under_way == 3))
        within(client.close)
        for each in waiting:
            with pytest.raises(ClientNotUsable, match="closed"):
                each.result(_LONG_S)
    stalled.set()


def test_a_forked_process_is_told_to_make_its_own(
    client: BlockingFaceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's thread does not exist in the forked process; closing does nothing there."""
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 1)
        with pytest.raises(ClientNotUsable, match="before a fork"):
            client.detect(photos(1))
        with pytest.raises(ClientNotUsable, match="before a fork"):
            client.stream(photos(1))
        within(client.close)
    assert len(within(lambda: client.detect(photos(1)))) == 1


def test_an_interrupted_call_is_cancelled(
    client: BlockingFaceClient, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl+C while a thread waits cancels the detector's work; the client stays usable."""

    def interrupted(futures: Any, **options: Any) -> Any:
        _until(lambda: cluster.under_way == 1)
        raise KeyboardInterrupt

    cluster.seconds = 1000
    for call in (lambda: client.detect(photos(1)), lambda: next(client.stream(photos(1)))):
        with monkeypatch.context() as pressed:
            pressed.setattr(concurrent.futures, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                within(call)
        within(lambda: _until(lambda: cluster.under_way == 0))
    cluster.seconds = 0
    assert len(within(lambda: client.detect(photos(1)))) == 1


def test_no_detector_is_said_and_leaves_no_thread() -> None:
    cluster = FakeCluster()
    cluster.is_away = True
    before = threading.active_count()
    with pytest.raises(DetectorNotReady, match=str(lost())):
        made(cluster)
    assert threading.active_count() == before
    assert cluster.is_closed


def test_a_source_that_exits_ends_its_stream_and_not_the_client(client: BlockingFaceClient) -> None:
    """`sys.exit` in the source would end the event loop of every other call."""

    def source() -> Iterator[Any]:
        yield photo(1)
        raise SystemExit(3)

    answers = client.stream(source())
    assert isinstance(within(lambda: next(answers)), Detected)
    with pytest.raises(RuntimeError, match="SystemExit"):
        within(lambda: next(answers))
    assert len(within(lambda: client.detect(photos(1)))) == 1


def _until(condition: Callable[[], bool]) -> None:
    """Wait without a sleep: the condition comes true in another thread."""
    turn = threading.Event()
    while not condition():
        turn.wait(0.005)
