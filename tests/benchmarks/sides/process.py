"""Starts a side of a comparison as a child process, and asks it for one load after another.

`Side` is the parent's end; `serve` is the child's. They exchange one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.benchmarks.loads import Figures, Load, Server, measure

HERE = Path(__file__).parents[3]
_END_WITHIN_S = 60.0
#: Ray's processes by words of their command lines; everything else of Ray counts as an agent.
RAY_ROLES = {
    "cluster.connection": "driver process",
    # Ray names its workers "ray::" and what they do; only a detector has work here.
    "ray::": "detector",
    "gcs_server": "gcs",
    "raylet/raylet": "raylet",
    "ray": "agents",
}


class Side:
    """One side of a comparison, as a child process: `ready` starts it, the end of its context ends it.

    Args:
        module: has a `main` that calls `serve`.
        name: names the side in tables.
        variables: added to the child's environment.
        arguments: of the child's command line.
    """

    def __init__(
        self, module: str, name: str, variables: Mapping[str, str] | None = None, *arguments: str
    ) -> None:
        self.name = name
        # Ray's sockets need a short path.
        self._folder = tempfile.TemporaryDirectory(prefix="rfb", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._log = (folder / "log").open("w+", encoding="utf-8", errors="replace")
        own = {
            "PYTHONPATH": str(HERE),
            "RAY_TMPDIR": self._folder.name,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAYFACE_TEST_FOLDER": self._folder.name,
        }
        self._command = [sys.executable, "-m", module, *arguments]
        self._variables = {**os.environ, **own, **(variables or {})}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it ended; its last words are in the message.
        """
        self._process = subprocess.Popen(
            self._command,
            cwd=HERE,
            env=self._variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._read()
        return self

    def measure(self, load: Load) -> Figures:
        """Put a load on it, and return what was measured.

        Raises:
            RuntimeError: it ended; its last words are in the message.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(vars(load)) + "\n")
        self._process.stdin.flush()
        return Figures(**self._read())

    def close(self) -> None:
        """End it, and everything that it has started."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            try:
                self._process.wait(_END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def _read(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(_END_WITHIN_S)
            self._log.seek(0)
            said = "".join(self._log.readlines()[-25:])
            raise RuntimeError(f"{self.name} ended with code {self._process.returncode}:\n{said}")
        read: dict[str, Any] = json.loads(line)
        return read


def serve(open_server: Callable[[], AbstractAsyncContextManager[Server]], roles: dict[str, str]) -> None:
    """Open a server, and measure each load that comes by standard input, until it is closed."""
    # Ray and others print to the standard output; the parent reads only what is meant for it.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    async def run() -> None:
        async with open_server() as server:
            print("{}", file=answers, flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                figures = await measure(server, Load(**json.loads(line)), roles)
                print(json.dumps(figures.as_json()), file=answers, flush=True)

    asyncio.run(run())


@asynccontextmanager
async def as_it_is(server: Server) -> AsyncIterator[Server]:
    """Hand out a server that needs no closing."""
    yield server
