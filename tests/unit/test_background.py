"""A thread that talks to the cluster is waited for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cluster.background import in_thread


def test_the_value_and_the_error_arrive() -> None:
    """As by `asyncio.to_thread`."""
    assert asyncio.run(in_thread(int, "7", base=8)) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(in_thread(int, "x"))


@pytest.mark.parametrize("fails", [False, True])
def test_who_is_cancelled_waits_for_the_thread(fails: bool) -> None:
    """Only then may the cluster be left."""
    begun, may_end = threading.Event(), threading.Event()
    ended = []

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.append(True)
        if fails:
            raise OSError("nobody wants to know any more")

    async def story() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    asyncio.run(story())
