"""Sources of images: read a few at a time, no further ahead, and not at all when nobody wants more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cluster.client.chunks import grouped
from tests.virtual_time import run

_LONG_S = 20.0


async def all_of(source: Any, most: int) -> list[list[Any]]:
    return [group async for group in grouped(source, most)]


def test_a_list_is_divided_as_it_is() -> None:
    assert run(all_of([b"1", b"2", b"3", b"4", b"5"], 2)) == [[b"1", b"2"], [b"3", b"4"], [b"5"]]
    assert run(all_of([], 2)) == []


def test_what_is_ready_comes_together() -> None:
    """An image that is alone does not wait for others."""

    async def source() -> AsyncIterator[bytes]:
        yield b"1"
        await asyncio.sleep(10.0)
        yield b"2"
        yield b"3"

    assert run(all_of(source(), 8)) == [[b"1"], [b"2", b"3"]]


def test_a_source_may_raise_cancelled_itself() -> None:
    """The reader gets the error and does not wait for ever."""

    async def source() -> AsyncIterator[bytes]:
        yield b"1"
        raise asyncio.CancelledError

    async def story() -> None:
        groups = grouped(source(), 1)
        assert await anext(groups) == [b"1"]
        with pytest.raises(asyncio.CancelledError):
            await anext(groups)

    run(story())


def threaded(story: Any) -> Any:
    """Run in a loop with real time, which a thread can wake; a test that hangs fails."""

    async def bounded() -> Any:
        async with asyncio.timeout(_LONG_S):
            return await story

    return asyncio.run(bounded())


def test_a_plain_source_is_read_in_one_thread_of_its_own_and_no_further_than_needed() -> None:
    threads: set[str] = set()
    num_read = 0

    def source() -> Iterator[bytes]:
        nonlocal num_read
        while True:
            num_read += 1
            threads.add(threading.current_thread().name)
            yield b"%d" % num_read

    async def story() -> None:
        groups, num_taken = grouped(source(), 4), 0
        async for group in groups:
            num_taken += len(group)
            assert 1 <= len(group) <= 4
            assert num_read <= num_taken + 4 + 2
            if num_taken > 50:
                break
        await groups.aclose()

    threaded(story())
    assert threads == {"rayface-source"}


def test_an_error_of_the_source_comes_after_what_it_gave() -> None:
    def source() -> Iterator[bytes]:
        yield b"1"
        raise OSError("the disk is gone")

    async def story() -> None:
        groups = grouped(source(), 1)
        assert await anext(groups) == [b"1"]
        with pytest.raises(OSError, match="the disk is gone"):
            await anext(groups)

    threaded(story())


def test_a_source_that_blocks_holds_nobody_up() -> None:
    """The source blocks neither a reader that leaves nor the end of the process: its thread is a daemon."""
    blocks, reader = threading.Event(), []

    def source() -> Iterator[bytes]:
        yield b"1"
        reader.append(threading.current_thread())
        blocks.wait()

    async def story() -> None:
        groups = grouped(source(), 1)
        assert await anext(groups) == [b"1"]
        while not reader:
            await asyncio.sleep(0.01)
        await groups.aclose()

    threaded(story())
    assert reader[0].is_alive()
    assert reader[0].daemon
    blocks.set()
    reader[0].join(_LONG_S)
    assert not reader[0].is_alive()
