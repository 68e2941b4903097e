"""The driver process as the backend sees it, with a small program in place of the real one: no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.faces import Failure
from cluster import ray_internals
from cluster.connection import driver_process
from cluster.connection.driver_process import DriverProcess
from cluster.errors import ClusterUnavailable, NotAnswered
from cluster.ray_internals import NodePorts
from cluster.settings import load_settings

JOINS = """
import pickle, sys; sys.path[:] = {path!r}
from cluster.connection.messages import Channel, Joined
Channel(sys.stdin.buffer, sys.stdout.buffer).check_greeting()
pickle.load(sys.stdin.buffer)
pickle.dump(Joined("here:1"), sys.stdout.buffer)
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
"""
#: The driver process of a rayface that was put in place of ours while this program ran.
OF_ANOTHER_VERSION = """
import sys; sys.path[:] = {path!r}
from cluster.connection import messages
messages._greeting = lambda: b"another".ljust(64)
from cluster.connection.driver import main
main()
"""
#: The beginning of a pickle of a class that does not exist; pickle raises an AttributeError.
SAYS_NONSENSE = """
import sys; sys.path[:] = {path!r}
sys.stdout.buffer.write(b"ccluster.connection.messages\\nNoSuchMessage\\n.")
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
"""
#: As Ray's core ends a driver for which its node has no port.
FINDS_NO_PORT = """
import sys; {path!r}
sys.stderr.write("Failed to register worker to Raylet: Invalid: No available ports. Please specify\\n")
sys.exit(1)
"""
REFUSES = """
import pickle, sys; sys.path[:] = {path!r}
from cluster.connection.messages import NotJoined
pickle.load(sys.stdin.buffer)
pickle.dump(NotJoined("nobody answers"), sys.stdout.buffer)
sys.stdout.buffer.flush()
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what the driver process runs; it is killed at once where it does not end."""
    monkeypatch.setattr(driver_process, "_END_WITHIN_S", 0.05)
    return lambda text: monkeypatch.setattr(driver_process, "_PROGRAM", text)


def test_a_process_that_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    with pytest.raises(ClusterUnavailable, match=r"could not be started: .*temporarily unavailable.*memory"):
        asyncio.run(DriverProcess.start(load_settings()))


def test_a_process_that_says_what_cannot_be_read_is_ended(program: Callable[[str], None]) -> None:
    """And whoever waits for it to join is told."""
    program(SAYS_NONSENSE)
    with pytest.raises(
        ClusterUnavailable, match=r"ended before it had joined.*cannot be read.*NoSuchMessage"
    ):
        asyncio.run(asyncio.wait_for(DriverProcess.start(load_settings()), 30))


def test_an_upgrade_under_a_program_that_runs_is_said(program: Callable[[str], None]) -> None:
    """Nothing is read of the other one's messages, which are pickled."""
    program(OF_ANOTHER_VERSION)
    with pytest.raises(ClusterUnavailable, match=r"was changed.*version_skew.*Restart the program"):
        asyncio.run(asyncio.wait_for(DriverProcess.start(load_settings()), 60))


def test_a_question_that_cannot_be_sent_is_answered_with_the_reason(program: Callable[[str], None]) -> None:
    """Nothing of it was sent, so other questions still wait for their answers."""
    program(JOINS)

    async def story() -> None:
        made = await DriverProcess.start(load_settings())
        waiting = asyncio.create_task(made.ask("health", ("a",), 30.0))
        with pytest.raises(NotAnswered, match=r"'health' cannot be sent.*local object") as unanswered:
            await made.ask("health", (lambda: "no pickle",), 30.0)
        assert unanswered.value.failure is Failure.INTERNAL
        assert not waiting.done()
        assert not made.ended.done()
        await made.end()
        with pytest.raises(NotAnswered, match="was lost"):
            await waiting

    asyncio.run(story())


@contextlib.contextmanager
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="lists a process's descriptors by /proc")
@pytest.mark.parametrize("text", [REFUSES, SAYS_NONSENSE, "import sys; {path!r}; sys.exit(1)"])
def test_processes_that_did_not_join_leave_no_descriptor(program: Callable[[str], None], text: str) -> None:
    program(text)

    async def story() -> None:
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            with pytest.raises(ClusterUnavailable):
                await asyncio.wait_for(DriverProcess.start(load_settings()), 30)
            assert len(os.listdir("/proc/self/fd")) == len(before)

    with no_garbage_collector():
        asyncio.run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="lists a process's descriptors by /proc")
def test_a_process_for_which_there_are_no_threads_leaves_no_descriptor(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    program(JOINS)
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name.startswith("driver-process"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)

    async def story() -> None:
        # The first thread that asyncio starts stays.
        await asyncio.to_thread(lambda: None)
        before = os.listdir("/proc/self/fd")
        with pytest.raises(RuntimeError, match="new thread"):
            await DriverProcess.start(load_settings())
        assert len(os.listdir("/proc/self/fd")) == len(before)

    with no_garbage_collector():
        asyncio.run(story())


def test_a_start_that_nobody_waits_for_prints_nothing(program: Callable[[str], None]) -> None:
    """Python prints the error of a future that nobody asked for, when the future is gone."""
    program(REFUSES)
    printed: list[dict[str, Any]] = []

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: printed.append(context))
        starting = asyncio.create_task(DriverProcess.start(load_settings()))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        del starting
        # The threads tell the loop how the process ended.
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(story())
    gc.collect()
    assert printed == []


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        (
            NodePorts(10002, 10021, True, 17),
            r"all 20 \(10002-10021\) are taken, 17 .* head.num_worker_ports,",
        ),
        (NodePorts(11002, 11021, False, 3), r"3 of them by clients.* join.num_worker_ports,"),
        (None, r"all of them are taken.* head.num_worker_ports \(join"),
    ],
)
def test_a_cluster_without_room_for_another_client_names_the_setting(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, ports: NodePorts | None, said: str
) -> None:
    program(FINDS_NO_PORT)
    monkeypatch.setattr(ray_internals, "node_ports", lambda address: ports)
    with pytest.raises(ClusterUnavailable, match=f"no room for another client.*{said}"):
        asyncio.run(asyncio.wait_for(DriverProcess.start(load_settings()), 30))
