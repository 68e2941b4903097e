"""The driver process as the backend sees it, with a small program in place of the real one: no Ray."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from cluster.connection import driver_process
from cluster.connection.driver_process import DriverProcess
from cluster.errors import ClusterUnavailable, NotAnswered
from cluster.settings import load_settings

JOINS = """
import pickle, sys; sys.path[:] = {path!r}
from cluster.connection.messages import Joined
pickle.load(sys.stdin.buffer)
pickle.dump(Joined("here:1"), sys.stdout.buffer)
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
"""
#: The beginning of a pickle of a class that does not exist; pickle raises an AttributeError.
SAYS_NONSENSE = """
import sys; sys.path[:] = {path!r}
sys.stdout.buffer.write(b"ccluster.connection.messages\\nNoSuchMessage\\n.")
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
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
    with pytest.raises(ClusterUnavailable, match="did not get so far"):
        asyncio.run(asyncio.wait_for(DriverProcess.start(load_settings()), 30))


def test_a_question_that_cannot_be_sent_leaves_nobody_waiting(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipe is out of step then: the process ends, all questions are answered, and the error is shown."""
    program(JOINS)
    shown: list[BaseException | None] = []
    monkeypatch.setattr("threading.excepthook", lambda how: shown.append(how.exc_value))

    async def story() -> None:
        made = await DriverProcess.start(load_settings())
        asking = (made.ask("health", (argument,), 30.0) for argument in ("a", lambda: "no pickle"))
        for answer in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(answer, NotAnswered)
            assert "was lost" in str(answer)
        assert "ended" in await made.ended
        await made.end()

    asyncio.run(story())
    assert "pickle" in repr(shown)
