"""The life of a model where the system gives no thread to open it in."""

from __future__ import annotations

import threading

import pytest

from actors import model_life
from actors.model_life import ModelLife
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice

SETTINGS = DetectorSettings(batch_sizes=(1, 2), num_lanes=1, input_size=320, warm_up_s=1e9)


def test_a_start_without_a_thread_is_a_fault_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the detector would be STARTING for ever."""
    now = [0.0]
    life = ModelLife("FaceDetector", SETTINGS, FakeDevice(), lambda: now[0])

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        life.start()
        for _ in range(2):
            assert life.starting.done()
            assert "can't start new thread" in str(life.fault)
            assert not life.start_again_if_due()
            now[0] += 31
            assert life.start_again_if_due()
    now[0] += 31
    assert life.start_again_if_due()
    assert life.starting.result(20) is life.ready_model() is not None
    life.close()
