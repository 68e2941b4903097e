"""`BatchTable`: how long a run of each batch size takes, and so how many images the next run should hold.

The table begins with timed runs at start and goes on learning from the runs of real photos. A bucket's time
is the median of its last runs, so a few slow runs do not move it. While images wait, the table tries the
sizes beside the best one again, ever more rarely and for a small share of the device's time: a size that
looked slow on a busy machine gets another chance, and one that has become slow is left.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.faces import BucketTiming

Shape = tuple[int, int]

#: Runs whose median is a bucket's time.
_WINDOW = 61
#: Runs after which a size is judged.
NUM_TIMED_RUNS = 3
#: Of sizes whose time for an image differs by less than this share, the smallest is used: it answers sooner.
LEAST_GAIN = 0.01
#: The same on a CPU, where a run has one core: a larger batch saves little there, and leaves the caches.
LEAST_GAIN_ON_CPU = 0.1
#: Seconds until a size beside the best one is tried again; doubled after each try that was no better.
_FIRST_TRY_AGAIN_S = 0.25
_MAX_TRY_AGAIN_S = 60.0
#: After such a pause, earlier runs of a size that is tried again count little.
_FORGET_AFTER_S = 4.0
#: What tries may lose of the device's time: these seconds, and this share of all runs.
_FREE_LOSS_S = 1.0
_MAX_LOSS = 0.03
#: A kept time is measured again if a run takes this many times as long.
_TOO_SLOW = 2.0


class Bucket(NamedTuple):
    """A batch size and a tensor's (height, width) in pixels."""

    num_images: int
    shape: Shape


@dataclass(slots=True)
class _Row:
    """What is known of one bucket.

    Attributes:
        last_ms: milliseconds of its last runs.
        ms: their median.
        num_runs: runs that were measured, those of earlier processes too.
        measured_at: moment of the last one, by the table's clock.
        is_kept: whether only an earlier process has measured it.
        is_open: whether this process may run it: it found the golden photo in every slot.
        num_tries: runs in the present try.
        try_at: moment of the next try.
        pause_s: seconds from the present try to the next.
    """

    last_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    ms: float = math.inf
    num_runs: int = 0
    measured_at: float = 0.0
    is_kept: bool = False
    is_open: bool = False
    num_tries: int = 0
    try_at: float = -math.inf
    pause_s: float = _FIRST_TRY_AGAIN_S


class KeptRow(NamedTuple):
    """What the next process is told of one bucket: its time in milliseconds, and how it was measured."""

    num_images: int
    height: int
    width: int
    run_ms: float
    num_runs: int
    age_s: float


