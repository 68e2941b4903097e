"""`rayface detect`: it tells people when photos wait for a detector, and ends when the kept cluster ended."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import pytest
from rich.console import Console

from actors.faces import Detected, Failed, Failure, Outcome, Stamp
from cluster.cli.detect import _following, _telling_pauses
from cluster.cli.photo_paths import Photo
from cluster.client.pipeline import CLOSED_MEANWHILE
from cluster.errors import ClientNotUsable, ClusterUnavailable
from cluster.node.kept import KeptCluster, KeptProcess
from tests.virtual_time import run


class Client:
    """A client whose photos wait for a reason that the test sets; an error is raised instead."""

    def __init__(self) -> None:
        self.reason: str | Exception = ""

    @property
    def paused(self) -> str:
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason


def test_pauses_are_told_after_an_error_that_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    client, out = Client(), io.StringIO()

    async def story() -> None:
        async with _telling_pauses(cast(Any, client), Console(file=out)):
            client.reason = OSError("the terminal is gone")
            await asyncio.sleep(3.0)
            client.reason = "no machine lends a device"
            await asyncio.sleep(60.0)
            client.reason = ""
            await asyncio.sleep(3.0)

    with caplog.at_level(logging.ERROR, "rayface.command"):
        run(story())
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines == ["Waiting for a detector: no machine lends a device", "Going on."]
    assert "the terminal is gone" in caplog.text


class Stream:
    """A client that answers the first photo, and then waits as a scan does, until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def stream(self, images: Iterable[str]) -> AsyncIterator[Outcome]:
        asked = iter(images)
        next(asked)
        yield Detected(stamp=Stamp("a detector"), faces=(), width=1, height=1)
        next(asked)
        await asyncio.wait_for(self.closed.wait(), 3600.0)
        raise ClientNotUsable(CLOSED_MEANWHILE)

    async def close(self) -> None:
        self.closed.set()


class Kept(KeptCluster):
    """A kept cluster of which the test says when it has ended."""

    has_ended = False

    def why_ended(self) -> str:
        return "of its processes, python ended" if Kept.has_ended else ""


@pytest.mark.parametrize(("is_list", "num_failed"), [(True, 3), (False, 1)])
def test_photos_fail_soon_after_the_kept_cluster_ended(
    monkeypatch: pytest.MonkeyPatch, is_list: bool, num_failed: int
) -> None:
    """A list that a pipe gives is read no further, because nobody knows when it ends."""
    monkeypatch.setattr(Kept, "has_ended", False)
    process = KeptProcess("python", 2, 1.0)
    kept = Kept("127.0.0.1:40001", 1.0, 240.0, "", (process,), {}, versions={}, boot="")
    photos = iter([Photo(f"{number}.jpg", f"{number}.jpg") for number in range(4)])

    seen: list[tuple[str, Outcome]] = []

    async def follow() -> None:
        rest = photos if is_list else ()
        async for photo, outcome in _following(cast(Any, Stream()), photos, rest, kept):
            seen.append((photo.path, outcome))

    async def story() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(100.0, setattr, Kept, "has_ended", True)
        with pytest.raises(ClusterUnavailable, match="Start it again with `rayface up`"):
            await follow()
        return loop.time()

    took_s = run(story())
    assert [path for path, _ in seen] == [f"{number}.jpg" for number in range(1 + num_failed)]
    assert isinstance(seen[0][1], Detected)
    for _, outcome in seen[1:]:
        assert isinstance(outcome, Failed)
        assert outcome.reason is Failure.NO_CLUSTER
        assert "`rayface up` kept has ended" in outcome.detail
    assert 100.0 <= took_s <= 102.0


def test_a_client_that_was_closed_otherwise_is_no_end_of_a_kept_cluster() -> None:
    async def story() -> None:
        client = Stream()
        asyncio.get_running_loop().call_later(10.0, client.closed.set)
        async for _ in _following(cast(Any, client), iter([Photo("a", "a"), Photo("b", "b")]), (), None):
            pass

    with pytest.raises(ClientNotUsable):
        run(story())
