"""A full disk where Ray keeps its session costs no photo, also when the detector was killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import FaceClient, load_settings
from tests.hosts.lab import need, sh

_DISK_BYTES = 60_000_000


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of its own; Ray's sockets need a short path, so it is not in pytest's folder."""
    need("network", "mount", "umount")
    folder = Path(tempfile.mkdtemp(prefix="rfd", dir="/tmp"))
    sh("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", folder)
    try:
        yield folder
    finally:
        sh("umount", "-l", folder)
        shutil.rmtree(folder)


def test_a_killed_detector_comes_back_on_a_full_disk(
    small_disk: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own line in the log of each process would end it, again and again."""
    monkeypatch.setenv("RAY_TMPDIR", str(small_disk))

    async def story() -> None:
        async with FaceClient(load_settings()) as client:
            some = sorted(photos.glob("*.jpg"))[:2]
            before = [each.status for each in await client.detect(some)]
            assert before == ["detected"] * 2
            _fill(small_disk / "filling")
            os.kill((await client.health()).pid, signal.SIGKILL)
            for _ in range(5):
                assert [each.status for each in await client.detect(some)] == before

    asyncio.run(story())


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filling:
        try:
            while True:
                filling.write(bytes(65536))
        except OSError:
            return
