"""`rayface detect --timings`: the stages of a start."""

from __future__ import annotations

import pytest

from cluster.cli.timings import in_stages


def test_the_stages_of_a_start_add_up_to_the_whole() -> None:
    """The detector's own parts are taken out of the time that the client waited for it."""
    client = {"cluster": 3000.0, "detector": 2500.0}
    detector = {"model": 40.0, "session": 60.0, "warm_up": 900.0}
    stages = in_stages(command_s=0.5, client_ms=client, detector_ms=detector, first_photo_s=0.1)
    assert list(stages) == ["command", "cluster", "detector", "model", "session", "warm_up", "first_photo"]
    assert stages["detector"] == pytest.approx(1.5)
    assert sum(stages.values()) == pytest.approx(0.5 + 3.0 + 2.5 + 0.1)


def test_a_detector_that_was_there_has_no_parts() -> None:
    stages = in_stages(
        command_s=0.5, client_ms={"cluster": 600.0, "detector": 50.0}, detector_ms={}, first_photo_s=0.1
    )
    assert stages == {"command": 0.5, "cluster": 0.6, "detector": 0.05, "first_photo": 0.1}
