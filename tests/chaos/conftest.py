"""Chaos: real Ray and a simulated device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import BlockingFaceClient
from tests.chaos.device import FOLDER_VARIABLE, OPENER
from tests.hosts.machines import HERE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is marked `chaos`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the simulated device's orders and notes."""
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="module")
def client(device: Path) -> Iterator[BlockingFaceClient]:
    """A client on an embedded cluster of its own, with the simulated device for one GPU."""
    variables = {
        FOLDER_VARIABLE: str(device),
        "RAYFACE_DETECTOR__OPENER": OPENER,
        "RAYFACE_DETECTOR__INPUT_SIZE": "320",
        "RAYFACE_DETECTOR__PROVIDER": "directml",
        # Another suite may have this machine's first adapter open.
        "RAYFACE_DETECTOR__DEVICE_ID": "77",
        "RAYFACE_DETECTOR__MAX_RUN_S": "2",
        "RAYFACE_DETECTOR__GOLDEN_INTERVAL_S": "5",
        "RAYFACE_CLIENT__IMAGES_PER_CALL": "64",
        # Ray's processes import the device from here.
        "PYTHONPATH": str(HERE),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with BlockingFaceClient() as made:
            yield made
