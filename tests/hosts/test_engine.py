"""The project's own docker-compose.yml on a real engine; a GPU's machine in another network joins it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.models import cache_dir
from tests.conftest import PHOTOS
from tests.hosts.engine import Engine
from tests.hosts.lab import Network, in_namespace, need
from tests.hosts.machines import HERE, eventually, processes_with, tell

_HEAD_HOST, _WORKER = "10.77.0.1", "10.77.0.2"
#: All services except Grafana: its image comes only from a registry.
_SERVICES = ("pod", "ray-head", "backend", "prometheus")
_UP = ("up", "-d", "--no-build", "--pull", "never", "--wait", "--wait-timeout", "120", *_SERVICES)


@dataclass
class Site:
    """The Docker host, and the machine with the GPU, which is a native process beside it."""

    engine: Engine
    folder: Path
    docker_host: str
    worker: str
    joined: subprocess.Popen[bytes] | None = None

    def http(self, path: str, photo: Path | None = None, port: int = 8000) -> Any:
        """Ask the backend, or Prometheus, as another program of the Docker host would."""
        command = ["curl", "-sS", "-m", "40", f"http://127.0.0.1:{port}{path}"]
        if photo is not None:
            command += ["--data-binary", f"@{photo}"]
        done = subprocess.run(
            [*in_namespace(self.docker_host), *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return {"error": done.stderr}
        return json.loads(done.stdout)

    def join(self, *head: str) -> None:
        """`rayface join` on the other machine; by default with the names of the published shape."""
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{_HEAD_HOST} ray-head\n{_WORKER} win-host\n")
        arguments = head or ("ray-head:6379", "--address", "win-host")
        command = [sys.executable, "-m", "cluster", "join", *arguments]
        variables = {
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAYFACE_JOIN__TEMP_DIR": str(self.folder / "ray"),
            "RAYFACE_JOIN__LOG_FOLDER": str(self.folder / "log"),
            "RAYFACE_JOIN__NODE_LOCK": "engine-node",
        }
        with (self.folder / "join").open("wb") as output:
            self.joined = subprocess.Popen(
                [*in_namespace(self.worker, hosts, "gpu-box"), *command, "--device", "cpu:900"],
                cwd=HERE,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """The last lines of the join and of the containers."""
        joined = self.folder / "join"
        said = joined.read_text()[-2000:] if joined.exists() else ""
        return said + self.engine.compose("logs", "--tail", "20")

    def detects(self) -> bool:
        """Whether the backend finds the faces of a photo that has some."""
        answer = self.http("/faces", PHOTOS / "montage_faces.jpg")
        return answer.get("status") == "detected" and len(answer["faces"]) == 7


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    need("engine", "dockerd", "docker", "debootstrap", "ip", "iptables", "nsenter", "curl", "prometheus")
    # Not pytest's folder: Ray's sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="rfe", dir="/var/tmp"))
    network = Network()
    token = folder / "token"
    token.write_text(os.urandom(32).hex())
    token.chmod(0o600)
    os.chown(token, 1000, 1000)
    variables = {"RAYFACE_TOKEN_FILE": str(token), "RAYFACE_BIND": _HEAD_HOST, "RAYFACE_WORKER": _WORKER}
    engine = Engine(folder, variables | {"RAYFACE_HEAD_ADDRESS": _HEAD_HOST})
    docker_host, worker = network.machine("docker"), network.machine("gpu")
    site = Site(engine, folder, docker_host, worker)
    try:
        network.cable(docker_host, f"{_HEAD_HOST}/24", worker, f"{_WORKER}/24")
        engine.install_compose()
        engine.start()
        engine.make_base()
        engine.make_prometheus()
        here = folder / "build-here.yml"
        here.write_text("services: {pod: {build: {network: host}}}\n")
        engine.use("docker-compose.yml", str(here))
        engine.compose("build", "-q", timeout_s=900)
        engine.use("docker-compose.yml")
        engine.stop()
        engine.start(docker_host)
        yield site
    finally:
        if site.joined is not None and site.joined.poll() is None:
            site.joined.send_signal(signal.SIGTERM)
            site.joined.wait(40)
        if engine.is_running:
            engine.compose("down", "-v", "-t", "5", "--remove-orphans")
            engine.stop()
        network.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_up_is_healthy_and_the_backend_says_what_is_missing(site: Site) -> None:
    site.engine.compose(*_UP)
    answer = eventually(lambda: site.http("/health"), 20)
    assert "rayface join" in answer["error"]


def test_a_machine_in_another_network_joins_and_photos_are_detected(site: Site) -> None:
    site.join()
    eventually(site.detects, 120, site.said)
    health = site.http("/health")
    assert health["host"] == "gpu-box"
    assert site.http("/faces", HERE / "README.md")["status"] == "rejected"


def test_prometheus_has_the_figures_of_both_machines_and_the_page_shows_them(site: Site) -> None:
    """Ray's list of actors, read through the published ports, and the backend's own page."""
    query = "/api/v1/query?query=ray_rayface_images_total"

    def has_figures() -> bool:
        found = site.http(query, port=9090).get("data", {}).get("result", [])
        return any(each["metric"]["instance"] == "win-host:7384" for each in found)

    eventually(has_figures, 60, site.said)

    def panels() -> dict[str, Any]:
        return {panel["title"]: panel for row in site.http("/panels") for panel in row["panels"]}

    owners = eventually(lambda: panels()["Owners of each device"]["series"], 60, site.said)
    assert owners[0]["points"][-1][1] == 1
    assert not any(panel["error"] for panel in panels().values())
    page = subprocess.run(
        [*in_namespace(site.docker_host), "curl", "-sS", "http://127.0.0.1:8000/"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "<title>rayface</title>" in page.stdout


def test_only_what_must_be_is_published(site: Site) -> None:
    """I7: the other machine scans the ports of the Docker host; the dashboard is not among the open ones."""
    scan = (
        "import socket\n"
        "def is_open(port):\n"
        "    with socket.socket() as probe:\n"
        "        probe.settimeout(2)\n"
        f"        return probe.connect_ex(('{_HEAD_HOST}', port)) == 0\n"
        "print([port for port in range(1, 65536) if is_open(port)])\n"
    )
    done = subprocess.run(
        [*in_namespace(site.worker), sys.executable, "-c", scan], capture_output=True, text=True, check=True
    )
    found = set(json.loads(done.stdout))
    assert 6379 in found
    assert found <= {*range(6379, 6382), *range(10002, 10122)}


def test_the_dashboard_asks_for_the_token_even_on_loopback(site: Site) -> None:
    """I7."""
    ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8265/api/v0/nodes"]
    done = subprocess.run([*in_namespace(site.docker_host), *ask], capture_output=True, text=True, check=True)
    assert done.stdout == "401"


def test_a_plain_user_runs_it_all(site: Site) -> None:
    for service in ("ray-head", "backend", "pod"):
        assert site.engine.compose("exec", "-T", service, "id", "-u").strip() == "1000"


def test_a_killed_head_container_comes_back_and_photos_keep_coming(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.http("/health")
    name = site.engine.compose("ps", "-q", "ray-head").strip()
    os.kill(int(site.engine.docker("inspect", "-f", "{{.State.Pid}}", name)), signal.SIGKILL)
    outcomes = []
    until = time.monotonic() + 30
    while time.monotonic() < until:
        outcomes.append(site.http("/faces", PHOTOS / "montage_faces.jpg"))
        time.sleep(1)
    eventually(site.detects, 60, site.said)
    assert all("status" in outcome or "error" in outcome for outcome in outcomes)
    assert not any(outcome.get("status") == "detected" and not outcome["faces"] for outcome in outcomes)
    eventually(lambda: "healthy" in site.engine.compose("ps", "ray-head"), 60)
    after = site.http("/health")
    assert after["stamp"]["epoch"] >= before["stamp"]["epoch"]
    num_detected = sum(outcome.get("status") == "detected" for outcome in outcomes)
    tell(
        capsys,
        f"head's container killed: {num_detected} of {len(outcomes)} photos detected meanwhile, "
        f"the same detector: {before['pid'] == after['pid']}",
    )


def test_the_machine_leaves_and_comes_back(site: Site) -> None:
    assert site.joined is not None
    site.joined.send_signal(signal.SIGINT)
    assert site.joined.wait(40) == 0
    assert not processes_with(str(site.folder / "ray"))
    assert site.http("/faces", PHOTOS / "montage_faces.jpg")["status"] == "failed"

    # This container cannot reach the internet to fetch the model for its CPU.
    site.engine.give("backend", cache_dir(), "/var/lib/rayface/models")
    answer = eventually(lambda: _by_cpu(site), 90, site.said)
    assert len(answer["faces"]) == 7
    assert answer["served_by"] == "fallback on CPUExecutionProvider"
    status = site.http("/status")
    assert status["detectors"][0]["circuit"] != "closed"
    assert sum(status["fallback"].values()) >= 1

    site.join()
    eventually(lambda: site.detects() and not _by_cpu(site), 120, site.said)


def _by_cpu(site: Site) -> dict[str, Any] | None:
    """I5: the outcome if the backend's own CPU made it (it says so, and why), or else None."""
    answer = site.http("/faces", PHOTOS / "montage_faces.jpg")
    return answer if (answer.get("fallback") or "").startswith("circuit open: ") else None


def test_the_hosts_own_network_works_too(site: Site) -> None:
    """The second shape, for native Linux: nothing is published, the host's ports are the head's."""
    assert site.joined is not None
    site.joined.send_signal(signal.SIGINT)
    site.joined.wait(40)
    site.engine.compose("down", "-v", "-t", "5")
    site.engine.use("docker-compose.yml", "docker-compose.host.yml")
    site.engine.compose(*_UP)
    site.join(f"{_HEAD_HOST}:6379")
    eventually(site.detects, 120, site.said)
