"""Live tests: real Ray, one cluster a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import BlockingFaceClient

HERE = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is marked `live`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session", autouse=True)
def _no_kept_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The commands of the tests do not find the cluster that a developer keeps with `rayface up`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def client() -> Iterator[BlockingFaceClient]:
    """A client on an embedded cluster of its own, which ends with the module."""
    with BlockingFaceClient() as made:
        yield made


def ray_processes(parent: int) -> list[psutil.Process]:
    """The processes that Ray started for a driver, without the driver itself."""
    try:
        children: list[psutil.Process] = psutil.Process(parent).children(recursive=True)
        return children
    except psutil.NoSuchProcess:
        return []


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `rayface …` as a separate process."""
    return subprocess.run(
        [sys.executable, "-m", "cluster", *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        **({"env": os.environ | options.pop("variables")} if "variables" in options else {}),
        **options,
    )


def rows(text: str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines output."""
    return [json.loads(line) for line in text.splitlines()]
