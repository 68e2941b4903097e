"""Whether a head's process reacts: the system alone accepts connections for a process that hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import pytest

from cluster.connection import handlers
from cluster.connection.handlers import Handlers
from cluster.node.addresses import greet, knock
from cluster.settings import load_settings


def _reacting(react: Callable[[socket.socket], None]) -> str:
    """What `greet` says of a server that treats its one visitor so."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            visitor, _ = server.accept()
            with visitor:
                react(visitor)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        said = greet("127.0.0.1", server.getsockname()[1], 5.0)
        thread.join(5.0)
    return said


@pytest.mark.parametrize(
    "react",
    [
        lambda visitor: visitor.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
        lambda visitor: visitor.sendall(b"\x15\x03\x01\x00\x02\x02\x46"),
        lambda visitor: None,
    ],
    ids=["settings", "an alert of TLS", "hangs up"],
)
def test_any_reaction_shows_that_the_process_is_well(react: Callable[[socket.socket], None]) -> None:
    assert _reacting(react) == ""


def test_a_process_that_hangs_does_not_react_although_its_connections_are_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert knock("127.0.0.1", port) == ""
        assert "does not react" in greet("127.0.0.1", port, 0.05)
    assert "refused" in greet("127.0.0.1", port, 0.5).lower()


@pytest.mark.parametrize(
    ("reaction", "stranded"), [("it does not react", ""), ("", "the head answers others")]
)
def test_a_driver_is_given_up_only_if_the_head_answers_others(
    reaction: str, stranded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that hangs for 15 s answers nobody: a new driver process would not be answered either."""
    now = [100.0]
    monkeypatch.setattr(handlers, "greet", lambda host, port: reaction)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made = Handlers(load_settings(cluster={"address": "head:6379"}), "head:6379")
    assert asyncio.run(made._why_unheard(TimeoutError())) == ""
    now[0] += 15.0
    assert asyncio.run(made._why_unheard(TimeoutError())).startswith(stranded)
    assert bool(asyncio.run(made._why_unheard(TimeoutError()))) is bool(stranded)
