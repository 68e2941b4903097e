"""Suites about several machines: real heads and joins, each with separate ports and folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.machines import Machine, Machines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is marked `hosts`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hosts)


@pytest.fixture(scope="module")
def make_machine() -> Iterator[Callable[..., Machine]]:
    """Makes machines that share a token and end with the module, the last one first."""
    machines = Machines()
    yield machines
    machines.close()
