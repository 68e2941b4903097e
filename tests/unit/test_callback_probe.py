"""The way back, tried from the head's side, through a key-value store that both can reach."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from cluster.deployment import callback_probe
from cluster.ray_internals import KeyValueStore
from tests.unit.fake_head import FakeHead


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_an_open_and_a_closed_port_are_told_apart_and_nothing_is_left() -> None:
    head = FakeHead()
    store = KeyValueStore(head, 5.0)
    head.kept[b"CLUSTER_METADATA"] = b'{"ray_version": "2.60.0", "python_version": "3.11.7"}'

    def at_the_door(_: float) -> None:
        callback_probe.answer_requests(store, {})

    closed = _free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        answer: dict[str, Any] = callback_probe.ask(store, "127.0.0.1", [port, closed], sleep=at_the_door)
    assert answer["ray_version"] == "2.60.0"
    assert answer["visited"] == {str(port): "", str(closed): "Connection refused"}
    assert set(head.kept) == {b"CLUSTER_METADATA"}


def test_an_answer_that_nobody_came_for_is_taken_away() -> None:
    """The time is read from the callback probe's own clock."""
    head, answered, now = FakeHead(), dict[str, float](), [0.0]
    store = KeyValueStore(head, 5.0)
    head.kept[b"visit/x"] = json.dumps({"host": "127.0.0.1", "ports": [_free_port()]}).encode()
    assert callback_probe.answer_requests(store, answered, lambda: now[0]) == 1
    assert list(head.kept) == [b"visited/x"]
    now[0] = 61.0
    assert callback_probe.answer_requests(store, answered, lambda: now[0]) == 0
    assert (head.kept, answered) == ({}, {})


@pytest.mark.parametrize(
    "bad", [b"{", b"[1]", b"{}", b'{"host": "h", "ports": null}', b'{"host": "h", "ports": ["x"]}', b"\xff"]
)
def test_a_request_that_cannot_be_read_costs_the_others_nothing(
    bad: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is deleted, with a line in the probe's log."""
    head = FakeHead()
    store = KeyValueStore(head, 5.0)
    head.kept[b"visit/bad"] = bad
    head.kept[b"visit/good"] = json.dumps({"host": "127.0.0.1", "ports": [_free_port()]}).encode()
    callback_probe.answer_requests(store, {})
    assert list(head.kept) == [b"visited/good"]
    assert "cannot be read" in capsys.readouterr().err


def test_versions_alone_need_no_callback_probe() -> None:
    answer = callback_probe.ask(KeyValueStore(FakeHead(), 5.0), "h", [])
    assert answer == {
        "ray_version": "",
        "python_version": "",
        "rayface": None,
        "visited": None,
        "clock_skew_s": None,
        "placed": {},
    }


def test_clocks_are_compared_however_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    head = FakeHead()
    store = KeyValueStore(head, 5.0)
    real = time.time

    def at_the_door(_: float) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() - 7200)
            callback_probe.answer_requests(store, {})

    answer = callback_probe.ask(store, "127.0.0.1", [_free_port()], sleep=at_the_door)
    assert answer["clock_skew_s"] == pytest.approx(7200, abs=2)
