"""Which batch size the table chooses, on simulated devices with noise; all in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from actors.batch_table import LEAST_GAIN_ON_CPU, NUM_TIMED_RUNS, BatchTable, Bucket, KeptRow

SHAPE = (640, 640)
SMALL = (160, 160)
SIZES = (1, 2, 4, 8, 16, 32)
Cost = Callable[[int], float]


class Clock:
    """Stands still until a run or a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Simulated:
    """A device in virtual time: a + b n milliseconds, more beyond its cache, with noise and slow runs.

    Args:
        seed: makes the device: its costs, its noise, and how often a run is slow.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.start_ms = self.random.choice([0.3, 0.5, 2.0, 8.0, 20.0])
        self.image_ms = self.random.choice([0.1, 0.5, 3.0, 12.0])
        # Beyond so many images each further one costs more: they do not fit the cache.
        self.cached = self.random.choice([1, 2, 4, 8, 64, 64, 64])
        self.beyond = self.random.uniform(1.2, 4.0)
        self.noise = self.random.choice([0.01, 0.05, 0.1])
        self.slow_share = self.random.choice([0.0, 0.02, 0.1])
        self.first_slow = self.random.randrange(12)
        self.clock = Clock()
        self.num_runs = 0

    def true_ms(self, size: int) -> float:
        beyond = max(0, size - self.cached) * (self.beyond - 1)
        return self.start_ms + self.image_ms * (size + beyond)

    def run(self, size: int) -> float:
        """Milliseconds of one run; the time passes."""
        ms = self.true_ms(size) * self.random.lognormvariate(0.0, self.noise)
        # One slow run is in the warm-up of every device: the moment when another process took the machine.
        if self.num_runs == self.first_slow or self.random.random() < self.slow_share:
            ms *= 1 + self.random.paretovariate(1.1)
        self.num_runs += 1
        ms = min(ms, 2000.0)
        self.clock.now += ms / 1000
        return ms

    def per_image_ms(self, size: int) -> float:
        return self.true_ms(size) / size


def warm_up(table: BatchTable, device: Simulated, limit_s: float = 1.0) -> None:
    """Measure as the model does: growing sizes, three runs each, while that pays and the time lasts."""
    smaller: int | None = None
    for size in SIZES:
        if smaller is not None and device.clock.now > limit_s:
            return
        device.run(size)
        table.open(size, SHAPE)
        for _ in range(NUM_TIMED_RUNS):
            table.add(size, SHAPE, device.run(size))
            if device.clock.now > limit_s:
                break
        per_image = table.ms_per_image(size, SHAPE)
        if smaller is not None and per_image > 0.95 * table.ms_per_image(smaller, SHAPE):
            return
        smaller = size


def loaded(table: BatchTable, device: Simulated, seconds: float, num_waiting: int = 100) -> None:
    """Run at full load for so long: so many images wait all the time."""
    end = device.clock.now + seconds
    while device.clock.now < end:
        size = table.take(SHAPE, table.most(SHAPE, num_waiting))
        table.add(size, SHAPE, device.run(size))
        if (wanted := table.take_wanted()) is not None:
            device.run(wanted.num_images)
            table.open(*wanted)
            table.add(*wanted, device.run(wanted.num_images))


@pytest.mark.parametrize("first_seed", range(0, 200, 20))
def test_the_chosen_size_is_nearly_the_best_after_ten_seconds_of_load(first_seed: int) -> None:
    """Within 5 % of the best throughput, on 200 devices."""
    for seed in range(first_seed, first_seed + 20):
        device = Simulated(seed)
        table = BatchTable(SIZES, fixed_shapes=seed % 2 == 0, clock=device.clock)
        warm_up(table, device)
        loaded(table, device, 10.0)
        chosen = table.best_batch(SHAPE)
        best = min(SIZES, key=device.per_image_ms)
        assert device.per_image_ms(chosen) <= 1.05 * device.per_image_ms(best), (seed, chosen, best)


def measured(*ms: float, fixed_shapes: bool = True, clock: Clock | None = None) -> BatchTable:
    """A table in which the sizes 1, 2, 4 … took so long, three times each."""
    table = BatchTable(SIZES, fixed_shapes, clock or Clock())
    for size, each in zip(SIZES, ms, strict=False):
        table.open(size, SHAPE)
        for _ in range(NUM_TIMED_RUNS):
            table.add(size, SHAPE, each)
    return table


@pytest.mark.parametrize(("two_ms", "chosen"), [(18.5, 1), (16.0, 2)])
def test_on_a_cpu_a_larger_size_must_gain_much(two_ms: float, chosen: int) -> None:
    """Other work on the cores makes the times of sizes differ by a few percent."""
    table = BatchTable(SIZES[:2], fixed_shapes=False, clock=Clock())
    table.least_gain = LEAST_GAIN_ON_CPU
    for size, ms in ((1, 10.0), (2, two_ms)):
        table.open(size, SHAPE)
        table.add(size, SHAPE, ms)
    assert table.best_batch(SHAPE) == chosen


def test_one_slow_run_changes_nothing() -> None:
    table = measured(2.5, 3.0, 4.0, 6.0, 10.0, 18.0)
    table.add(32, SHAPE, 4000.0)
    assert table.best_batch(SHAPE) == 32
    assert table.expected_s(32, SHAPE) == pytest.approx(0.018)


def test_a_size_that_became_slow_is_left_and_found_again() -> None:
    """The device throttles, and later it does not."""
    clock = Clock()
    table = measured(2.5, 3.0, 4.0, 6.0, 10.0, 18.0, clock=clock)
    for now_ms in (40.0, 18.0):
        end = clock.now + 300.0
        while clock.now < end:
            size = table.take(SHAPE, table.most(SHAPE, 100))
            ms = {16: 10.0, 32: now_ms}.get(size, 2.0 + 0.5 * size)
            table.add(size, SHAPE, ms)
            clock.now += ms / 50
        assert table.best_batch(SHAPE) == (16 if now_ms > 20 else 32)


def test_empty_slots_are_weighed_where_shapes_are_fixed() -> None:
    """19 images fill 16 slots now, and 3 of 4 next; 30 images are better in 32 slots. 3 wait for no more."""
    table = measured(2.5, 3.0, 4.0, 6.0, 10.0, 18.0)
    assert [table.take(SHAPE, num) for num in (1, 3, 7, 19, 30)] == [1, 3, 7, 16, 30]
    free = measured(2.5, 3.0, 4.0, 6.0, 10.0, 18.0, fixed_shapes=False)
    assert free.take(SHAPE, 19) == 19


def test_sizes_that_were_not_measured_are_estimated() -> None:
    """Between two measured ones on their line, above all from a + b n; the slots count, not the images."""
    table = measured(2.5, 3.0, 4.0, fixed_shapes=False)
    assert table.expected_s(3, SHAPE) == pytest.approx(0.0035)
    assert table.expected_s(32, SHAPE) == pytest.approx(0.018)
    assert measured(2.5, 3.0, 4.0).expected_s(3, SHAPE) == pytest.approx(0.004)
    assert measured(5.0).expected_s(4, SHAPE) == pytest.approx(0.02)
    assert table.expected_s(3, SMALL) == 0.0


def test_a_size_that_the_queue_would_fill_is_wanted_once() -> None:
    """Only where the fitted line promises more; a size is not wanted again at once."""
    clock = Clock()
    table = measured(2.5, 3.0, 4.0, clock=clock)
    assert table.most(SHAPE, 7) == 4
    assert table.take_wanted() is None, "7 images do not fill 8 slots"
    assert table.most(SHAPE, 8) == 4
    assert table.take_wanted() == Bucket(8, SHAPE)
    table.most(SHAPE, 8)
    assert table.take_wanted() is None
    clock.now += 1.0
    table.most(SHAPE, 8)
    assert table.take_wanted() == Bucket(8, SHAPE)
    linear = measured(10.0, 20.0)
    linear.most(SHAPE, 100)
    assert linear.take_wanted() is None


def test_a_bucket_is_used_only_when_it_is_open() -> None:
    """What an earlier process measured says how long a run takes, not that the device answers rightly now."""
    table = BatchTable(SIZES, True, Clock())
    table.restore([KeptRow(size, *SHAPE, 2.0 + 0.5 * size, 50, 10.0) for size in SIZES])
    assert (table.best_batch(SHAPE), table.kept_best(SHAPE)) == (1, 32)
    table.open(1, SHAPE)
    table.open(8, SHAPE)
    assert table.best_batch(SHAPE) == 8
    used = {each.num_images for each in table.timings if each.is_used}
    assert used == {8}
    assert {(each.num_runs, each.age_s) for each in table.timings} == {(50, 10.0)}


@pytest.mark.parametrize(("factor", "expected_ms"), [(1.3, 10.0), (2.5, 25.0)])
def test_a_kept_time_is_measured_again_if_it_is_far_off(factor: float, expected_ms: float) -> None:
    table = BatchTable(SIZES, True, Clock())
    table.restore([KeptRow(16, *SHAPE, 10.0, 50, 10.0)])
    table.open(16, SHAPE)
    assert table.num_timed(16, SHAPE) == 0
    table.add(16, SHAPE, factor * 10.0)
    assert (table.num_timed(16, SHAPE) >= NUM_TIMED_RUNS) == (factor < 2)
    assert table.expected_s(16, SHAPE) == pytest.approx(expected_ms / 1000)


def test_the_memory_of_the_device_bounds_the_size() -> None:
    table = measured(2.5, 3.0, 4.0, 6.0, 10.0, 18.0)
    table.max_batch = 4
    assert table.best_batch(SHAPE) == 4
    assert table.most(SHAPE, 100) == 4
    assert table.take(SHAPE, 100) <= 4
    assert table.take_wanted() is None


def test_shapes_have_sizes_of_their_own() -> None:
    table = measured(2.5, 3.0, 4.0, 6.0, 10.0, 18.0)
    table.open(1, SMALL)
    table.open(2, SMALL)
    for _ in range(3):
        table.add(1, SMALL, 0.5)
        table.add(2, SMALL, 2.0)
    assert (table.best_batch(SHAPE), table.best_batch(SMALL)) == (32, 1)