class BatchTable:
    """The measured times of one model on one device; any thread may use it.

    Args:
        sizes: batch sizes that may be used, rising from 1.
        fixed_shapes: whether a run has always as many slots as one of the sizes; the others stay empty.
        clock: returns seconds, for ages and pauses.
        max_batch: the most images that one run has memory for; None if that is not known.

    Attributes:
        max_batch: see above; may be changed at any time.
        least_gain: the share by which a larger size must be better; set before the first run.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        fixed_shapes: bool,
        clock: Callable[[], float],
        max_batch: int | None = None,
    ) -> None:
        self._all_sizes = tuple(sizes)
        self._fixed_shapes = fixed_shapes
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[Bucket, _Row] = {}
        self._best: dict[Shape, int] = {}
        self._open: dict[Shape, list[int]] = {}
        self._run_ms = self._lost_ms = 0.0
        self._wanted: Bucket | None = None
        self.max_batch = max_batch
        self.least_gain = LEAST_GAIN

    @property
    def timings(self) -> tuple[BucketTiming, ...]:
        """All that is known, a row for each bucket, by shape and size."""
        with self._lock:
            now = self._clock()
            used = {shape: self._best_of(shape) for shape in self._open}
            return tuple(
                BucketTiming(
                    size,
                    *shape,
                    round(row.ms, 3),
                    num_runs=row.num_runs,
                    age_s=round(now - row.measured_at, 1),
                    is_used=used.get(shape) == size,
                )
                for (size, shape), row in sorted(self._rows.items(), key=lambda item: item[0][::-1])
                if row.last_ms
            )

    def slots(self, num_images: int, shape: Shape) -> int:
        """Slots of the run that holds so many images: more than images where shapes are fixed."""
        if not self._fixed_shapes:
            return num_images
        return next((size for size in self._sizes(shape) if size >= num_images), num_images)

    def best_batch(self, shape: Shape) -> int:
        """The size with the least time for each image, or a smaller one that is hardly slower."""
        with self._lock:
            return self._best_of(shape)

    def most(self, shape: Shape, num_waiting: int) -> int:
        """Images that a run of this shape may hold, given how many wait.

        It is the best size, or a larger one that is due to be tried and that the waiting images fill. If a
        larger size should be tried that is not open yet, `take_wanted` tells it.
        """
        with self._lock:
            best = self._best_of(shape)
            if num_waiting <= best:
                return best
            larger = self._larger(shape, best)
            if larger is None or num_waiting < larger:
                return best
            row = self._rows.get(Bucket(larger, shape))
            if row is not None and self._clock() < row.try_at:
                return best
            if row is not None and row.is_open:
                return larger if self._may_lose() else best
            if self._is_worth_opening(shape, best, larger):
                self._wanted = Bucket(larger, shape)
            return best

    def take(self, shape: Shape, num_images: int) -> int:
        """How many of the images that are here the run that begins now should hold.

        Where shapes are fixed, empty slots cost as much as full ones: a full smaller run now, and the rest in
        the next run, may be better.
        """
        with self._lock:
            best = self._best_of(shape)
            sizes = self._sizes(shape)
            if num_images >= best and sizes:
                return self._try_of(shape, best, num_images) or best
            if not self._fixed_shapes or not sizes:
                return num_images
            fitting = [size for size in sizes if size < num_images]
            fitting += [size for size in sizes if size >= num_images][:1]
            size = min(
                reversed(fitting),
                key=lambda each: self._rows[Bucket(each, shape)].ms / min(each, num_images),
                default=num_images,
            )
            return min(size, num_images)

    def expected_s(self, num_images: int, shape: Shape) -> float:
        """Seconds that a run of so many images should take; 0 where nothing is known of the shape.

        Sizes between two measured ones are interpolated; others are estimated from a + b n, fitted to the
        measured sizes (Theil and Sen: b is the median of the slopes of all pairs, a that of the remainders).
        """
        with self._lock:
            return self._expected_ms(num_images, shape) / 1000

    def add(self, num_slots: int, shape: Shape, run_ms: float) -> None:
        """Count one run of so many slots; sizes that are not in the table say nothing."""
        bucket = Bucket(num_slots, shape)
        if num_slots not in self._all_sizes or run_ms <= 0:
            return
        with self._lock:
            row = self._rows.setdefault(bucket, _Row())
            if row.is_kept:
                row.is_kept = False
                if run_ms > _TOO_SLOW * row.ms:
                    row.last_ms.clear()
            if row.pause_s >= _FORGET_AFTER_S and not row.num_tries and self._best.get(shape) != num_slots:
                # It was left long ago: what was measured then must not outweigh what is measured now.
                while len(row.last_ms) > 2 * NUM_TIMED_RUNS:
                    row.last_ms.popleft()
            row.last_ms.append(run_ms)
            row.ms = statistics.median_low(row.last_ms)
            row.num_runs += 1
            row.measured_at = self._clock()
            self._run_ms += run_ms
            before = self._best.get(shape)
            if before not in (None, num_slots):
                self._count_try(row, bucket, run_ms, Bucket(before or 1, shape))
            after = self._choose(shape)
            if before is not None and after != before:
                # The sizes beside the new best one should be tried soon.
                for size in self._all_sizes:
                    if (other := self._rows.get(Bucket(size, shape))) is not None:
                        other.pause_s = _FIRST_TRY_AGAIN_S

    def open(self, num_images: int, shape: Shape) -> None:
        """Let a bucket be used: this process has found the golden photo in every slot of it."""
        with self._lock:
            row = self._rows.setdefault(Bucket(num_images, shape), _Row())
            row.is_open, row.try_at = True, -math.inf
            self._choose(shape)

    def is_open(self, num_images: int, shape: Shape) -> bool:
        """Whether the bucket may be used."""
        row = self._rows.get(Bucket(num_images, shape))
        return row is not None and row.is_open

    def num_timed(self, num_images: int, shape: Shape) -> int:
        """Runs that the bucket's time is from; 0 while only an earlier process measured it."""
        row = self._rows.get(Bucket(num_images, shape))
        return 0 if row is None or row.is_kept else len(row.last_ms)

    @property
    def is_wanted(self) -> bool:
        """Whether `take_wanted` would tell a bucket."""
        return self._wanted is not None

    def take_wanted(self) -> Bucket | None:
        """The bucket that should be opened because waiting images would fill it; told once."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
            if wanted is not None:
                # Whatever comes of it, it is not wanted again at once.
                row = self._rows.setdefault(wanted, _Row())
                row.try_at = self._clock() + row.pause_s
                row.pause_s = min(_MAX_TRY_AGAIN_S, 2 * row.pause_s)
            return wanted

    def ms_per_image(self, num_images: int, shape: Shape) -> float:
        """Milliseconds for each image of a measured bucket; infinite for others."""
        row = self._rows.get(Bucket(num_images, shape))
        return math.inf if row is None else row.ms / num_images

    def kept(self) -> list[KeptRow]:
        """What the next process should know."""
        with self._lock:
            now = self._clock()
            return [
                KeptRow(size, *shape, round(row.ms, 4), row.num_runs, round(now - row.measured_at, 1))
                for (size, shape), row in self._rows.items()
                if row.last_ms
            ]

    def restore(self, rows: Iterable[KeptRow]) -> None:
        """Begin with what an earlier process measured; each bucket must be opened all the same."""
        with self._lock:
            for size, height, width, run_ms, num_runs, age_s in rows:
                if size in self._all_sizes:
                    row = self._rows.setdefault(Bucket(size, (height, width)), _Row())
                    # As many as a timed start has: new runs soon outweigh them.
                    row.last_ms.extend([run_ms] * NUM_TIMED_RUNS)
                    row.ms, row.num_runs, row.is_kept = run_ms, num_runs, True
                    row.measured_at = self._clock() - age_s

    def kept_best(self, shape: Shape) -> int | None:
        """The best size by what earlier processes measured; None if they left nothing about the shape."""
        with self._lock:
            kept = {
                size: row.ms / size for (size, of), row in self._rows.items() if of == shape and row.is_kept
            }
            return self._least(kept) if kept else None

    def _best_of(self, shape: Shape) -> int:
        best = self._best.get(shape, 1)
        if self.max_batch is not None and best > self.max_batch:
            best = self._choose(shape)
        return best

    def _sizes(self, shape: Shape) -> list[int]:
        """The open and measured sizes that the device has memory for, rising."""
        sizes = self._open.get(shape, [])
        return sizes if self.max_batch is None else [size for size in sizes if size <= self.max_batch]

    def _choose(self, shape: Shape) -> int:
        self._open[shape] = [
            size
            for size in self._all_sizes
            if (row := self._rows.get(Bucket(size, shape))) is not None and row.is_open and row.last_ms
        ]
        sizes = self._sizes(shape)
        if not sizes:
            return 1
        self._best[shape] = self._least({size: self._rows[Bucket(size, shape)].ms / size for size in sizes})
        return self._best[shape]

    def _least(self, per_image: dict[int, float]) -> int:
        most_ms = (1 + self.least_gain) * min(per_image.values())
        return min(size for size, ms in per_image.items() if ms <= most_ms)

    def _larger(self, shape: Shape, best: int) -> int | None:
        """The next larger size than the best one, open or not, that the device has memory for."""
        limit = self.max_batch or self._all_sizes[-1]
        return next((size for size in self._all_sizes if best < size <= limit), None)

    def _try_of(self, shape: Shape, best: int, num_images: int) -> int | None:
        """An open size beside the best one that is due to be tried, and that the images fill."""
        if not self._may_lose():
            return None
        sizes = self._sizes(shape)
        at = sizes.index(best) if best in sizes else 0
        now = self._clock()
        for size in reversed(sizes[max(0, at - 1) : at + 2]):
            if size != best and size <= num_images and self._rows[Bucket(size, shape)].try_at <= now:
                return size
        return None

    def _may_lose(self) -> bool:
        return self._lost_ms <= _FREE_LOSS_S * 1000 + _MAX_LOSS * self._run_ms

    def _is_worth_opening(self, shape: Shape, best: int, larger: int) -> bool:
        """Whether a size that is not open promises more. While only one size is known, it does."""
        if len(self._sizes(shape)) < 2:
            return True
        gain = self._expected_ms(larger, shape) / larger
        return gain < (1 - self.least_gain) * self._rows[Bucket(best, shape)].ms / best

    def _count_try(self, row: _Row, bucket: Bucket, run_ms: float, best: Bucket) -> None:
        """Count a run of another size than the best; after enough of them, the size has a pause."""
        per_image = self._rows[best].ms / best.num_images
        if not math.isinf(per_image):
            # A run that something else made slow says little: it counts as twice the expected time at most.
            expected_ms = bucket.num_images * per_image
            self._lost_ms += min(max(0.0, run_ms - expected_ms), expected_ms)
        row.num_tries += 1
        if row.num_tries >= NUM_TIMED_RUNS:
            row.num_tries = 0
            row.try_at = self._clock() + row.pause_s
            row.pause_s = min(_MAX_TRY_AGAIN_S, 2 * row.pause_s)

    def _expected_ms(self, num_images: int, shape: Shape) -> float:
        num_images = self.slots(num_images, shape)
        row = self._rows.get(Bucket(num_images, shape))
        if row is not None and row.last_ms:
            return row.ms
        known = [(size, row.ms) for (size, of), row in self._rows.items() if of == shape and row.last_ms]
        known.sort()
        below = [each for each in known if each[0] <= num_images]
        above = [each for each in known if each[0] >= num_images]
        if below and above:
            (less, less_ms), (more, more_ms) = below[-1], above[0]
            return less_ms + (num_images - less) / (more - less) * (more_ms - less_ms)
        if not known:
            return 0.0
        if above:
            return above[0][1]
        start_ms, image_ms = _line(known)
        return max(below[-1][1], start_ms + image_ms * num_images)


def _line(known: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """a and b of a + b n, both at least 0, fitted to (n, milliseconds) as Theil and Sen do."""
    if len(known) == 1:
        ((size, ms),) = known
        return 0.0, ms / size
    slopes = [
        (more_ms - less_ms) / (more - less)
        for at, (less, less_ms) in enumerate(known)
        for more, more_ms in known[at + 1 :]
    ]
    image_ms = max(0.0, statistics.median(slopes))
    return max(0.0, statistics.median(ms - image_ms * size for size, ms in known)), image_ms
