"""The detector's process is killed: Ray starts it again, and every image still gets one outcome."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from actors.faces import Detected, State
from cluster import BlockingFaceClient


def test_a_killed_detector_comes_back_and_no_image_is_lost(client: BlockingFaceClient, photos: Path) -> None:
    """I1, I2, I6: one outcome for each image, in order, from two incarnations; only Ray repeats a call."""
    names = ["astronaut.jpg", "coffee.jpg"] * 60
    before = client.health()
    lives, killed = set(), False
    for name, outcome in zip(names, client.stream(photos / name for name in names), strict=True):
        assert isinstance(outcome, Detected), outcome
        assert len(outcome.faces) == (name == "astronaut.jpg")
        lives.add(outcome.stamp.incarnation)
        if not killed:
            os.kill(before.pid, signal.SIGKILL)
            killed = True
    after = client.health(wait_s=60)
    assert after.state is State.READY
    assert after.pid != before.pid
    assert lives == {before.stamp.incarnation, after.stamp.incarnation}
