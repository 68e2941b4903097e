"""`rayface up` and `down`: a cluster that stays between commands, and of which nothing is left."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.node.kept import KeptCluster, KeptProcess
from tests.live.conftest import command, rows


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home for the record and the logs; whatever is kept there is ended afterwards."""
    yield tmp_path
    command("down", variables=state(tmp_path))


def state(home: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(home)}


def recorded(home: Path) -> KeptCluster:
    values = json.loads((home / "rayface" / "up" / "cluster.json").read_text())
    return KeptCluster(**values | {"processes": tuple(KeptProcess(**each) for each in values["processes"])})


def first_outcome(said: str) -> tuple[float, dict[str, float]]:
    values = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    return values["first_outcome_s"], values["stages_s"]


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="XDG_STATE_HOME names the folder on Linux")


def test_a_kept_cluster_serves_run_after_run_and_leaves_nothing(home: Path, photos: Path) -> None:
    """`up` twice is once; two runs use the same detector; `down` leaves no process and no file but logs."""
    started = command("up", variables=state(home))
    assert started.returncode == 0, started.stderr
    cluster = recorded(home)
    assert cluster.address.startswith("127.0.0.1:")
    again = command("up", variables=state(home))
    assert "It is up already" in again.stdout
    assert recorded(home) == cluster

    incarnations = set()
    for _ in range(2):
        done = command("detect", str(photos / "astronaut.jpg"), "--json", "--timings", variables=state(home))
        assert done.returncode == 0, done.stderr
        seconds, stages = first_outcome(done.stderr)
        sys.stdout.write(f"first outcome after {seconds:.2f} s: {stages}\n")
        assert "warm_up" not in stages
        incarnations |= {row["incarnation"] for row in rows(done.stdout)}
    assert len(incarnations) == 1

    seen = command("status", "--json", variables=state(home))
    assert seen.returncode == 0, seen.stderr
    assert "the kept cluster of this machine" in seen.stderr
    assert json.loads(seen.stdout)["address"] == cluster.address

    ended = command("down", variables=state(home))
    assert ended.returncode == 0, ended.stderr
    assert not any(each.is_alive() for each in cluster.processes)
    assert not Path(cluster.temp_dir).exists()
    left = {path.name for path in home.rglob("*") if path.is_file()}
    assert left <= {"up.log", "up-output.log", "lock"}
    assert "No cluster is kept" in command("down", variables=state(home)).stdout


def test_a_raylet_that_was_killed_is_noticed(home: Path, photos: Path) -> None:
    """The next run says so in a sentence, and uses a Ray of its own; `up` starts anew."""
    assert command("up", variables=state(home)).returncode == 0
    cluster = recorded(home)
    raylet = next(each for each in cluster.processes if each.name == "raylet")
    psutil.Process(raylet.pid).kill()
    done = command("detect", str(photos / "astronaut.jpg"), "--json", variables=state(home))
    assert done.returncode == 0, done.stderr
    assert "The kept cluster has ended" in done.stderr
    assert rows(done.stdout)[0]["status"] == "detected"
    until = time.monotonic() + 60.0
    while any(each.is_alive() for each in cluster.processes) and time.monotonic() < until:
        time.sleep(0.2)
    assert [each.name for each in cluster.processes if each.is_alive()] == []
    assert command("up", variables=state(home)).returncode == 0
    assert recorded(home).address != cluster.address


def test_what_a_killed_keeper_left_goes_with_the_next_run(home: Path, photos: Path) -> None:
    """Ray's agents outlive a keeper that was killed with SIGKILL."""
    assert command("up", variables=state(home)).returncode == 0
    cluster = recorded(home)
    os.kill(cluster.keeper.pid, signal.SIGKILL)
    done = command("detect", str(photos / "astronaut.jpg"), "--json", variables=state(home))
    assert done.returncode == 0, done.stderr
    assert "The kept cluster has ended" in done.stderr
    assert [each.name for each in cluster.processes if each.is_alive()] == []
    assert not Path(cluster.temp_dir).exists()
    assert "No cluster is kept" in command("down", variables=state(home)).stdout


def test_a_run_with_other_settings_leaves_the_kept_cluster_alone(home: Path, photos: Path) -> None:
    """Of a keeper that was killed with SIGKILL, `down` ends what is left, by the record."""
    assert command("up", variables=state(home)).returncode == 0
    cluster = recorded(home)
    other = ("detect", str(photos / "astronaut.jpg"), "--json")
    done = command(*other, variables=state(home) | {"RAYFACE_DETECTOR__INPUT_SIZE": "320"})
    assert done.returncode == 0, done.stderr
    assert "another detector.input_size" in done.stderr
    os.kill(cluster.keeper.pid, signal.SIGKILL)
    assert "Down" in command("down", variables=state(home)).stdout
    assert [each.name for each in cluster.processes if each.is_alive()] == []
    assert not Path(cluster.temp_dir).exists()
