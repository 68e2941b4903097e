"""Our side: a `FaceClient` with the settings of its environment.

With the argument "same-process", this process is Ray's driver itself; with "detectors=2", the client uses the
first two detectors only.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.faces import Detected
from cluster import FaceClient, load_settings
from cluster.client import parts
from cluster.connection import driver_process
from cluster.connection.cluster_client import ClusterClient
from cluster.connection.connection import Connection
from cluster.connection.early_process import EarlyProcess
from cluster.connection.handlers import Handlers
from cluster.deployment import joining
from cluster.deployment.ray_errors import fault_of
from cluster.errors import Fault, NotAnswered
from cluster.settings import Settings
from cluster.slabs import Slabs
from tests.benchmarks import heartbeat
from tests.benchmarks.loads import Server
from tests.benchmarks.sides.process import RAY_ROLES, Side, serve
from tests.benchmarks.simulated_device import GAUGE_VARIABLE, OPENER

_HEARTBEAT = (
    "from tests.benchmarks.heartbeat import beat_in_every_loop; beat_in_every_loop('driver process'); "
)


def simulated(folder: Path, input_size: int, **variables: str) -> dict[str, str]:
    """Variables for a detector on a simulated GPU whose gauge lies in the folder.

    Args:
        folder: holds the gauge.
        input_size: side of the tensor; pixels of that size travel as they are.
        variables: more of them.
    """
    return {
        GAUGE_VARIABLE: str(folder / "ours.gauge"),
        "RAYFACE_DETECTOR__OPENER": OPENER,
        "RAYFACE_DETECTOR__PROVIDER": "directml",
        "RAYFACE_DETECTOR__EXCLUSIVE": "false",
        "RAYFACE_DETECTOR__INPUT_SIZE": str(input_size),
        "RAYFACE_CLIENT__MAX_IMAGES_IN_FLIGHT": "512",
        **variables,
    }


def ours(name: str, variables: dict[str, str], *arguments: str) -> Side:
    """Our side as a child process."""
    return Side("tests.benchmarks.sides.ours", name, variables, *arguments)


class OurServer:
    """Asks a client."""

    def __init__(self, client: FaceClient) -> None:
        self._client = client

    async def detect(self, images: Sequence[Any]) -> list[int | str]:
        """One call of the client."""
        answers = await self._client.detect(images, deadline_s=60.0)
        return [
            len(each.faces) if isinstance(each, Detected) else str(each.as_dict().get("reason"))
            for each in answers
        ]


class SameProcess(ClusterClient):
    """The cluster without a driver process: its handlers answer in this process, which is Ray's driver."""

    address = "this process"
    why_not = ""
    num_joined = 1

    def __init__(
        self,
        settings: Settings,
        log: logging.Logger,
        on_joined: Callable[[], None] = lambda: None,
        slabs: Slabs | None = None,
        early: EarlyProcess | None = None,
    ) -> None:
        super().__init__(self._answer, slabs)
        self._settings = settings
        self._slabs = slabs
        self._leave: Callable[[], None] = lambda: None
        self._handlers: Handlers | None = None

    async def open(self, *, wait: bool = True) -> None:
        """Join, or start an embedded cluster."""
        import ray

        # Ray's driver belongs to the main thread.
        self._leave = joining.join_or_start(self._settings)
        self._handlers = Handlers(self._settings, ray.get_runtime_context().gcs_address, self._slabs)

    async def close(self) -> None:
        """Leave the cluster."""
        self._leave()

    async def _answer(self, question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        assert self._handlers is not None
        try:
            async with asyncio.timeout(timeout_s):
                return await self._handlers.table()[question](*arguments)
        except Exception as error:
            fault: Fault = fault_of(error)
            raise NotAnswered(fault) from error


class SomeDetectors(Connection):
    """A connection that knows the first few detectors of its cluster only."""

    num = 0

    async def place_detectors(self, *, timeout_s: float) -> list[str]:
        """The first few."""
        return (await super().place_detectors(timeout_s=timeout_s))[: self.num]

    async def list_detectors(self, *, timeout_s: float) -> list[str]:
        """The first few."""
        return (await super().list_detectors(timeout_s=timeout_s))[: self.num]


@asynccontextmanager
async def _opened() -> AsyncIterator[Server]:
    heartbeat.beat("client")
    # `Parts` finds the class of its connection by this name.
    if "same-process" in sys.argv:
        vars(parts)["Connection"] = SameProcess
    elif some := [int(word.partition("=")[2]) for word in sys.argv if word.startswith("detectors=")]:
        SomeDetectors.num, vars(parts)["Connection"] = some[0], SomeDetectors
    async with FaceClient(load_settings()) as client:
        yield OurServer(client)


def main() -> None:
    """Serve the parent's loads."""
    before, _, after = driver_process._PROGRAM.rpartition("from cluster.connection.driver")
    driver_process._PROGRAM = f"{before}{_HEARTBEAT}from cluster.connection.driver{after}"
    serve(_opened, RAY_ROLES)


if __name__ == "__main__":
    main()
