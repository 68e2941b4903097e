"""A full disk is named before Ray is started on it in vain, and a log that it does not take costs nothing."""

from __future__ import annotations

import errno
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest

from cluster.node.disk import full_disk
from cluster.node.supervisor import supervisor_log


def test_a_full_disk_is_named_with_what_is_free(tmp_path: Path) -> None:
    asked: list[Path] = []

    def free_bytes(folder: Path) -> int:
        asked.append(folder)
        return 10**9 if len(asked) == 1 else 3_000_000

    said = full_disk([tmp_path, tmp_path / "ray" / "new"], free_bytes)
    assert "ray/new is full: 3 MB are free, and Ray needs 20 MB" in said.replace("\\", "/")
    assert asked == [tmp_path, tmp_path]


def test_a_disk_with_room_or_one_that_does_not_say_is_no_reason(tmp_path: Path) -> None:
    def unknown(folder: Path) -> int:
        raise OSError(errno.EIO, "Input/output error")

    assert full_disk([tmp_path], lambda folder: 10**9) == ""
    assert full_disk([tmp_path], unknown) == ""


def test_a_log_on_a_full_disk_prints_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, _ = supervisor_log("test-full-disk", tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RotatingFileHandler, "shouldRollover", full)
    log.info("Stopping.")
    said = capsys.readouterr().err
    assert "Stopping." in said
    assert "Traceback" not in said
