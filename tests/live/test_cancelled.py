"""Whoever stops waiting for a connection leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading

import psutil
import pytest
import ray

from cluster import FaceClient, Settings, placement


def test_a_cancelled_connect_leaves_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors are being placed when it is cancelled: asked after its end, Ray would begin again."""
    placing, cancelled = threading.Event(), threading.Event()
    place_all = placement.place_all

    def late(settings: Settings) -> dict[str, placement.Handle]:
        placing.set()
        cancelled.wait(60)
        return place_all(settings)

    monkeypatch.setattr(placement, "place_all", late)

    async def story() -> None:
        connecting = asyncio.create_task(FaceClient.connect())
        assert await asyncio.to_thread(placing.wait, 60)
        connecting.cancel()
        # Whoever does not wait for the thread has shut Ray down by then.
        asyncio.get_running_loop().call_later(3.0, cancelled.set)
        with pytest.raises(asyncio.CancelledError):
            await connecting

    asyncio.run(story())
    assert not ray.is_initialized()
    left = [each.name() for each in psutil.Process(os.getpid()).children(recursive=True)]
    assert not [name for name in left if "gcs_server" in name or "raylet" in name]
