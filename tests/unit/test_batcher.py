"""Many calls share one run: batches, priorities, deadlines; all in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import Busy, DeadlineMissed
from actors.faces import Priority
from tests.fakes import prepared
from tests.unit.batching import Device, answers
from tests.virtual_time import run

LANDSCAPE = (480, 640)


def test_a_lone_image_is_taken_at_once_and_later_ones_together() -> None:
    """An idle device waits for nothing; images that arrive while it works form the next batch."""
    device = Device()

    async def story() -> float:
        batcher = device.batcher()
        lone = asyncio.create_task(answers(batcher, [0]))
        await asyncio.sleep(0.5)
        assert await answers(batcher, range(1, 6)) == list(range(1, 6))
        assert await lone == [0]
        return asyncio.get_running_loop().time()

    assert run(story()) == pytest.approx(3, abs=0.01)
    assert device.batches == [[0], [1, 2, 3, 4], [5]]


def test_images_that_come_together_run_together() -> None:
    """The first image of a call does not begin a run that leaves the call's others behind."""
    device = Device()

    async def story() -> float:
        assert await answers(device.batcher(), range(6)) == list(range(6))
        return asyncio.get_running_loop().time()

    assert run(story()) == pytest.approx(2, abs=0.01)
    assert device.batches == [[0, 1, 2, 3], [4, 5]]


def test_the_next_batch_takes_images_until_it_must_be_assembled() -> None:
    """Assembling takes 0.1 s, so it begins at 0.9 s: the batch is ready when the run ends, at 1 s."""
    device = Device(gate=True)

    async def story() -> None:
        batcher = device.batcher(num_assembling=1, assemble_s=lambda num, shape: 0.1)
        calls = []
        for number in range(5):
            calls.append(asyncio.create_task(answers(batcher, [number])))
            await asyncio.sleep(0.29)
        assert await asyncio.gather(*calls) == [[0], [1], [2], [3], [4]]
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.01)

    run(story())
    assert device.batches == [[0], [1, 2, 3], [4]]


def test_a_run_that_begins_late_gives_the_next_batch_more_time() -> None:
    """The second run is expected at 1 s and begins at 1.5 s; the third batch takes images until 2.4 s."""
    device = Device(seconds=1.5, gate=True)

    async def story() -> None:
        batcher = device.batcher(num_assembling=1, assemble_s=lambda num, shape: 0.1)
        calls = []
        for number, at in enumerate((0.0, 0.5, 1.95, 2.2)):
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            calls.append(asyncio.create_task(answers(batcher, [number])))
        await asyncio.gather(*calls)

    run(story())
    assert device.batches == [[0], [1], [2, 3]]


def test_a_full_batch_is_assembled_at_once() -> None:
    device = Device(gate=True)

    async def story() -> None:
        batcher = device.batcher(size=2, num_assembling=1, assemble_s=lambda num, shape: 0.1)
        first = asyncio.create_task(answers(batcher, [0]))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(answers(batcher, [1, 2]))
        await asyncio.sleep(0.1)
        assert (batcher.num_running, batcher.num_queued) == (3, 0)
        await asyncio.gather(first, second)

    run(story())
    assert device.batches == [[0], [1, 2]]


def test_the_number_of_images_that_wait_decides_about_the_next_run() -> None:
    """Nineteen wait, and runs have 16 or 4 slots: 16 run now and 3 next."""
    device = Device()
    asked = []

    def next_size(shape: tuple[int, int], num_waiting: int) -> int:
        asked.append(num_waiting)
        return 16 if num_waiting >= 16 else min(4, num_waiting)

    async def story() -> None:
        batcher = device.batcher(size=16, next_size=next_size)
        assert await answers(batcher, range(19)) == list(range(19))

    run(story())
    assert [len(each) for each in device.batches] == [16, 3]
    assert asked == [19, 3]


def test_small_and_large_tensors_of_a_photo_wait_for_nobody_but_their_turn() -> None:
    """Whoever has waited longest goes first, whatever its shape; images of its shape go with it."""
    device = Device()
    small, large = (160, 160), (640, 640)

    async def story() -> None:
        batcher = device.batcher(size=8)
        shapes = [large, small, large, small, LANDSCAPE, small]
        busy = asyncio.create_task(answers(batcher, [99]))
        await asyncio.sleep(0.1)
        asked = [
            asyncio.create_task(batcher.submit([prepared(number, shape)]))
            for number, shape in enumerate(shapes)
        ]
        await asyncio.gather(busy, *asked)

    run(story())
    assert device.batches == [[99], [0, 2], [1, 3, 5], [4]]


