"""A peer's server in its own environment, asked over HTTP by a client of this process (aiohttp)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.benchmarks.large_photos import PHOTOS
from tests.benchmarks.loads import Server
from tests.benchmarks.sides.process import HERE, Side, serve

_START_WITHIN_S = 120.0
#: What every peer's model needs.
_COMMON = ("numpy", "opencv-python-headless", "onnxruntime", "pillow")


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        module: in `tests.benchmarks.peers`.
        name: in tables.
        packages: of its environment, beside those that every peer needs.
        path: of its address.
        field: the field of a form that takes the photo; empty where the body is the photo.
    """

    module: str
    name: str
    packages: tuple[str, ...]
    path: str
    field: str

    def installed(self, folder: Path) -> Path:
        """Make its environment in a folder, unless it is there; returns the Python in it.

        Raises:
            subprocess.CalledProcessError: a package could not be installed; pip has said why.
        """
        home, done = folder / self.module, folder / self.module / "installed"
        python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not done.exists():
            print(f"<!-- installing {self.name} -->", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, *self.packages, *_COMMON], check=True, stdout=sys.stderr)
            done.touch()
        return python

    def side(self, python: Path, num_workers: int, variables: dict[str, str]) -> Side:
        """The peer as a side of a comparison."""
        words = (str(python), self.module, self.path, self.field, str(num_workers))
        return Side("tests.benchmarks.sides.peer", self.name, variables, *words)


PEERS = (
    Peer("ray_serve_server", "Ray Serve", ("ray[serve]==2.60.0",), "/", ""),
    Peer("litserve_server", "LitServe", ("litserve", "python-multipart"), "/predict", "photo"),
    Peer(
        "fastapi_server",
        "FastAPI",
        ("fastapi", "uvicorn[standard]", "python-multipart"),
        "/detect",
        "photo",
    ),
    Peer("bentoml_server", "BentoML", ("bentoml",), "/detect", "photos"),
)


class _Http:
    """Posts one photo after another."""

    def __init__(self, session: aiohttp.ClientSession, address: str, field: str) -> None:
        self._session = session
        self._address = address
        self._field = field

    async def detect(self, images: Sequence[Any]) -> list[int | str]:
        return list(await asyncio.gather(*(self._one(image) for image in images)))

    async def _one(self, photo: bytes) -> int | str:
        body: Any = photo
        if self._field:
            body = aiohttp.FormData()
            body.add_field(self._field, photo, filename="photo.jpg", content_type="image/jpeg")
        async with self._session.post(self._address, data=body) as answer:
            if answer.status != 200:
                return f"{answer.status}: {(await answer.text())[:200]}"
            found = await answer.json(content_type=None)
            # BentoML answers a list with one element for a list with one photo.
            return len((found[0] if isinstance(found, list) else found)["boxes"])


@asynccontextmanager
async def _opened() -> AsyncIterator[Server]:
    python, module, path, field, num_workers = sys.argv[1:]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [python, "-m", f"tests.benchmarks.peers.{module}", str(port), num_workers]
    server = subprocess.Popen(command, cwd=HERE, stdout=sys.stderr, env=_without_our_environment())
    photo = (PHOTOS / "astronaut.jpg").read_bytes()
    try:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            http = _Http(session, f"http://127.0.0.1:{port}{path}", field)
            async with asyncio.timeout(_START_WITHIN_S):
                while not await _answers(http, photo):
                    if server.poll() is not None:
                        raise RuntimeError(f"{module} ended with code {server.returncode}.")
                    await asyncio.sleep(1.0)
            # Each worker has answered once.
            await asyncio.gather(*(http.detect([photo]) for _ in range(4 * int(num_workers))))
            yield http
    finally:
        _end(server)


async def _answers(http: _Http, photo: bytes) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        answer = (await http.detect([photo]))[0]
        if isinstance(answer, int):
            return True
        print(answer, file=sys.stderr, flush=True)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server and what it has started."""
    below = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    _, left = psutil.wait_procs(below, 10)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _without_our_environment() -> dict[str, str]:
    """The variables for a Python of another environment."""
    return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}


if __name__ == "__main__":
    serve(_opened, {})
