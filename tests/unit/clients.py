"""Clients on a scripted cluster: no Ray, no process, no thread, so that they live in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

import numpy as np

from actors.call_settings import CallSettings
from actors.faces import Detected, Failed, Outcome, Stamp
from actors.images import PreparedImage
from actors.observer import Observer
from actors.settings import DetectorSettings
from cluster.client.face_client import FaceClient
from cluster.client.parts import Parts
from cluster.settings import Settings, load_settings
from cluster.telemetry.tracing import Tracer
from tests.unit.fake_cluster import FakeCluster, quiet

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def photo(width: int) -> np.ndarray[Any, Any]:
    """One row of black pixels; its width tells it from its neighbours."""
    return np.zeros((1, width, 3), np.uint8)


def photos(num: int) -> list[Any]:
    """Photos of the widths 1, 2, …, num."""
    return [photo(width) for width in range(1, num + 1)]


class InlineThreads(Executor):
    """Does each piece of work at once, in the caller's thread: virtual time cannot wait for a thread."""

    def __init__(self, num_threads: int = 1, name: str = "") -> None:
        self.name = name

    def submit(
        self, fn: Callable[Arguments, Value], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Value]:
        done: Future[Value] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class Cpu:
    """A detector in this process, in place of the real one; made by `Cpus`."""

    def __init__(self, cpus: Cpus) -> None:
        self._cpus = cpus
        self.is_open = True

    async def detect(
        self,
        images: Sequence[PreparedImage],
        priority: str,
        deadline_s: float,
        trace: str,
        settings: CallSettings,
    ) -> list[Outcome]:
        """Answer as the real one does, after a tenth of a second."""
        assert self.is_open
        self._cpus.asked.append(settings)
        await asyncio.sleep(0.1)
        return [self._cpus.answer(image) for image in images]

    async def drain(self) -> None:
        """Close it."""
        self.is_open = False


class Cpus:
    """Makes the detectors of a client's fallback, and remembers them.

    Attributes:
        made: so far.
        answer: what each says of an image.
        settings: what each was made with.
        asked: the settings of each call.
    """

    def __init__(self, answer: Callable[[PreparedImage], Outcome] | None = None) -> None:
        self.made: list[Cpu] = []
        self.settings: list[DetectorSettings] = []
        self.asked: list[CallSettings] = []
        self.answer = answer or (lambda image: by_cpu(image.width))

    def __call__(self, settings: DetectorSettings, observer: Observer | None) -> Cpu:
        self.made.append(Cpu(self))
        self.settings.append(settings)
        return self.made[-1]


def by_cpu(width: int) -> Outcome:
    return Detected(stamp=Stamp("fallback on CPU"), faces=(), width=width, height=1)


def inline_parts(
    cluster: FakeCluster, *, cpus: Cpus | None = None, tracer: Tracer | None = None
) -> Callable[[Settings], Parts]:
    """Makes the parts of a client on that cluster."""

    def parts(settings: Settings) -> Parts:
        return Parts(
            settings,
            connection=cluster,
            log=quiet(asyncio.get_running_loop().time),
            tracer=tracer,
            threads=InlineThreads,
            cpu_detector=cpus or Cpus(),
        )

    return parts


@contextlib.asynccontextmanager
async def client_on(
    cluster: FakeCluster, /, *, cpus: Cpus | None = None, tracer: Tracer | None = None, **sections: Any
) -> AsyncIterator[FaceClient]:
    """An open client that has looked for detectors once; `sections` are changed settings."""
    make, made = inline_parts(cluster, cpus=cpus, tracer=tracer), list[Parts]()

    def parts(settings: Settings) -> Parts:
        made.append(make(settings))
        return made[-1]

    circuit = {"jitter": 0.0, **sections.pop("circuit", {})}
    settings = load_settings(circuit=circuit, **sections)
    async with FaceClient(settings, wait=False, _parts=parts) as client:
        await made[0].pool.look()
        yield client


async def asking(cluster: FakeCluster, images: Any, **options: Any) -> list[Outcome]:
    """One call of a client of its own."""
    async with client_on(cluster) as client:
        return await client.detect(images, **options)


async def collected(answers: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in answers]


def seen(outcomes: Sequence[Outcome]) -> list[str]:
    """Who answered each image, or why nobody did."""
    return [str(each.reason) if isinstance(each, Failed) else each.stamp.served_by for each in outcomes]
