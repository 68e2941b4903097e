"""The reference for photos: our own `prepare` and model, one thread for each core, no Ray and no wire.

The settings come from the variables of its environment, as for our side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from actors.face_model import FaceModel
from actors.guard import Guard
from actors.images import Limits, prepare
from actors.intake import num_cores
from actors.models import ready_model
from actors.session import OnnxSessionOpener
from cluster import load_settings
from tests.benchmarks.loads import Server
from tests.benchmarks.sides.process import Side, serve


def bare_loop(variables: dict[str, str]) -> Side:
    """The bare loop as a child process."""
    return Side("tests.benchmarks.sides.bare_loop", "bare loop", variables)


class BareLoop:
    """One thread for each core; each does one photo at a time, from the encoded photo to its faces."""

    def __init__(self) -> None:
        self._settings = load_settings().detector
        self._limits = Limits(self._settings.max_image_pixels, self._settings.max_image_bytes)
        guard = Guard(num_cores())
        self._model = FaceModel(ready_model(self._settings), OnnxSessionOpener("cpu"), self._settings, guard)
        self._model.warm_up()
        self._threads = ThreadPoolExecutor(num_cores())

    async def detect(self, images: Sequence[Any]) -> list[int | str]:
        """The number of faces in each photo."""
        loop = asyncio.get_running_loop()
        return list(
            await asyncio.gather(*(loop.run_in_executor(self._threads, self._one, each) for each in images))
        )

    def _one(self, photo: bytes) -> int | str:
        settings = self._settings
        small = prepare(photo, settings.shapes, self._limits, settings.max_enlargement)
        return len(self._model.detect([small])[0])


@asynccontextmanager
async def _opened() -> AsyncIterator[Server]:
    yield BareLoop()


if __name__ == "__main__":
    serve(_opened, {})
