"""`rayface status` and `rayface circuit reset` against a real cluster, a client, and a device that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.device import tell
from tests.chaos.site import Site
from tests.hosts.machines import eventually


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(has_cable=False) as made:
        yield made


def _status(site: Site) -> tuple[int, dict[str, Any]]:
    done = site.head.run("status", "--address", site.address, "--json")
    return done.returncode, json.loads(done.stdout or "{}")


def _until(site: Site, so: Callable[[int, dict[str, Any]], Any]) -> dict[str, Any]:
    def seen() -> dict[str, Any] | None:
        code, status = _status(site)
        return status if so(code, status) else None

    found: dict[str, Any] = eventually(seen, 90, site.said)
    return found


def test_without_a_detector_it_says_so_and_places_none(site: Site) -> None:
    code, status = _status(site)
    assert code == 3
    assert status["detectors"] == []
    assert status["address"] == site.address


def test_all_is_well_with_a_detector_and_a_client(site: Site) -> None:
    site.call("person", "interactive", 600, 1)
    status = _until(site, lambda code, status: code == 0 and status["clients"])
    (detector,) = status["detectors"]
    assert detector["state"] == "ready"
    assert detector["device"] == f"directml:{site.gpu.ports}"
    (client,) = status["clients"]
    assert [each["circuit"] for each in client["status"]["detectors"]] == ["closed"]
    assert any(node["resources"].get("directml") == 1 for node in status["nodes"])
    page = site.head.run("status", "--address", site.address).stdout
    for said in ("FaceDetector", "ready", "closed", "1 directml"):
        assert said in page


def test_an_open_circuit_is_shown_with_its_reason_and_can_be_reset(site: Site) -> None:
    """The device fails every photo but the golden one; a person who mends it resets the circuit at once."""
    tell(site.device, fail=True)
    status = _until(site, lambda code, status: status["clients"][0]["status"]["detectors"][0]["num_opened"])
    assert _status(site)[0] in (0, 3)
    shown = status["clients"][0]["status"]["detectors"][0]
    assert "simulated device fails" in shown["last_error"]
    tell(site.device)
    done = site.head.run("circuit", "reset", "--address", site.address, "--json")
    assert done.returncode == 0, done.stderr
    (note,) = json.loads(done.stdout)
    assert note["status"]["detectors"][0]["circuit"] == "closed"
    wrong = site.head.run("circuit", "reset", "--address", site.address, "--detector", "Nobody")
    assert wrong.returncode == 2
    assert "FaceDetector" in wrong.stderr


def test_an_embedded_cluster_has_nothing_to_show(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "local.toml"
    config.write_text("")
    done = site.head.run("status", "--config", str(config))
    assert done.returncode == 2
    assert "--address" in done.stderr
