"""A real Prometheus on a live cluster, every panel of the dashboard, and pages in a real browser."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.site import Site
from tests.dashboards import queries
from tests.hosts.browser import Browser
from tests.hosts.lab import need, sh
from tests.hosts.machines import HERE, eventually

#: Pictures of the pages, for people who look at a run; .ci/run keeps them.
PICTURES = Path(os.environ.get("RAYFACE_TEST_PICTURES", HERE / ".ci" / "pictures"))


@dataclass
class Watched:
    """A cluster with a client that asks all the time, a Prometheus, and the backend's page."""

    site: Site
    prometheus: str
    backend: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The present value of a query at Prometheus."""
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/query?{asked}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def status(self) -> dict[str, Any]:
        """`rayface status`."""
        done = self.site.head.run("status", "--address", self.site.address, "--json")
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    need("watching", "prometheus", "promtool", "chromium", "chromedriver")
    folder = tmp_path_factory.mktemp("watching")
    port, backend_port = _free_port(), _free_port()
    processes: list[subprocess.Popen[bytes]] = []
    with Site(has_cable=False) as site:
        config = (HERE / "configs" / "prometheus" / "prometheus.yml").read_text()
        machines = site.head.folder / "ray" / "prom_metrics_service_discovery.json"
        config = config.replace("/tmp/ray/prom_metrics_service_discovery.json", str(machines))
        config = config.replace("scrape_interval: 5s", "scrape_interval: 1s")
        (folder / "prometheus.yml").write_text(config)
        (folder / "rules.yml").write_text((HERE / "configs" / "prometheus" / "rules.yml").read_text())
        command = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        variables = {
            "RAYFACE_CLUSTER__ADDRESS": site.address,
            "RAYFACE_APP_HOST": "127.0.0.1",
            "RAYFACE_APP_PORT": str(backend_port),
            "RAYFACE_APP_PROMETHEUS": f"http://127.0.0.1:{port}",
        }
        try:
            with (folder / "log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "app.web"],
                        env=os.environ | site.head.variables | variables,
                        cwd=HERE,
                        stdout=log,
                        stderr=log,
                    )
                )
            site.call("person", "interactive", 3600, 1)
            site.call("scan", "bulk", 3600, 1_000_000)
            made = Watched(site, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{backend_port}")
            eventually(lambda: _has_figures(made), 120, lambda: (folder / "log").read_text() + site.said())
            yield made
        finally:
            for process in processes:
                process.terminate()
                process.wait(30)


def _has_figures(watched: Watched) -> bool:
    try:
        return bool(watched.query("rate(ray_rayface_client_images_total[1m]) > 0"))
    except OSError:
        return False


def test_every_panel_has_figures(watched: Watched) -> None:
    """The queries of the dashboard, asked of a real Prometheus that scrapes a live cluster."""
    panels: dict[str, list[str]] = {}
    for title, expression in queries():
        panels.setdefault(title, []).append(expression)

    def empty() -> list[str]:
        return [t for t, asked in panels.items() if not any(watched.query(each) for each in asked)]

    eventually(lambda: not empty(), 60, lambda: f"without figures: {empty()}")


def test_the_figures_are_the_clusters(watched: Watched) -> None:
    """Prometheus and `rayface status` agree on the one owner, and on how much work it did."""
    (detector,) = watched.status()["detectors"]
    infos = watched.query("ray_rayface_detector_info")
    assert len(infos) == 1, [each["metric"] for each in infos]
    (info,) = infos
    assert info["metric"]["incarnation"] == detector["health"]["stamp"]["incarnation"]
    assert info["metric"]["device"] == detector["device"]
    (owners,) = watched.query("count(max by (incarnation) (ray_rayface_detector_info))")
    assert owners["value"][1] == "1"

    pairs = {
        'sum(ray_rayface_images_total{outcome="detected"})': "num_detected",
        "sum(ray_rayface_runs_total)": "num_runs",
        "sum(ray_rayface_run_images_total)": "num_images_run",
        "sum(ray_rayface_run_slots_total)": "num_slots",
    }

    def counted() -> dict[str, float]:
        return {field: float(watched.query(asked)[0]["value"][1]) for asked, field in pairs.items()}

    before = watched.status()["detectors"][0]["health"]
    eventually(lambda: all(value >= before[field] for field, value in counted().items()), 30)
    last = counted()
    after = watched.status()["detectors"][0]["health"]
    assert all(value <= after[field] for field, value in last.items()), (last, after)


def test_the_backends_page_shows_them(watched: Watched) -> None:
    """In Chromium, the page shows five rows, the owner, figures like those of the cluster, and no error."""
    with Browser() as browser:
        browser.open(watched.backend)
        eventually(lambda: browser.run("return document.querySelectorAll('section').length") > 15, 30)
        rows = browser.run("return [...document.querySelectorAll('h2')].map(each => each.innerText)")
        assert [row.split(":")[0] for row in rows] == [
            "Owners",
            "Connection",
            "Fallback",
            "Utilisation",
            "Errors",
        ]
        value = (
            "return [...document.querySelectorAll(`section[data-panel='${arguments[0]}'] b`)]"
            ".map(each => Number(each.dataset.value))"
        )
        assert browser.run(value, "Owners of each device") == [1]
        assert browser.run(value, "Golden photo") == [1]

        def is_same() -> bool:
            (shown,) = browser.run(value, "Images a second")
            asked = 'sum(rate(ray_rayface_images_total{outcome="detected"}[1m]))'
            measured = float(watched.query(asked)[0]["value"][1])
            return measured > 0 and bool(shown == pytest.approx(measured, rel=0.2))

        eventually(is_same, 60, browser.text)
        assert "FaceDetector is ready, its circuit closed" in browser.text()
        assert browser.run("return document.querySelectorAll('.bad').length") == 0
        browser.picture(PICTURES / "page.png", whole=True)


def test_rays_own_dashboard_shows_the_detector(watched: Watched) -> None:
    """With the token, the page shows the actor's name, its process, and that it is alive."""
    (detector,) = watched.status()["detectors"]
    port = watched.site.head.variables["RAYFACE_HEAD__DASHBOARD_PORT"]
    with Browser() as browser:
        browser.open(f"http://127.0.0.1:{port}/#/actors")
        eventually(lambda: "oken" in browser.text() or "FaceDetector" in browser.text(), 60, browser.text)
        browser.picture(PICTURES / "ray-token.png")
        assert "FaceDetector" not in browser.text(), "the dashboard shows it to anybody"
        browser.type("input[type=password]", watched.site.head.variables["RAY_AUTH_TOKEN"])
        browser.click("Submit")
        eventually(lambda: "FaceDetector" in browser.text(), 60, browser.text)
        said = browser.text()
        browser.picture(PICTURES / "ray-actors.png")
        assert "ALIVE" in said
        assert re.search(rf"\b{detector['pid']}\b", said), said


def test_rays_own_commands_show_the_detector(watched: Watched) -> None:
    """Ray's tools list the actor with its name and state, its tasks by the name, and its log by the actor."""
    variables = watched.site.head.variables | {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": watched.site.address}

    def ray(*arguments: str) -> str:
        return sh(sys.executable, "-m", "ray.scripts.scripts", *arguments, env=os.environ | variables)

    (detector,) = watched.status()["detectors"]
    (actor,) = json.loads(ray("list", "actors", "--filter", "state=ALIVE", "--detail", "--format", "json"))
    assert actor["name"] == "FaceDetector"
    assert actor["pid"] == detector["pid"]
    assert detector["incarnation"] in actor["repr_name"]
    assert "FaceDetector.detect" in ray("summary", "tasks")
    log = ray("logs", "actor", "--id", actor["actor_id"], "--err")
    line = next((each for each in log.splitlines() if "event=ready" in each), "")
    assert "detector=FaceDetector" in line, log
    assert f"incarnation={detector['incarnation']}" in line
    assert variables["RAY_AUTH_TOKEN"] not in log