def test_interactive_overtakes_bulk() -> None:
    """An interactive image waits for the run under way and for nothing else."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher(size=2)
        bulk = asyncio.create_task(answers(batcher, range(6), priority=Priority.BULK))
        await asyncio.sleep(0.5)
        assert await answers(batcher, [50], priority=Priority.INTERACTIVE) == [50]
        assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.01)
        assert await bulk == list(range(6))

    run(story())
    assert device.batches[1] == [50, 2]


def test_interactive_overtakes_bulk_of_another_shape() -> None:
    """An interactive portrait goes before all landscapes of a scan, although they came earlier."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher(size=2)
        bulk = [batcher.submit([prepared(n, LANDSCAPE)], Priority.BULK) for n in range(6)]
        scan = asyncio.gather(*bulk)
        await asyncio.sleep(0.5)
        assert await answers(batcher, [50]) == [50]
        await scan

    run(story())
    assert device.batches[1] == [50]


def test_shapes_are_never_mixed() -> None:
    """A run has one tensor, so all its images have one shape."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher()
        both = [prepared(n, LANDSCAPE if n % 2 else (640, 640)) for n in range(8)]
        got = await batcher.submit(both)
        assert [getattr(each, "value", each) for each in got] == list(range(8))

    run(story())
    assert all(len(shapes) == 1 for shapes in device.shapes)


def test_what_cannot_be_in_time_is_never_run() -> None:
    """I6: no run is spent on an image whose deadline cannot be met; this device is slower than measured."""
    device = Device(seconds=1.4)

    async def story() -> None:
        batcher = device.batcher(size=1)
        first = asyncio.create_task(answers(batcher, [0]))
        await asyncio.sleep(0)
        late = (await answers(batcher, [1], deadline=2.2))[0]
        assert isinstance(late, DeadlineMissed)
        assert "not run" in str(late)
        assert asyncio.get_running_loop().time() == pytest.approx(1.4, abs=0.01)
        assert await first == [0]
        assert batcher.num_queued == 0

    run(story())
    assert device.batches == [[0]]


def test_the_queue_is_as_long_as_the_deadline_allows() -> None:
    """I6: an image that would be too late is refused at once with a time to come again; others stay."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher(size=1)
        scan = asyncio.create_task(answers(batcher, range(4), priority=Priority.BULK))
        await asyncio.sleep(0.5)
        (busy,) = await answers(batcher, [9], priority=Priority.BULK, deadline=4.0)
        assert isinstance(busy, Busy)
        assert busy.retry_after_s == pytest.approx(3.5)
        assert asyncio.get_running_loop().time() == pytest.approx(0.5)
        assert await answers(batcher, [9], priority=Priority.BULK, deadline=5.1) == [9]
        assert await scan == [0, 1, 2, 3]

    run(story())


def test_a_deadline_too_short_for_any_run_is_no_fault_of_the_queue() -> None:
    """The same image would fail later too, so the answer does not ask the caller to come again."""

    async def story() -> None:
        batcher = Device().batcher(size=1)
        scan = asyncio.create_task(answers(batcher, range(3)))
        await asyncio.sleep(0.1)
        assert isinstance((await answers(batcher, [9], deadline=0.6))[0], DeadlineMissed)
        await scan

    run(story())


def test_a_scan_that_fills_the_queue_leaves_room_for_people() -> None:
    """I6: bulk images take three quarters of the places at most."""

    async def story() -> None:
        batcher = Device().batcher(size=1, most=8)
        scan = asyncio.create_task(answers(batcher, range(20), priority=Priority.BULK))
        await asyncio.sleep(0.5)
        assert batcher.num_queued == 6
        assert await answers(batcher, [50, 51]) == [50, 51]
        got = await scan
        assert [each for each in got if isinstance(each, int)] == list(range(7))
        assert all(isinstance(each, Busy) for each in got[7:])

    run(story())


def test_a_person_overtakes_a_batch_that_is_ready_but_not_begun() -> None:
    """On a GPU the next bulk batch is assembled during a run; the interactive image goes before it."""
    device = Device(gate=True)

    async def story() -> None:
        batcher = device.batcher(size=2, num_assembling=1)
        bulk = asyncio.create_task(answers(batcher, range(6), priority=Priority.BULK))
        await asyncio.sleep(0.5)
        got = await answers(batcher, [50])
        assert got == [50]
        assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.01)
        assert await bulk == list(range(6))

    run(story())
    assert device.batches[:3] == [[0, 1], [50, 4], [2, 3]]


