"""Times of batches, kept for the next process: what is read back, and what is ignored."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from actors import model_life
from actors.batch_file import BatchFile, runtime_version
from actors.batch_table import BatchTable, KeptRow
from actors.model_life import ModelLife
from actors.observer import Observer
from actors.settings import DetectorSettings
from tests.fakes import MODEL, FakeDevice

ROWS = [KeptRow(1, 640, 640, 2.5, 40, 3.0), KeptRow(32, 640, 640, 18.0, 7, 0.0)]


def kept(path: Path, key: str = "key", now: float = 1000.0, told: list[str] | None = None) -> BatchFile:
    lines = told if told is not None else []
    return BatchFile(path, key, lines.append, lambda: now)


def test_the_next_process_reads_what_was_kept(tmp_path: Path) -> None:
    """Older by the time that passed; under the same key only."""
    path = tmp_path / "batches.json"
    kept(path).write(ROWS)
    assert kept(path, now=1060.0).read() == [row._replace(age_s=row.age_s + 60) for row in ROWS]
    assert kept(path, "another driver").read() == []
    kept(path, "another driver").write(ROWS[:1])
    assert len(kept(path).read()) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["batches.json"], "no file is left beside it"


def test_the_file_is_bounded(tmp_path: Path) -> None:
    """The latest tables stay."""
    path = tmp_path / "batches.json"
    for number in range(20):
        kept(path, f"key {number}", now=1000.0 + number).write(ROWS)
    assert kept(path, "key 19").read()
    assert not kept(path, "key 11").read()
    kept(path, now=2000.0).write([KeptRow(1, 32 * number, 640, 1.0, 1, 0.0) for number in range(1, 5000)])
    assert len(kept(path).read()) == 256


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b'{"version": 2, "tables": {}}',
        b'{"version": 1, "tables": []}',
        b'{"version": 1, "tables": {"key": 5}}',
        b'{"version": 1, "tables": {"key": [0, [[1, 640, 640, -2.5, 4, 0]]]}}',
        b'{"version": 1, "tables": {"key": [0, [[1, 640, 640, NaN, 4, 0]]]}}',
        b'{"version": 1, "tables": {"key": [0, [[1, 640, 640, 2.5, 4, 1e300]]]}}',
        b'{"version": 1, "tables": {"key": [0, [[1e400, 640, 640, 2.5, 4, 0]]]}}',
        b'{"version": 1, "tables": {"key": [0, [[1, 640, 640, 1' + 400 * b"0" + b", 4, 0]]]}}",
        b'{"version": 1, "tables": {"key": [1' + 400 * b"0" + b", []]}}",
        b'{"version": 1, "tables": {"key": [0, [["a", 640, 640, 2.5, 4, 0]]]}}',
        b"[" * 100_000,
        b" " * 2_000_000,
    ],
    ids=lambda content: repr(content[:60]),
)
def test_a_broken_or_foreign_file_is_ignored_with_a_line(tmp_path: Path, content: bytes) -> None:
    """And replaced at the next writing."""
    path = tmp_path / "batches.json"
    path.write_bytes(content)
    told: list[str] = []
    assert kept(path, told=told).read() == []
    assert len(told) == 1
    assert "ignored" in told[0]
    kept(path).write(ROWS)
    assert kept(path).read() == ROWS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs in folders")
def test_a_fifo_in_place_of_the_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "batches.json"
    os.mkfifo(path)
    told: list[str] = []
    assert kept(path, told=told).read() == []
    assert "it is no file" in told[0]
    kept(path).write(ROWS)
    assert kept(path).read() == ROWS


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    kept(tmp_path / "missing" / "batches.json", told=told).write(ROWS)
    assert len(told) == 1
    assert "cannot be kept" in told[0]


def test_each_kind_of_trouble_is_told_once(tmp_path: Path) -> None:
    """A damaged file in a folder that cannot be written is two troubles, however often it is used."""
    told: list[str] = []
    path = tmp_path / "batches.json"
    path.mkdir()
    file = kept(path, told=told)
    for _ in range(3):
        file.read()
        file.write(ROWS)
    assert len(told) == 2


def test_the_installed_runtime_is_named() -> None:
    assert runtime_version().startswith("onnxruntime")


def test_a_second_start_runs_less_and_knows_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bucket is still checked with the golden photo; another device's times are not used."""
    monkeypatch.setattr(model_life, "ready_model", lambda settings: MODEL)
    add = BatchTable.add
    monkeypatch.setattr(BatchTable, "add", lambda table, size, shape, run_ms: add(table, size, shape, 1.0))
    settings = DetectorSettings(batch_sizes=(1, 2, 4), num_lanes=1, input_size=320, warm_up_s=1e9)
    events: list[tuple[str, Any]] = []

    class Listener(Observer):
        def event(self, name: str, **facts: object) -> None:
            events.append((name, facts.get("detail")))

    def started(**changes: Any) -> tuple[int, set[int]]:
        device = FakeDevice()
        chosen = settings.model_copy(update=changes)
        life = ModelLife("FaceDetector", chosen, device, records=tmp_path, observer=Listener())
        life.start()
        model = life.starting.result(20)
        assert model is not None
        num_runs = {each.num_runs for each in model.timings}
        life.close()
        return len(device.runs), num_runs

    first, _ = started()
    second, num_runs = started()
    assert second < first
    assert min(num_runs) >= 4, "three runs of the first start, and one of the second"
    assert started(device_id=1)[0] == first
    (file,) = tmp_path.glob("*cpu-0.batches.json")
    assert len(json.loads(file.read_text())["tables"]) == 1
    file.write_text("spoiled")
    started()
    assert any(name == "batch_times" and "ignored" in str(detail) for name, detail in events)
