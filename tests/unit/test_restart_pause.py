"""A detector whose processes end right after their starts is started less and less often."""

from __future__ import annotations

import pytest

from cluster.deployment.restart_pause import pause_after, pause_before_start


class World:
    """A store, and time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.values: dict[str, bytes] = {}
        self.is_away = False

    def get(self, key: str) -> bytes | None:
        if self.is_away:
            raise ConnectionError("the head is away")
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> bool:
        self.values[key] = value
        return True

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def start(self, life_s: float) -> float:
        """The pause of one process that lives so long; Ray starts the next one a second later."""
        pause_s = pause_before_start("FaceDetector", self, lambda: self.now, self.sleep)
        self.now += life_s + 1.0
        return pause_s


def test_processes_that_end_at_once_are_started_less_and_less_often() -> None:
    world = World()
    assert [world.start(0.5) for _ in range(11)] == [0, 0, 0, 0, 2, 4, 8, 16, 30, 30, 30]
    # One that lives ends the row; the kill of a working detector is no such end.
    assert [world.start(60.0) for _ in range(3)] == [30, 0, 0]
    assert len(world.values) == 1


def test_kills_of_a_working_detector_cost_no_pause() -> None:
    world = World()
    assert [world.start(10.0) for _ in range(20)] == [0] * 20


@pytest.mark.parametrize("value", [b"nonsense", b"[]", b'["a", "b"]', b"{}", b"[1e999, 0]"])
def test_what_cannot_be_read_is_no_pause(value: bytes) -> None:
    world = World()
    world.values["starts/FaceDetector"] = value
    assert world.start(0.0) == 0


def test_a_head_that_is_away_and_a_clock_that_went_back_are_no_pause() -> None:
    world = World()
    world.is_away = True
    assert world.start(0.0) == 0
    world.is_away = False
    for _ in range(6):
        world.start(0.0)
    world.now -= 3600.0
    assert world.start(0.0) == 0
    assert pause_after(10**6) == 30