def test_bulk_rides_along_only_where_it_costs_a_person_little() -> None:
    """A second image costs a tenth more, a third a fifth: two ride; where each costs its full time, none."""
    rides = {}
    for start_s, per_image_s in ((0.9, 0.1), (0.1, 0.9)):
        device = Device(start_s, per_image_s)

        async def story(device: Device = device) -> None:
            batcher = device.batcher(size=8)
            bulk = asyncio.create_task(answers(batcher, range(20), priority=Priority.BULK))
            await asyncio.sleep(0.5)
            assert await answers(batcher, [50]) == [50]
            await bulk

        run(story())
        rides[per_image_s] = next(len(batch) for batch in device.batches if 50 in batch) - 1
    assert rides == {0.1: 2, 0.9: 0}


@pytest.mark.parametrize(("start_s", "per_image_s", "size"), [(0.002, 0.0005, 32), (0.02, 0.001, 16)])
def test_a_persons_wait_is_bounded_while_a_scan_runs_at_full_load(
    start_s: float, per_image_s: float, size: int
) -> None:
    """p95 under full bulk load: at most twice the p95 alone, and one batch. In virtual time, so exact."""

    def p95(bulk_images: int) -> float:
        device = Device(start_s, per_image_s, gate=True)
        took: list[float] = []

        async def story() -> None:
            batcher = device.batcher(size=size, most=1000, num_assembling=1)
            loop = asyncio.get_running_loop()
            over = asyncio.Event()

            async def scan(number: int) -> None:
                while not over.is_set():
                    await batcher.submit([prepared(number)], Priority.BULK)

            async def person() -> None:
                for number in range(200):
                    begun = loop.time()
                    await batcher.submit([prepared(number)])
                    took.append(loop.time() - begun)
                    # The interactive images do not come in step with the batches.
                    await asyncio.sleep(0.0137 + 0.0011 * (number % 17))
                over.set()

            await asyncio.gather(person(), *(scan(number) for number in range(bulk_images)))

        run(story())
        return sorted(took)[int(0.95 * len(took))]

    one_batch = start_s + per_image_s * size
    assert p95(4 * size) <= 2 * p95(0) + one_batch


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.booleans(), st.booleans(), st.none() | st.floats(0, 10)), max_size=40
    ),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_every_image_gets_its_own_answer_once(
    arrivals: list[tuple[float, bool, bool, float | None]], size: int, lanes: int
) -> None:
    """I1: whatever the order of arrivals, an answer is the image's own, or one error; the counts end at 0."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher(size, lanes, most=10)

        async def call(number: int, at: float, bulk: bool, landscape: bool, within: float | None) -> None:
            await asyncio.sleep(at)
            priority = Priority.BULK if bulk else Priority.INTERACTIVE
            deadline = asyncio.get_running_loop().time() + within if within is not None else float("inf")
            (got,) = await batcher.submit(
                [prepared(number, LANDSCAPE if landscape else (640, 640))], priority, deadline
            )
            if not isinstance(got, Busy | DeadlineMissed):
                assert getattr(got, "value", got) == number

        await asyncio.gather(*(call(n, *each) for n, each in enumerate(arrivals)))
        await asyncio.sleep(5)
        assert (batcher.num_queued, batcher.num_running) == (0, 0)

    run(story())
    assert all(len(batch) <= size for batch in device.batches)
    numbers = [n for batch in device.batches for n in batch]
    assert len(numbers) == len(set(numbers))


def test_a_call_that_is_cancelled_leaves_no_image_behind() -> None:
    """Those that wait leave the queue at once; those on the device end without harm to others."""
    device = Device()

    async def story() -> None:
        batcher = device.batcher()
        call = asyncio.create_task(batcher.submit([prepared(n) for n in range(6)]))
        await asyncio.sleep(0.5)
        assert (batcher.num_running, batcher.num_queued) == (4, 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (batcher.num_running, batcher.num_queued) == (4, 0)
        assert await answers(batcher, [9]) == [9]

    run(story())
    assert device.batches == [[0, 1, 2, 3], [9]]


def test_a_call_gets_what_was_found_before_its_deadline() -> None:
    """The images of its first run are answered; only the others are late."""
    device = Device()
    device.expected_s = 0.1

    async def story() -> None:
        got = await device.batcher().submit([prepared(n) for n in range(6)], deadline=1.5)
        assert [getattr(each, "value", type(each)) for each in got] == [0, 1, 2, 3, *2 * [DeadlineMissed]]
        assert asyncio.get_running_loop().time() == pytest.approx(1.5, abs=0.01)

    run(story())


def test_of_a_call_that_is_too_large_for_the_queue_as_many_are_taken_as_fit() -> None:
    """An idle device takes the three that wait at once, then three more; the rest is told to wait."""
    device = Device()

    async def story() -> None:
        got = await device.batcher(most=3).submit([prepared(n) for n in range(8)])
        assert [getattr(each, "value", type(each)) for each in got] == [*range(6), *2 * [Busy]]

    run(story())
    assert [len(batch) for batch in device.batches] == [3, 3]
