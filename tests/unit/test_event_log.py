"""The detector's own lines: one an event, with who it was, and nothing of the photos."""

from __future__ import annotations

import logging

import pytest

from actors.faces import Failure, Priority
from cluster.telemetry.event_log import DetectorLog, line
from tests.unit.fake_cluster import detected, failed, health, quiet


def test_a_line_is_read_by_people_and_programs() -> None:
    assert line("ready", {"detector": "a", "num": 3}) == "event=ready detector=a num=3"
    assert line("faulty", {"detail": 'It "lies".'}) == 'event=faulty detail="It \\"lies\\"."'
    assert line("x", {"empty": ""}) == 'event=x empty=""'


def test_every_line_says_who(caplog: pytest.LogCaptureFixture) -> None:
    log = DetectorLog("FaceDetector", "life-1", lambda: 0.0, quiet(lambda: 0.0))
    log.event("ready", device="directml:0")
    log.trouble("run_failed", num_images=8, reason=Failure.DEVICE_FAILED, detail="no")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "event=ready detector=FaceDetector incarnation=life-1 device=directml:0",
        "event=run_failed detector=FaceDetector incarnation=life-1 num_images=8 reason=device_failed "
        "detail=no",
    ]
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.WARNING]


def test_what_was_done_is_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = DetectorLog("a", "life", lambda: now[0], quiet(lambda: now[0]))
    for second in range(600):
        now[0] = float(second)
        if second < 300:
            log.images([detected(1)], Priority.BULK)
            log.images([failed(Failure.BUSY)], Priority.BULK)
        log.report(health(busy_s=second / 2))
    lines = [record.getMessage() for record in caplog.records]
    assert 4 <= len(lines) <= 6, "and none while there was nothing to do"
    assert "num_images=120" in lines[1]
    assert "detected=60 failed_busy=60" in lines[1]
    assert "busy=0.50" in lines[1]


def test_a_device_that_fails_all_day_is_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Half an hour of it."""
    now = [0.0]
    log = DetectorLog("a", "life", lambda: now[0], quiet(lambda: now[0]))
    for tenth in range(18_000):
        now[0] = tenth / 10
        log.trouble("run_failed", num_images=8, reason="device_failed", detail="no")
    assert 4 <= len(caplog.records) <= 40
