"""A backend and a detector of one machine, on a cluster that outlives the backend."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.hosts.machines import HERE, Machine, eventually, processes_with, started_head

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory is opened by way of /proc")

#: Detects one photo, says so, and waits to be killed.
BACKEND = """
import asyncio, os, sys
from cluster import FaceClient

async def main() -> None:
    async with await FaceClient.connect() as client:
        (outcome,) = await client.detect([sys.argv[1]])
        print(outcome.status, len(outcome.faces), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def _num_shared(pid: int) -> int:
    """How many memories of backends a process has open."""
    return len(
        [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memfd:rayface" in line]
    )


def test_the_memory_of_a_killed_backend_is_given_back(
    make_machine: Callable[..., Machine], photos: Path
) -> None:
    """Memory is bounded: a detector that runs for months keeps nothing of backends that are gone."""
    head, address = started_head(make_machine)
    gpu = make_machine()
    gpu.start("join", "join", address, "--device", f"cpu:{gpu.ports}", "--wait")

    def is_ready() -> bool:
        return '"ready"' in head.run("place", "--address", address, "--json", timeout_s=200).stdout

    eventually(is_ready, 120, lambda: gpu.said("join"))
    photo = photos / "astronaut.jpg"
    with _backend(head, address, photo, "0"):
        assert not _sharing(gpu)
    with _backend(head, address, photo, "160000000"):
        (detector,) = _sharing(gpu)
    eventually(lambda: _num_shared(detector.pid) == 0, 30)
    assert detector.is_running()
    gpu.close()
    head.close()


@contextmanager
def _backend(head: Machine, address: str, photo: Path, max_bytes: str) -> Iterator[None]:
    """A backend that has detected a photo; it is killed at the end of the block."""
    variables = {"RAYFACE_CLUSTER__ADDRESS": address, "RAYFACE_CLIENT__MAX_SHARED_BYTES": max_bytes}
    backend = subprocess.Popen(
        [sys.executable, "-c", BACKEND, str(photo)],
        cwd=HERE,
        env=os.environ | head.variables | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with backend:
        try:
            assert backend.stdout is not None
            assert backend.stdout.readline().startswith("detected")
            yield
        finally:
            backend.kill()


def _sharing(machine: Machine) -> list[psutil.Process]:
    """The processes of a machine that have a backend's memory open."""
    return [each for each in processes_with(str(machine.folder)) if _num_shared(each.pid)]
