"""When `rayface detect` starts a driver process before it has loaded its own modules, and who takes it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.cli import early_start
from cluster.cli.early_start import starting_early
from cluster.cli.timings import age_s
from cluster.connection import driver_process, early_process
from cluster.connection.driver_process import DriverProcess
from cluster.connection.early_process import EarlyProcess
from cluster.node import kept
from cluster.settings import load_settings
from tests.unit.test_driver_process import JOINS
from tests.unit.test_kept import cluster

ENDS_AT_ONCE = "{path!r}"


class Counted:
    """In place of a process: counts how many run."""

    num_running = 0

    def __init__(self) -> None:
        Counted.num_running += 1

    def end(self) -> None:
        Counted.num_running -= 1


@pytest.fixture(autouse=True)
def _nobody_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAYFACE_CONFIG", "RAYFACE_CLUSTER__ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "up")
    monkeypatch.setattr(early_start, "EarlyProcess", Counted)
    monkeypatch.setattr(Counted, "num_running", 0)


def num_early(address: str | None = None, config: Path | None = None) -> int:
    with starting_early(address, config):
        number = Counted.num_running
    assert Counted.num_running == 0
    return number


def test_a_process_is_started_early_where_a_cluster_will_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster, Ray is started with other variables, so an early process would be of no use."""
    assert num_early() == 0
    assert num_early(address="127.0.0.1:1") == 1
    kept.write(cluster())
    assert num_early() == 1
    # A settings file may name a cluster or not; it is read later.
    assert num_early(config=Path("some.toml")) == 0
    monkeypatch.setenv("RAYFACE_CLUSTER__ADDRESS", "127.0.0.1:1")
    assert num_early(config=Path("some.toml")) == 1


def test_an_early_process_that_nobody_takes_is_ended_with_the_command() -> None:

    def command() -> None:
        with starting_early("127.0.0.1:1", None):
            assert Counted.num_running == 1
            sys.exit(2)

    with pytest.raises(SystemExit):
        command()
    assert Counted.num_running == 0


def test_the_first_process_that_joins_is_the_early_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_process, "_PROGRAM", JOINS)
    monkeypatch.setattr(driver_process, "_PROGRAM", ENDS_AT_ONCE)
    early = EarlyProcess()

    async def story() -> str:
        made = await DriverProcess.start(load_settings(cluster={"address": "here:1"}), early=early)
        await made.end()
        return made.address

    assert asyncio.run(story()) == "here:1"
    assert early.take() is None


def test_an_embedded_cluster_gets_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The early one has loaded Ray with the variables for joining; it is ended."""
    monkeypatch.setattr(early_process, "_PROGRAM", "import sys; {path!r}; sys.stdin.read()")
    monkeypatch.setattr(driver_process, "_PROGRAM", JOINS)
    started: list[subprocess.Popen[bytes]] = []
    start = early_process.start_process

    def noting(program: str) -> subprocess.Popen[bytes]:
        started.append(start(program))
        return started[-1]

    monkeypatch.setattr(early_process, "start_process", noting)
    early = EarlyProcess()

    async def story() -> None:
        await (await DriverProcess.start(load_settings(), early=early)).end()

    asyncio.run(story())
    (process,) = started
    assert process.poll() is None
    early.end()
    assert process.returncode is not None


def test_the_age_of_this_process() -> None:
    """psutil's may be wrong by a second on Linux, and says the same within that."""
    by_psutil = time.time() - psutil.Process().create_time()
    assert age_s() == pytest.approx(by_psutil, abs=1.5)
