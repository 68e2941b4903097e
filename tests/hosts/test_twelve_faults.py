"""Twelve planted faults: each is named with the right cause, and its remedy works when it is followed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.site import GPU_ADDRESS, HEAD_ADDRESS, Site
from tests.hosts import faults
from tests.hosts.faults import Findings, Planted
from tests.hosts.lab import REQUIRED, can_make_networks, need
from tests.hosts.machines import eventually


@dataclass(frozen=True)
class Row:
    """One fault, and the finding that a person should read.

    Attributes:
        plant: the fault.
        named: the finding that names it.
        cause: a pattern for the finding's evidence.
        advice: a pattern for the finding's advice.
        here: whether only findings about the asked machine count. (The other machines of these tests have
            the token in a variable, and the user who runs the tests may have another one in a file.)
    """

    plant: Callable[[Site], Planted]
    named: str
    cause: str
    advice: str
    here: bool = False


#: The fault that ends the head comes last, because afterwards the cluster is another one.
TABLE = [
    Row(
        faults.version_skew,
        "versions",
        rf"Ray is {re.escape(faults.OTHER_RAY)} here and 2\.60\.0 at the head",
        "Install the same rayface on every machine",
    ),
    Row(faults.missing_token, "token", "There is no token", "rayface token save", here=True),
    Row(faults.wrong_token, "token of the head", "refuses our token", "rayface token save"),
    Row(faults.blocked_port, "way back", r"the head does not reach .* at \d+", "firewall"),
    Row(
        faults.silent_provider,
        "detector",
        r"\(device_unavailable\): .*DmlExecutionProvider.*CPUExecutionProvider",
        "onnxruntime-directml",
    ),
    Row(faults.lying_device, "detector", r"\(device_lies\)", "driver"),
    Row(faults.second_owner, "owner", r"belongs to an old worker \(pid \d+", "End that process"),
    Row(faults.altered_model, "model", "is not what was published", "Remove that file"),
    Row(faults.full_object_store, "object store", r"/dev/shm has .* it is full", "Remove what fills it"),
    Row(faults.clock_skew, "clock", r"(89|90|91) s ahead of the head's", "same time server"),
    Row(faults.poison_photo, "quarantine", r"1 photo\(s\) ended the process", "tried again after"),
    Row(faults.head_gone, "head", "the head does not answer at", "Start the head"),
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    need("network", "ip", "iptables", "unshare")
    if not can_make_networks():
        if "network" in REQUIRED:
            pytest.fail("network: this system lets nobody make network namespaces")
        pytest.skip("network: this system lets nobody make network namespaces")
    with Site(has_cable=True, RAYFACE_DETECTOR__QUARANTINE_S=str(faults.QUARANTINE_S)) as made:
        place = ("place", "--address", made.address)
        eventually(lambda: made.head.run(*place, timeout_s=180).returncode == 0, 90, made.said)
        yield made


def _named(findings: Findings, row: Row) -> Findings:
    return [
        each
        for each in findings
        if each["name"] == row.named and each["verdict"] != "ok" and not (row.here and each["where"])
    ]


def test_of_a_cluster_that_works_it_finds_nothing_wrong(site: Site) -> None:
    """Both machines find a healthy cluster; warnings come from this test's machine alone (CPU, memory)."""
    for look in (faults.at_head, faults.at_gpu):
        wrong = [each for each in look(site) if each["verdict"] == "wrong"]
        assert not wrong


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.plant.__name__)
def test_a_planted_fault_is_named_and_its_remedy_works(site: Site, row: Row) -> None:
    with faults.mended(site, row.plant) as looks:
        last: list[Findings] = []

        def is_named() -> bool:
            last[:] = [next_look()]
            return any(
                re.search(row.cause, each["evidence"]) and re.search(row.advice, each["advice"])
                for each in _named(last[0], row)
            )

        def is_well() -> bool:
            last[:] = [next_look()]
            return not _named(last[0], row) and any(each["name"] == row.named for each in last[0])

        def said() -> str:
            return "\n".join(f"{each}" for each in (last[0] if last else []) if each["verdict"] != "ok")

        next_look = next(looks)
        eventually(is_named, 60, said)
        next_look = next(looks)
        eventually(is_well, 120, said)


def test_a_bundle_has_what_a_bug_report_needs_and_no_token(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    faults.bundle(site.head, target, RAYFACE_CLUSTER__ADDRESS=site.address)
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        everything = b"".join(archive.read(name) for name in names)
    for name in ("findings.json", "machine.json", "settings.json", "status.json", "variables.txt"):
        assert name in names
    assert any(name.startswith("logs/") for name in names)
    assert site.head.variables["RAY_AUTH_TOKEN"].encode() not in everything


def test_ports_can_be_tried_without_ray(site: Site) -> None:
    """One machine listens, and the other connects."""
    machine = site.another()
    machine.start("listen", "doctor", site.address, "--listen", "60")
    eventually(lambda: "Listening" in machine.said("listen"), 30, lambda: machine.said("listen"))
    host = GPU_ADDRESS
    changes: dict[str, str | None] = {
        f"RAYFACE_JOIN__{name}": machine.variables[f"RAYFACE_JOIN__{name}"]
        for name in ("FIRST_PORT", "FIRST_WORKER_PORT")
    }
    done = site.head.run("doctor", "--knock", host, changes=changes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is reached") == 25
    assert f"{HEAD_ADDRESS} reached port" in machine.said("listen")
