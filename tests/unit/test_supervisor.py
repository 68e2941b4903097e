"""The supervisor of a node: starts again with growing pauses, and lets nothing behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.backoff import Backoff
from cluster.errors import ClusterUnavailable
from cluster.node import supervisor
from cluster.node.ray_start import Launch
from cluster.node.supervisor import NodeOutput, Supervisor
from tests.unit.fake_cluster import quiet

LAUNCH = Launch(("start",), {})


class _Node:
    """Ends by itself after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.ended = 0
        self.cannot_end: list[Exception] = []

    def exit_code(self) -> int | None:
        self.looks -= 1
        return 1 if self.looks < 0 else None

    def end(self, grace_s: float) -> list[str]:
        if self.cannot_end:
            raise self.cannot_end.pop()
        self.ended += 1
        return []


class _World:
    """Time that passes only where the supervisor waits."""

    def __init__(self, looks: list[int], stop_at_s: float) -> None:
        self.now = 0.0
        self.stop_at_s = stop_at_s
        self.nodes = [_Node(each) for each in looks]
        self.started: list[float] = []
        self.pauses: list[float] = []
        self.drained = 0
        self.cannot_start: list[Exception] = []
        self.keeper: Supervisor | None = None

    def start(self, launch: Launch) -> _Node:
        assert all(node.ended for node in self.nodes[: len(self.started)]), "a second node beside the first"
        if self.cannot_start:
            raise self.cannot_start.pop()
        self.started.append(self.now)
        return self.nodes[len(self.started) - 1]

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        if seconds != 0.5:
            self.pauses.append(seconds)
        if self.now >= self.stop_at_s and self.keeper:
            self.keeper.stop()
        return False

    def drain(self) -> None:
        self.drained += 1

    def run(self, may_start: Callable[[], None] = lambda: None, **how: Any) -> None:
        how.setdefault("drain", self.drain)
        self.keeper = Supervisor(
            lambda: LAUNCH,
            self.start,
            logging.getLogger("rayface.test"),
            may_start=may_start,
            **how,
            backoff=Backoff(jitter=lambda: 1.0),
            clock=lambda: self.now,
            wait=self.wait,
        )
        self.keeper.run()


def test_a_node_that_ends_is_started_again_and_its_remains_are_ended() -> None:
    world = _World([3, 3, 10_000], stop_at_s=60.0)
    world.run()
    assert len(world.started) == 3
    assert [node.ended for node in world.nodes] == [1, 1, 1]
    assert world.pauses == [1.0, 2.0]


def test_only_a_node_that_lives_is_drained() -> None:
    alive = _World([10_000], stop_at_s=5.0)
    alive.run()
    assert alive.drained == 1
    dead = _World([0, 0, 0, 0, 0, 0], stop_at_s=5.0)
    dead.run()
    assert dead.drained == 0


def test_whoever_asks_is_told_of_each_node_that_is_gone_except_at_the_end() -> None:
    world = _World([3, 10_000, 10_000], stop_at_s=60.0)
    gone: list[int] = []

    def note(_: Launch) -> None:
        number = len(gone)
        assert world.nodes[number].ended, "told before it was gone"
        gone.append(number)

    def changed(_: Launch) -> bool:
        return len(world.started) == 2 and world.now > 20

    world.run(gone=note, changed=changed)
    # The first ended by itself, the second because the address changed, the third at the end.
    assert len(world.started) == 3
    assert gone == [0, 1]


def test_a_head_that_is_away_is_waited_for() -> None:
    world = _World([10_000], stop_at_s=40.0)

    def refuse() -> None:
        if world.now < 10:
            raise ClusterUnavailable("away")

    world.run(refuse)
    assert len(world.started) == 1
    assert world.started[0] >= 10


def test_half_an_hour_without_a_head_is_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """It goes on trying every half minute, and says so less and less."""
    world = _World([], 1800.0)
    attempts = 0

    def may_start() -> None:
        nonlocal attempts
        attempts += 1
        raise ClusterUnavailable("The head at ray-head:6379 does not answer: Connection refused")

    world.keeper = Supervisor(
        lambda: LAUNCH,
        world.start,
        quiet(lambda: world.now),
        may_start=may_start,
        clock=lambda: world.now,
        wait=world.wait,
    )
    world.keeper.run()
    assert attempts > 50
    assert 5 <= len(caplog.records) <= 50


