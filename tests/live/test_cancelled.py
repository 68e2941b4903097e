"""A program that stops waiting for a connection leaves no process behind."""

from __future__ import annotations

import asyncio
import os

import psutil
import pytest

from cluster import FaceClient
from tests.live.conftest import ray_processes


@pytest.mark.parametrize("after_s", [0.1, 1.0, 3.0])
def test_a_cancelled_connect_leaves_no_ray(after_s: float) -> None:
    """The wait is cancelled before Ray starts, while Ray starts, or while detectors are placed."""

    async def story() -> list[psutil.Process]:
        connecting = asyncio.create_task(FaceClient.connect())
        await asyncio.sleep(after_s)
        ours = ray_processes(os.getpid())
        assert ours
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        return ours

    ours = asyncio.run(story())
    assert psutil.wait_procs(ours, timeout=20)[1] == []
    left = [each.name() for each in ray_processes(os.getpid())]
    assert not [name for name in left if "gcs_server" in name or "raylet" in name]
