"""I2, with real Ray and real processes: the device is open once, even if something starts twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hosts.machines import HERE, Machine, eventually, started_head
from tests.hosts.recording import overlaps

Make = Callable[..., Machine]


def _simulated(record: Path) -> dict[str, str]:
    return {
        "RAYFACE_TEST_RECORD": str(record),
        "RAYFACE_DETECTOR__OPENER": "tests.hosts.recording:RecordingOpener",
        "RAYFACE_DETECTOR__LEASE_S": "4",
        # Worker processes need this to import the tests' modules.
        "PYTHONPATH": str(HERE),
    }


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "notes"


@pytest.fixture(scope="module")
def site(make_machine: Make, record: Path) -> tuple[Machine, str, Machine]:
    """A head and a machine that lends one device, whose owner is the detector of namespace `rayface`."""
    head, address = started_head(make_machine, **_simulated(record))
    host = make_machine(**_simulated(record))
    host.start("join", "join", address, "--device", f"cpu:{host.ports}", "--wait")
    eventually(lambda: head.run("place", "--address", address).returncode == 0, 90, lambda: host.said("join"))
    return head, address, host


def _owner(site: tuple[Machine, str, Machine]) -> dict[str, Any]:
    head, address, _ = site
    done = head.run("place", "--address", address, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found[0]


def test_two_names_two_namespaces_one_owner(site: tuple[Machine, str, Machine], record: Path) -> None:
    """Detectors started by hand avoid Ray's name and Ray's resource, but the lock still stops them."""
    _, address, host = site
    owner = _owner(site)
    for namespace, name in (("elsewhere", "FaceDetector"), ("rayface", "AnotherDetector")):
        health = _hand_started(host, address, namespace, name)
        assert health["state"] == "faulty"
        assert health["failure"] == "device_held"
        assert f"pid {owner['pid']}" in health["detail"]
    assert overlaps(record) == []


def _hand_started(host: Machine, address: str, namespace: str, name: str) -> dict[str, Any]:
    """A detector of the same machine and device in another process, as one of a second cluster would be."""
    code = (
        "import asyncio, dataclasses, json, sys\n"
        "from actors.device import Device\n"
        "from actors.face_detector import start_detector\n"
        "from cluster import load_settings\n"
        "settings, devices = load_settings().detector, [Device.parse(sys.argv[3])]\n"
        "made = start_detector(sys.argv[2], settings, devices=devices, cluster=sys.argv[1])\n"
        "print(json.dumps(dataclasses.asdict(asyncio.run(made.health(60.0)))), flush=True)\n"
        "import os; os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{address}/{namespace}", name, f"cpu:{host.ports}"],
        cwd=HERE,
        env=os.environ | host.variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    health: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return health


def test_a_second_cluster_on_the_machine_is_told_who_owns(
    site: tuple[Machine, str, Machine], make_machine: Make, record: Path
) -> None:
    _, _, host = site
    head, address = started_head(make_machine, **_simulated(record))
    second = make_machine(**_simulated(record))
    done = second.run("join", address, "--device", f"cpu:{host.ports}", "--check")
    assert done.returncode == 4
    assert f"pid {_owner(site)['pid']}" in done.stderr
    assert overlaps(record) == []
    head.started[0].send_signal(signal.SIGTERM)


def test_killed_owners_never_overlap(site: tuple[Machine, str, Machine], record: Path) -> None:
    for _ in range(3):
        pid = _owner(site)["pid"]
        psutil.Process(pid).kill()
        eventually(partial(_is_ready_after, site, pid), 60, lambda: site[2].said("join"))
    assert overlaps(record) == []


def _is_ready_after(site: tuple[Machine, str, Machine], pid: int) -> bool:
    owner = _owner(site)
    return bool(owner["state"] == "ready" and owner["pid"] != pid)


def test_a_frozen_owner_is_succeeded_and_never_runs_again(
    site: tuple[Machine, str, Machine], record: Path
) -> None:
    """SIGSTOP stops the owner, its node is killed, a successor starts; SIGCONT lets the old owner go on."""
    _, _, host = site
    frozen = psutil.Process(_owner(site)["pid"])
    frozen.suspend()
    raylet = next(
        process
        for process in psutil.process_iter()
        if process.name() == "raylet" and str(host.folder) in " ".join(process.cmdline())
    )
    raylet.kill()
    eventually(lambda: _is_ready_after(site, frozen.pid), 120, lambda: host.said("join"))
    last_by_frozen = _last_note(record, frozen.pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        frozen.resume()
    time.sleep(3)
    assert _last_note(record, frozen.pid) == last_by_frozen
    assert overlaps(record) == []


def _last_note(record: Path, pid: int) -> float:
    notes = [json.loads(line) for line in record.read_text().splitlines()]
    return max((note["at"] for note in notes if note["pid"] == pid), default=0.0)


def test_an_owner_cut_off_from_the_cluster_stops(site: tuple[Machine, str, Machine]) -> None:
    """The head is stopped, not ended: it neither refuses nor answers. The lease of 4 s runs out."""
    head, _, host = site
    owner = _owner(site)
    ours = str(head.folder)
    stopped = [
        process
        for process in psutil.process_iter()
        if process.name() == "gcs_server" and ours in " ".join(process.cmdline())
    ]
    assert stopped
    for process in stopped:
        process.suspend()
    try:
        eventually(lambda: not psutil.pid_exists(owner["pid"]), 40, lambda: host.said("join"))
    finally:
        for process in stopped:
            process.resume()
    eventually(lambda: _is_ready_after(site, owner["pid"]), 120, lambda: host.said("join"))