UNFORESEEN = [OSError("no more processes"), ZeroDivisionError("no number")]


@pytest.mark.parametrize("error", UNFORESEEN, ids=repr)
def test_an_unforeseen_error_at_a_start_is_told_and_the_next_start_comes(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    world = _World([10_000], stop_at_s=40.0)
    world.cannot_start = [error] * 3
    world.run()
    assert len(world.started) == 1
    assert world.pauses == [1.0, 2.0, 4.0]
    assert "Keeping Ray's node up failed with an error that was not foreseen" in caplog.text
    assert str(error) in caplog.text
    assert world.nodes[0].ended == 1


@pytest.mark.parametrize("error", UNFORESEEN, ids=repr)
def test_an_unforeseen_error_while_watching_costs_one_node(error: Exception) -> None:
    world = _World([10_000, 10_000], stop_at_s=40.0)

    def changed(launch: Launch) -> bool:
        if len(world.started) == 1:
            raise error
        return False

    world.run(changed=changed)
    assert len(world.started) == 2
    assert [node.ended for node in world.nodes] == [1, 1]


def test_a_node_that_cannot_be_ended_has_no_other_beside_it() -> None:
    """The system refuses twice to end it; only then does the next start come."""
    world = _World([0, 10_000], stop_at_s=40.0)
    world.nodes[0].cannot_end = [*UNFORESEEN]
    world.run()
    assert len(world.started) == 2
    assert [node.ended for node in world.nodes] == [1, 1]


def test_a_drain_that_fails_leaves_no_node() -> None:
    world = _World([10_000], stop_at_s=5.0)

    def drain() -> None:
        raise OSError("no space left for the note")

    world.run(drain=drain)
    assert world.nodes[0].ended == 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 19), min_size=1, max_size=20), st.floats(0, 1))
def test_pauses_grow_to_a_limit_and_jitter_stays_inside(lives: list[float], jitter: float) -> None:
    backoff = Backoff(jitter=lambda: jitter)
    steps = [min(30.0, 2.0**number) for number in range(len(lives))]
    for lived_s, step in zip(lives, steps, strict=True):
        pause_s = backoff.pause_s(lived_s)
        assert step / 2 <= pause_s <= step
    assert backoff.pause_s(20.0) <= 1.0


def test_a_node_is_said_to_be_up_once_after_each_start_and_only_when_it_is() -> None:
    world = _World([6, 6, 10_000], stop_at_s=60.0)
    said: list[float] = []
    # The second start never comes up.
    world.run(
        is_up=lambda launch: len(world.started) != 2 and world.now > world.started[-1] + 1.0,
        on_up=lambda: said.append(world.now - world.started[-1]),
    )
    assert said == [1.5, 1.5]


def test_only_the_latest_start_says_whether_the_node_has_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "join-ray.log"
    path.write_text("Ray runtime started.\n")
    knocked: list[tuple[str, int]] = []
    problems = ["Connection refused", ""]

    def knock(host: str, port: int, timeout_s: float) -> str:
        knocked.append((host, port))
        return problems.pop(0)

    def no_process(command: Any, environment: Any, file: Any) -> None:
        file.write(b"Local node IP: 10.0.0.2\n")

    monkeypatch.setattr(supervisor, "knock", knock)
    monkeypatch.setattr(supervisor, "ProcessTree", no_process)
    output = NodeOutput(path)
    launch = Launch(("start", "--block", "--node-ip-address=10.0.0.2", "--node-manager-port=7386"), {})
    output.start(launch)
    assert not output.is_up(launch)
    with path.open("a") as file:
        file.write("Ray runtime started.\n")
    # The raylet may have ended while `ray start` still says that all is well.
    assert not output.is_up(launch)
    assert output.is_up(launch)
    assert knocked == [("10.0.0.2", 7386)] * 2
