"""The backend outlives the cluster: the head is killed for good, and later another one starts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hosts.machines import HERE, Machine, eventually, processes_with, rows, started_head, tell

_AWAY_S = 45.0
_WATCHED_S = 15.0


def _kill_head(head: Machine) -> None:
    """Kill supervisor, store, node and callback probe at once, as when their machine loses power."""
    keeper = psutil.Process(head.started[-1].pid)
    ours = [keeper, *keeper.children(recursive=True)]
    for process in ours:
        # Some of them end by themselves when the first one is gone.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ours, 10)
    for process in processes_with(str(head.folder / "ray")):
        # The backend's environment names that folder too.
        if any(str(head.folder / "ray") in word for word in process.cmdline()):
            process.kill()


def _share_of_a_core(backend: int) -> float:
    """The share of a core that the backend's driver processes use while they have no calls to pass on."""

    def used() -> dict[psutil.Process, float]:
        found = {}
        for each in psutil.Process(backend).children(recursive=True):
            # A driver process may end at any moment; another one replaces it.
            with contextlib.suppress(psutil.Error):
                if "cluster.connection.driver" in " ".join(each.cmdline()):
                    found[each] = sum(each.cpu_times()[:2])
        return found

    before = used()
    time.sleep(_WATCHED_S)
    return sum(now - before.get(each, 0.0) for each, now in used().items()) / _WATCHED_S


def test_the_backend_lives_and_finds_the_next_cluster(
    make_machine: Callable[..., Machine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I1, I6: the backend lives and keeps its own Ray, calls end in time with a reason, and it recovers.

    Ray ends a driver's process here, because another cluster, with another identity, is at the address.
    """
    head, address = started_head(make_machine)
    gpu = make_machine()
    gpu.start("join", "join", address, "--device", f"cpu:{gpu.ports}", "--wait")
    file = tmp_path / "outcomes"
    log = tmp_path / "log"
    with log.open("wb") as said:
        backend = subprocess.Popen(
            [sys.executable, "-m", "tests.hosts.two_rays_backend", str(file), "600"],
            cwd=HERE,
            env=os.environ
            | head.variables
            | {"RAYFACE_CLUSTER__ADDRESS": address, "RAYFACE_CIRCUIT__GRACE_S": "10"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )

    def outcomes() -> list[dict[str, Any]]:
        return rows(file.read_text().rpartition("\n")[0]) if file.exists() else []

    def is_well() -> bool:
        return [row["status"] for row in outcomes()[-3:]] == ["detected"] * 3

    try:
        eventually(is_well, 120, lambda: log.read_text()[-2000:] + gpu.said("join")[-2000:])
        before = outcomes()[-1]
        _kill_head(head)
        killed = time.time()
        time.sleep(_AWAY_S - _WATCHED_S)
        share = _share_of_a_core(backend.pid)
        assert backend.poll() is None, log.read_text()[-2000:]
        head.start("head", "head")
        back = time.time()
        eventually(is_well, 120, lambda: f"{outcomes()[-3:]}\n{log.read_text()[-2000:]}")
        well_s = time.time() - back
        found = outcomes()
        assert backend.poll() is None
    finally:
        backend.send_signal(signal.SIGINT)
        try:
            backend.wait(30)
        except subprocess.TimeoutExpired:
            backend.kill()
    assert share < 0.25, f"a driver process without a head takes {share:.0%} of a core"
    away = [row for row in found if row["asked"] > killed and row["status"] != "detected"]
    assert away, "no photo failed while the head was away"
    assert all(row["detail"] for row in away)
    assert max(row["took_s"] for row in found) < 5.0 + 2.0, "a deadline was missed"
    assert all(row["num_faces"] == 7 for row in found if row["status"] == "detected")
    assert found[-1]["incarnation"] != before["incarnation"]
    assert [row["counted"] for row in found] == list(range(1, len(found) + 1)), (
        "the backend's own Ray lost calls"
    )
    assert {row["large"] for row in found} == {20_000_000}
    lines = log.read_text().splitlines()
    tell(
        capsys,
        f"head killed for good: {len(found)} photos, {len(away)} failed "
        f"({sorted({row['reason'] for row in away})}), well {well_s:.1f} s after another head was started, "
        f"{len(lines)} lines of the backend's log, driver process {share:.0%} of a core meanwhile",
    )
    assert len(lines) <= 100
