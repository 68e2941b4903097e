"""The same client for code that is not asynchronous: a thin bridge to a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from actors.faces import Health, Outcome, Priority
from actors.images import ImageSource
from cluster.client.face_client import FaceClient
from cluster.client.status import ClientStatus
from cluster.errors import ConfigurationError
from cluster.settings import Settings

Value = TypeVar("Value")


class BlockingFaceClient:
    """`FaceClient` without `await`; safe to use from several threads. Every method is described there.

    It belongs to the process that made it: a server that forks its workers makes one in each, after that.
    """

    def __init__(self, settings: Settings | None = None, *, wait: bool = True) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rayface", daemon=True)
        self._thread.start()
        try:
            self._client = self._wait(FaceClient.connect(settings, wait=wait))
        except BaseException:
            self._stop()
            raise

    def detect(
        self,
        images: Sequence[ImageSource],
        *,
        priority: Priority | str = Priority.INTERACTIVE,
        deadline_s: float | None = None,
    ) -> list[Outcome]:
        """See `FaceClient.detect`."""
        return self._wait(self._client.detect(images, priority=priority, deadline_s=deadline_s))

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        priority: Priority | str = Priority.BULK,
        deadline_s: float | None = None,
    ) -> Iterator[Outcome]:
        """See `FaceClient.stream`."""
        answers = self._client.stream(images, priority=priority, deadline_s=deadline_s)
        ended = object()

        async def following() -> Outcome | object:
            return await anext(answers, ended)

        async def end() -> None:
            await answers.aclose()  # type: ignore[attr-defined]  # an async generator, typed as an iterator

        try:
            while isinstance(outcome := self._wait(following()), Outcome):
                yield outcome
        finally:
            self._wait(end())

    @property
    def paused(self) -> str:
        """See `FaceClient.paused`."""
        return self._client.paused

    def status(self) -> ClientStatus:
        """See `FaceClient.status`."""

        async def status() -> ClientStatus:
            return self._client.status()

        return self._wait(status())

    def health(self, wait_s: float = 0.0) -> Health:
        """See `FaceClient.health`."""
        return self._wait(self._client.health(wait_s))

    def close(self) -> None:
        """See `FaceClient.close`."""
        if self._thread.is_alive() and os.getpid() == self._pid:
            self._wait(self._client.close())
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, Value]) -> Value:
        if os.getpid() != self._pid:
            work.close()
            raise ConfigurationError(
                "This client was made in another process, before a fork. Make one in each process, after it."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
