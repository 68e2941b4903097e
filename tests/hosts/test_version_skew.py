"""Two versions in one cluster: never a wrong value, never a hang, and a sentence on what to upgrade."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.lab import need
from tests.hosts.machines import Machine, eventually, rows, start_head, started_head, tell
from tests.hosts.other_version import other_version

Make = Callable[..., Machine]

_SIDES = "    width: int\n    height: int\n    damaged: Damage | None = None\n"
#: The fault that was planted from outside: before there was a protocol, each photo had its sides swapped.
SWAPPED = {
    "actors/faces.py": (_SIDES, "    height: int\n    width: int\n    damaged: Damage | None = None\n"),
}
_12 = 12 * " "
#: Another one: a field is missing; a call never ended.
MISSING = {
    "actors/faces.py": ("    num_lanes: int\n    start_ms", "    start_ms"),
    "actors/face_detector.py": (
        "            num_lanes=self._life.num_lanes,\n            start_ms",
        "            start_ms",
    ),
}
_VERSION = ('        version = version_of("rayface")\n', '        version = "0.9.0"\n')
#: The next release: another number, a field more in each outcome, and a setting more.
LATER = {
    "actors/faces.py": (_SIDES, f'{_SIDES}    note: str = "new"\n'),
    "actors/settings.py": (
        "    quarantine_s: Annotated",
        "    new_setting: int = 3\n    quarantine_s: Annotated",
    ),
    "cluster/protocol/identity.py": _VERSION,
}
PHOTOS = "tests/photos"


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    need("network", "unshare", "mount")


def _join(machine: Machine, address: str) -> None:
    machine.start("join", "join", address, "--device", f"cpu:{machine.ports}", "--wait")


def _states(asks: Machine, address: str) -> list[str]:
    done = asks.run("place", "--address", address, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout) if done.stdout else []
    return [each["state"] for each in found]


def _sides(done: subprocess.CompletedProcess[str]) -> set[tuple[int, int]]:
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert {each["status"] for each in found} == {"detected"}
    return {(each["width"], each["height"]) for each in found}


def _assert_skew(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 3, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "version_skew" in said
    assert said.count("(protocol 1-") == 2, said
    assert "Traceback" not in said


@pytest.mark.parametrize("changes", [SWAPPED, MISSING], ids=["sides swapped", "field missing"])
def test_a_client_of_another_version_gets_a_sentence(
    make_machine: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, tuple[str, str]],
) -> None:
    """Before a detector is placed, and when one answers already; and the doctor says it of the machine."""
    other = other_version(tmp_path / "other", changes)
    head, lender, ours = make_machine(), make_machine(), make_machine()
    head.prefix = lender.prefix = other
    address = start_head(head)
    _join(lender, address)
    eventually(
        lambda: "offers a" not in ours.run("place", "--address", address).stderr,
        180,
        lambda: lender.said("join"),
    )
    begun = time.monotonic()
    _assert_skew(ours.run("detect", PHOTOS, "--json", "--address", address))
    tell(capsys, f"without a detector, the difference was told in {time.monotonic() - begun:.1f} s")
    sides = _sides(head.run("detect", PHOTOS, "--json", "--address", address))
    assert (451, 300) in sides
    begun = time.monotonic()
    _assert_skew(ours.run("detect", PHOTOS, "--json", "--address", address))
    tell(capsys, f"with a detector, the difference was told in {time.monotonic() - begun:.1f} s")
    doctor = ours.run("doctor", address)
    assert "version_skew" in doctor.stdout, doctor.stdout + doctor.stderr
    _assert_skew(ours.run("join", address, "--device", f"cpu:{ours.ports}"))
    for machine in (ours, lender, head):
        machine.close()


def test_a_rolling_upgrade(make_machine: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Head first, then the machines, then the backends, as docs/two-machines.md says."""
    later = other_version(tmp_path / "later", LATER)
    head, address = started_head(make_machine, RAYFACE_HEAD__STORAGE=str(tmp_path / "storage"))
    lender, old, new = make_machine(), make_machine(), make_machine()
    new.prefix = later
    _join(lender, address)
    eventually(lambda: _states(old, address) == ["ready"], 120, lambda: lender.said("join"))
    before = _sides(old.run("detect", PHOTOS, "--json", "--address", address))

    # The head.
    head.prefix = later
    head.end()
    assert start_head(head) == address
    eventually(lambda: _states(old, address) == ["ready"], 120, lambda: lender.said("join"))
    assert _sides(old.run("detect", PHOTOS, "--json", "--address", address)) == before
    _assert_skew(new.run("detect", PHOTOS, "--json", "--address", address))

    # The machine.
    lender.end()
    lender.prefix = later
    _join(lender, address)
    eventually(lambda: _states(new, address) == ["ready"], 120, lambda: lender.said("join"))
    begun = time.monotonic()
    skewed = old.run("detect", PHOTOS, "--json", "--address", address)
    tell(capsys, f"the old backend was told in {time.monotonic() - begun:.1f} s")
    _assert_skew(skewed)
    assert "to 0.9.0" in skewed.stderr

    # The backend.
    assert _sides(new.run("detect", PHOTOS, "--json", "--address", address)) == before
    for machine in (new, old, lender, head):
        machine.close()
