"""Places for images: their order and bounds, and no place is ever lost. All in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.faces import Priority
from cluster.client.admission import Admission
from cluster.errors import Full
from tests.virtual_time import run


def test_people_go_first_and_in_their_order() -> None:
    async def story() -> None:
        admission, order = Admission(1, 100), []

        async def call(name: str, priority: Priority) -> None:
            async with admission.room(1, priority, 1e9):
                order.append(name)
                await asyncio.sleep(1.0)

        calls = [asyncio.create_task(call("first", Priority.BULK))]
        await asyncio.sleep(0)
        for name, priority in (
            ("b1", Priority.BULK),
            ("p1", Priority.INTERACTIVE),
            ("p2", Priority.INTERACTIVE),
        ):
            calls.append(asyncio.create_task(call(name, priority)))
            await asyncio.sleep(0)
        await asyncio.gather(*calls)
        assert order == ["first", "p1", "p2", "b1"]

    run(story())


def test_a_call_larger_than_all_there_is_takes_all_there_is() -> None:
    """A scan may use three quarters of all places."""

    async def story() -> None:
        admission = Admission(4, 10)
        async with admission.room(100, Priority.INTERACTIVE, 1e9):
            assert admission.num_taken == 4
        async with admission.room(100, Priority.BULK, 1e9):
            assert admission.num_taken == 3
            async with admission.room(1, Priority.INTERACTIVE, 1e9):
                assert admission.num_taken == 4
        assert admission.num_taken == 0

    run(story())


def test_too_many_who_wait_are_told_so() -> None:
    async def story() -> None:
        admission = Admission(1, 0)
        async with admission.room(1, Priority.INTERACTIVE, 1e9):
            with pytest.raises(Full):
                async with admission.room(1, Priority.INTERACTIVE, 1e9):
                    pass

    run(story())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(1, 6), st.booleans(), st.floats(0, 3), st.floats(0, 3)),
        max_size=30,
    )
)
def test_no_place_is_lost_and_none_is_given_twice(calls: list[tuple[float, int, bool, float, float]]) -> None:
    """Callers arrive and leave in any order: they are cancelled, time out or are served."""

    async def story() -> None:
        admission, taken = Admission(8, 20), 0

        async def call(num_images: int, bulk: bool, patience_s: float, stay_s: float) -> None:
            nonlocal taken
            until = asyncio.get_running_loop().time() + patience_s
            priority = Priority.BULK if bulk else Priority.INTERACTIVE
            async with admission.room(num_images, priority, until):
                taken += num_images
                assert taken <= 8
                try:
                    await asyncio.sleep(stay_s)
                finally:
                    taken -= num_images

        async def arrival(at: float, number: int, rest: tuple[int, bool, float, float]) -> None:
            await asyncio.sleep(at)
            task = asyncio.create_task(call(*rest))
            if number % 3 == 0:
                await asyncio.sleep(rest[2] / 2)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(arrival(each[0], number, each[1:]) for number, each in enumerate(calls)))
        assert (admission.num_taken, admission.num_waiting, taken) == (0, 0, 0)

    run(story())
