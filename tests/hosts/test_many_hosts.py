"""Two machines that lend a device each, and the same with everything encrypted."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.machines import Machine, eventually, rows, started_head
from tests.tls import tls_variables

Make = Callable[..., Machine]


def _detectors(head: Machine, address: str) -> dict[str, dict[str, Any]]:
    done = head.run("place", "--address", address, "--json", timeout_s=200)
    # While no machine has joined, stderr gets one sentence and stdout nothing.
    return {row["name"]: row for row in json.loads(done.stdout or "[]")}


def _states(head: Machine, address: str) -> list[str]:
    return sorted(row["state"] for row in _detectors(head, address).values())


def _join(machine: Machine, address: str) -> subprocess.Popen[bytes]:
    return machine.start("join", "join", address, "--device", f"cpu:{machine.ports}", "--wait")


def test_each_machine_has_its_detector_and_takes_only_its_own_along(make_machine: Make, photos: Path) -> None:
    head, address = started_head(make_machine)
    first, second = make_machine(), make_machine()
    _join(first, address)
    joined = _join(second, address)
    eventually(lambda: _states(head, address) == ["ready", "ready"], 120, lambda: second.said("join"))
    found = _detectors(head, address)
    assert list(found) == ["FaceDetector", "FaceDetector-2"]
    assert {row["device"] for row in found.values()} == {f"cpu:{first.ports}", f"cpu:{second.ports}"}

    many = [str(photos)] * 6
    outcomes = rows(head.run("detect", *many, "--json", "--address", address).stdout)
    assert {row["status"] for row in outcomes} == {"detected"}

    joined.send_signal(signal.SIGTERM)
    joined.wait(40)
    assert _states(head, address) == ["away", "ready"]
    outcomes = rows(head.run("detect", str(photos), "--json", "--address", address).stdout)
    assert {row["status"] for row in outcomes} == {"detected"}

    gone = next(name for name, row in _detectors(head, address).items() if row["state"] == "away")
    assert head.run("remove", gone, "--address", address).returncode == 0
    assert _states(head, address) == ["ready"], "the one whose device is gone is forgotten"
    wrong = head.run("remove", gone, "--address", address)
    assert wrong.returncode == 3
    assert "there are" in wrong.stderr

    _join(second, address)
    eventually(lambda: _states(head, address) == ["ready", "ready"], 120, lambda: second.said("join"))
    for machine in (first, second, head):
        machine.close()


def test_everything_works_encrypted_and_a_plain_driver_gets_nothing(
    make_machine: Make, photos: Path, tmp_path: Path
) -> None:
    """I7: TLS end to end, with certificates as docs/two-machines.md says."""
    plain = make_machine()
    own = plain.run("head", "--print").stdout.partition("--node-ip-address=")[2].split()[0]
    tls = tls_variables(tmp_path, own)
    head, address = started_head(make_machine, **tls)
    host = make_machine(**tls)
    _join(host, address)
    eventually(lambda: _states(head, address) == ["ready"], 120, lambda: host.said("join"))
    outcomes = rows(head.run("detect", str(photos), "--json", "--address", address).stdout)
    assert [row["status"] for row in outcomes] == ["detected"] * 7
    with pytest.raises(subprocess.TimeoutExpired):
        plain.run("detect", str(photos), "--address", address, timeout_s=15)
    for machine in (host, head):
        machine.close()
