"""When the keeper of a local cluster ends it, and what counts as use."""

from __future__ import annotations

import os
import socket

from cluster.deployment.keeper import has_users, wait_for_end


class Story:
    """A clock that each wait advances, and what happens at which second."""

    def __init__(self, *, asked_at: float = 1e9, ended_at: float = 1e9, used_until: float = 0.0) -> None:
        self.now = 0.0
        self._asked_at, self._ended_at, self._used_until = asked_at, ended_at, used_until

    def run(self, idle_s: float) -> str:
        def wait(seconds: float) -> None:
            self.now += seconds

        return wait_for_end(
            idle_s,
            is_asked=lambda: self.now >= self._asked_at,
            has_users=lambda: self.now <= self._used_until,
            why_ended=lambda: "its raylet ended" if self.now >= self._ended_at else "",
            clock=lambda: self.now,
            wait=wait,
        )


def test_it_ends_when_nobody_has_used_it_for_so_long() -> None:
    story = Story(used_until=1000.0)
    assert story.run(600.0) == "no program has used it for 10 minutes"
    assert 1600.0 - 15.0 <= story.now <= 1600.0 + 15.0


def test_without_a_limit_it_stays_until_it_is_asked() -> None:
    story = Story(asked_at=1_000_000.0)
    assert story.run(0.0) == "it was asked to"
    assert story.now == 1_000_000.0


def test_it_ends_with_its_ray() -> None:
    assert Story(ended_at=7.0).run(600.0) == "its raylet ended"


def test_a_connection_to_the_head_from_outside_is_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        assert not has_users(port, ())
        with socket.create_connection(("127.0.0.1", port)):
            assert has_users(port, ())
            assert not has_users(port, {os.getpid()})
