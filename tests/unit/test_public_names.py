"""What people import from `cluster`, and what it costs them."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cluster
from cluster import BlockingFaceClient, FaceClient

HERE = Path(__file__).parents[2]
OUTCOMES = {
    "Detected",
    "Rejected",
    "Failed",
    "Outcome",
    "Face",
    "Failure",
    "Rejection",
    "Priority",
    "Health",
    "State",
    "Stamp",
    "Times",
}
CLIENTS = {"FaceClient", "BlockingFaceClient", "ClientStatus", "load_settings", "Settings"}


def test_outcomes_and_clients_are_imported_from_cluster() -> None:
    assert set(cluster.__all__) >= OUTCOMES | CLIENTS
    assert all(hasattr(cluster, name) for name in cluster.__all__)


def test_the_version_is_the_projects() -> None:
    with (HERE / "pyproject.toml").open("rb") as file:
        assert cluster.__version__ == tomllib.load(file)["project"]["version"]


def test_importing_cluster_loads_nothing_heavy() -> None:
    """Neither Ray nor what opens photos and models, nor what only commands, nodes and tracing need."""
    program = "import sys, cluster; cluster.FaceClient; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=HERE
    )
    loaded = set(done.stdout.split())
    assert "cluster.client.face_client" in loaded
    assert loaded.isdisjoint({"ray", "cv2", "onnxruntime", "onnx", "click", "rich", "opentelemetry"})
    assert not any(name.startswith(("cluster.cli.", "cluster.doctor.")) for name in loaded)


@pytest.mark.parametrize("client", [FaceClient, BlockingFaceClient])
def test_every_method_of_a_client_says_itself_what_it_does(client: type) -> None:
    """Its arguments and its errors too; nobody is sent to another class."""
    for name, method in inspect.getmembers(
        client, lambda member: callable(member) or isinstance(member, property)
    ):
        if name.startswith("_"):
            continue
        doc = inspect.getdoc(method) or ""
        assert len(doc) > 40, name
        assert "See `" not in doc, name
        if callable(method):
            arguments = list(inspect.signature(method).parameters)
            assert all(f"{each}:" in doc for each in arguments if each != "self"), (name, doc)
