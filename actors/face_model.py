"""Pixels → faces, on GPU and CPU alike: assembles a batch, runs it and decodes the heads."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from actors import golden
from actors.batch_table import LEAST_GAIN_ON_CPU, NUM_TIMED_RUNS, BatchTable, Bucket, KeptRow
from actors.call_settings import OF_FAMILY, AskedImage, CallSettings
from actors.decoding import Candidates, nms
from actors.errors import DeviceLies, DeviceUnavailable, OutOfMemory
from actors.faces import BucketTiming, Face
from actors.guard import Guard
from actors.heads import Floats, HeadsWrong, dead_images
from actors.images import PreparedImage
from actors.models import ReadyModel
from actors.observer import Observer, Run
from actors.session import ProviderNames, Session, SessionOpener
from actors.settings import DetectorSettings
from actors.tensors import BatchTensor, Buffers

#: At start, a bigger batch must bring the time of an image below this share, or the batches grow no further.
_WORTH_GROWING = 0.95
#: Until a thread begins to assemble a batch.
_START_ASSEMBLING_S = 0.001
#: Runs that `_stretch` is averaged over.
_STRETCH_RUNS = 8
#: Numbers the runs of this process; a model that is opened again goes on counting.
_NUMBERS = itertools.count(1)


class FaceModel:
    """One model on one device. `detect` may be called from several threads.

    While one thread runs a batch on the device, others assemble the next one and decode the last one. The
    guard decides how many run at once, and in which order.

    Args:
        model: weights and family.
        opener: opens sessions.
        settings: shapes, limits, and the thresholds where a caller chooses none.
        guard: surrounds each run on the device.
        clock: returns seconds, for durations.
        observer: told of each run.
        provider: ONNX Runtime's name of the provider that was asked for; None accepts any.
        kept: the times of buckets that an earlier process measured on the same device.
        work_clock: returns seconds of work of the thread that calls it, where a run is that thread's work
            only: then a run's cost is told from waiting for a core. None takes `clock`.

    Raises:
        DeviceUnavailable: a session uses another provider than the one asked for.

    Attributes:
        table: the measured times, and the batch sizes that follow from them.
        last_run_ms: milliseconds of the last run on the device.
    """

    def __init__(
        self,
        model: ReadyModel,
        opener: SessionOpener,
        settings: DetectorSettings,
        guard: Guard,
        clock: Callable[[], float] = time.perf_counter,
        observer: Observer | None = None,
        provider: str | None = None,
        kept: Sequence[KeptRow] = (),
        work_clock: Callable[[], float] | None = None,
    ) -> None:
        self.model = model
        max_batch = guard.recorder.max_batch if guard.recorder else None
        self.table = BatchTable(settings.batch_sizes, opener.fixed_shapes, clock, max_batch)
        self.table.restore(kept)
        self._settings = settings
        self._opener = opener
        self._guard = guard
        self._observer = observer or Observer()
        self.last_run_ms = 0.0
        self._clock = clock
        self._work_clock = work_clock or clock
        #: How many times as long as its work a run takes, of late.
        self._stretch = 1.0
        self._wanted = provider
        self._buffers = Buffers()
        self._assemble_s_per_byte = 0.0
        self._sessions: dict[Bucket | None, Session] = {}
        self._own = CallSettings.of(settings)
        self.provider = self._session(Bucket(1, settings.shapes[0])).provider
        if self.provider == ProviderNames["cpu"]:
            self.table.least_gain = LEAST_GAIN_ON_CPU

    @property
    def timings(self) -> tuple[BucketTiming, ...]:
        """The measured times, one for each bucket."""
        return self.table.timings

    @property
    def max_batch(self) -> int | None:
        """The most images that one run has memory for; None if the device never lacked memory."""
        return self.table.max_batch

    def warm_up(self) -> None:
        """Run and time the buckets, with growing batches while that pays, and check the answer of every slot.

        Each bucket is timed several times while `warm_up_s` lasts, so that one slow run ends no growth. What
        an earlier process measured is timed once, and again only if it is much slower now. Batches that the
        device has no memory for are not used.

        Raises:
            DeviceLies: a bucket gave a wrong answer for the golden photo.
            DeviceFailed: a run failed.
            OutOfMemory: the device has no memory for a single image.
        """
        begun, shapes = self._clock(), self._settings.shapes
        kept_best = self.table.kept_best(shapes[0])

        def is_over() -> bool:
            return self._clock() - begun > self._settings.warm_up_s

        for shape in shapes:
            self._open(Bucket(1, shape))
        self._time(Bucket(1, shapes[0]), is_over)
        smaller = 1
        for size in self._settings.batch_sizes[1:]:
            if is_over() or size > (self.max_batch or size) or (kept_best is not None and size > kept_best):
                break
            try:
                self._open(Bucket(size, shapes[0]))
                self._time(Bucket(size, shapes[0]), is_over)
                limit_ms = _WORTH_GROWING * self.table.ms_per_image(smaller, shapes[0])
                if kept_best is None and self.table.ms_per_image(size, shapes[0]) > limit_ms:
                    break
                for shape in shapes[1:]:
                    self._open(Bucket(size, shape))
            except OutOfMemory:
                self.limit_batch(size)
                break
            smaller = size
        for timing in self.timings:
            if self.table.is_open(timing.num_images, (timing.height, timing.width)):
                self._time(Bucket(timing.num_images, (timing.height, timing.width)), is_over)

    def open_wanted(self) -> None:
        """Open the bucket that waiting images would fill, if there is one: check it, and time it once.

        Raises:
            DeviceLies: the bucket gave a wrong answer for the golden photo; it is not used.
            DetectorFault: the device failed.
        """
        bucket = self.table.take_wanted()
        if bucket is not None:
            try:
                self._open(bucket)
            except OutOfMemory:
                self.limit_batch(bucket.num_images)

    def best_batch(self, shape: tuple[int, int]) -> int:
        """The batch size with the least measured time for each image, within the device's memory."""
        return self.table.best_batch(shape)

    def next_batch(self, shape: tuple[int, int], num_waiting: int) -> int:
        """How many images the next run should hold, given how many of its shape wait."""
        return self.table.take(shape, min(num_waiting, self.table.most(shape, num_waiting)))

    def assemble_s(self, num_images: int, shape: tuple[int, int]) -> float:
        """Seconds that it takes to make the tensor of so many images ready, generously."""
        num_bytes = num_images * shape[0] * shape[1] * 3
        return _START_ASSEMBLING_S + 2 * self._assemble_s_per_byte * num_bytes

    def limit_batch(self, too_many: int) -> int:
        """Note, also for the next process, that the device has no memory for so many images in a run.

        Returns:
            The next smaller batch size, which is the largest from now on.
        """
        smaller = max((size for size in self._settings.batch_sizes if size < too_many), default=1)
        max_batch = self.table.max_batch = min(smaller, self.max_batch or smaller)
        if self._guard.recorder is not None:
            self._guard.recorder.limit_batch(max_batch)
        return max_batch

    def expected_s(self, num_images: int, shape: tuple[int, int]) -> float:
        """Seconds that a run of so many images should take, from the measured times of late."""
        return self.table.expected_s(num_images, shape) * self._stretch

    def detect(self, images: Sequence[PreparedImage], *, first: bool = False) -> list[tuple[Face, ...]]:
        """The faces of each image, in order, best first.

        Args:
            images: all prepared for the same shape.
            first: run them before others that wait for the device.

        Raises:
            DeviceLies: the heads are not finite, contradict each other, or hold no answer of a network.
            DeviceFailed, OutOfMemory: the run failed.
        """
        return self.run_batch([AskedImage(each, self._own) for each in images], first=first)[0]

    def run_batch(
        self, batch: Sequence[AskedImage], *, first: bool = False, begun: Callable[[], None] | None = None
    ) -> tuple[list[tuple[Face, ...]], Run]:
        """Do as `detect`, each image by its own settings, and return the run too.

        `begun` is called when the device begins with it.
        """
        digests = [asked.image.digest for asked in batch]
        return self._detect(batch, digests, self._settings.max_run_s, first, begun)

    def check_golden(self) -> None:
        """Detect the golden photo once, in a batch of one.

        Raises:
            DeviceLies: the faces found are wrong; says how.
        """
        self._check(Bucket(1, self._settings.shapes[0]))

    def _open(self, bucket: Bucket) -> None:
        """Check the bucket, which may be used from then on, and time one run of it."""
        # The first run of a bucket compiles and allocates; only later ones tell its cost.
        self._check(bucket)
        self.table.open(*bucket)
        self._time_once(bucket)

    def _time(self, bucket: Bucket, is_over: Callable[[], bool]) -> None:
        """Time runs of the bucket until they are enough, or the time is over."""
        while self.table.num_timed(*bucket) < NUM_TIMED_RUNS and not is_over():
            self._time_once(bucket)

    def _time_once(self, bucket: Bucket) -> None:
        session, tensor, lent = self._assemble(golden.photos(*bucket), bucket.shape)
        with self._guard.run(_named(bucket), self._settings.max_run_s):
            begun = self._work_clock()
            session.run(tensor)
            run_ms = (self._work_clock() - begun) * 1000
        self._buffers.give_back(lent)
        self.table.add(*bucket, run_ms)

    def _check(self, bucket: Bucket) -> None:
        is_open = self.table.is_open(*bucket)
        limit_s = self._settings.max_run_s if is_open else self._settings.max_first_run_s
        # Thresholds that a person chose say nothing about the device.
        photos = [AskedImage(each, OF_FAMILY) for each in golden.photos(bucket.num_images, bucket.shape)]
        found, _ = self._detect(photos, (), limit_s, True)
        for slot, faces in enumerate(found):
            problem = golden.problem(faces)
            if problem:
                raise DeviceLies(
                    f"{self.provider} did not find the known face in the golden photo: {problem} "
                    f"(image {slot + 1} of {bucket.num_images}, tensor {bucket.shape[0]} x "
                    f"{bucket.shape[1]}, model {self.model.name}). Its answers cannot be trusted."
                )

    def _detect(
        self,
        batch: Sequence[AskedImage],
        digests: Sequence[str],
        limit_s: float,
        first: bool,
        on_begin: Callable[[], None] | None = None,
    ) -> tuple[list[tuple[Face, ...]], Run]:
        shape = batch[0].image.shape
        session, tensor, lent = self._assemble([asked.image for asked in batch], shape)
        with self._guard.run(_named(Bucket(len(batch), shape)), limit_s, digests, first=first):
            if on_begin is not None:
                on_begin()
            begun, work_begun = self._clock(), self._work_clock()
            heads = session.run(tensor)
            work_s, ran = self._work_clock() - work_begun, self._clock()
        self._buffers.give_back(lent)
        try:
            found = self.model.family.decode(heads, *shape, self._least_scores(batch, len(tensor)))
        except HeadsWrong as error:
            raise DeviceLies(
                f"{self.provider} gave numbers that cannot be right: {error}. "
                "Update the device's driver, or use another version of it."
            ) from error
        if dead := dead_images(heads, len(batch)):
            raise DeviceLies(
                f"{self.provider} gave the same number everywhere for {len(dead)} of {len(batch)} images, "
                "and a working network never does that. "
                "Update the device's driver, or use another version of it."
            )
        faces = [
            _in_original_pixels(
                nms(
                    candidates,
                    settings.nms_threshold or self.model.family.nms_threshold,
                    settings.max_faces,
                ),
                image,
            )
            for candidates, (image, settings) in zip(found, batch, strict=False)
        ]
        self.last_run_ms = (ran - begun) * 1000
        if digests:
            # Runs of the golden photo may be the first of their bucket, which compile.
            self.table.add(len(tensor), shape, work_s * 1000)
            if work_s > 0:
                self._stretch += (max(1.0, (ran - begun) / work_s) - self._stretch) / _STRETCH_RUNS
        num_slots = max(len(digests), self.best_batch(shape)) if digests else 0
        run = Run(len(digests), num_slots, shape, ran - begun, self._clock() - ran, begun, next(_NUMBERS))
        self._observer.run(run)
        return faces, run

    def _least_scores(self, batch: Sequence[AskedImage], num_slots: int) -> Floats:
        """The least score of a face in each slot, float32[num_slots, 1]; infinite for empty slots."""
        usual = self.model.family.score_threshold
        scores = np.full((num_slots, 1), np.inf, dtype=np.float32)
        scores[: len(batch), 0] = [asked.settings.score_threshold or usual for asked in batch]
        return scores

    def _assemble(
        self, images: Sequence[PreparedImage], shape: tuple[int, int]
    ) -> tuple[Session, NDArray[np.uint8], BatchTensor]:
        num_slots = self.table.slots(len(images), shape)
        begun = self._clock()
        lent = self._buffers.lend(num_slots, shape)
        tensor = lent.assemble([image.pixels for image in images], num_slots)
        s_per_byte = (self._clock() - begun) / tensor.nbytes
        self._assemble_s_per_byte += (s_per_byte - self._assemble_s_per_byte) / 8
        return self._session(Bucket(num_slots, shape)), tensor, lent

    def _session(self, bucket: Bucket) -> Session:
        key = bucket if self._opener.fixed_shapes else None
        session = self._sessions.get(key)
        if session is None:
            fixed = None if key is None else (key.num_images, *key.shape)
            with self._guard.watching("opening a session", self._settings.max_first_run_s):
                session = self._opener.open(self.model.prepared, fixed)
            if self._wanted not in (None, session.provider):
                raise DeviceUnavailable(
                    f"{self._wanted} was asked for, and the session uses {session.provider or 'none'}: it "
                    "fell back without an error. Check the adapter, its driver, and which onnxruntime is "
                    "installed."
                )
            self._sessions[key] = session
        return session


def _named(bucket: Bucket) -> str:
    return f"A run of {bucket.num_images} images of {bucket.shape[0]} x {bucket.shape[1]} pixels"


def _in_original_pixels(found: Candidates, image: PreparedImage) -> tuple[Face, ...]:
    """Scale to the original's pixels, cut boxes at the photo's edges, drop faces that lie in the padding."""
    per_x = image.width / image.pixels.shape[1]
    per_y = image.height / image.pixels.shape[0]
    faces = []
    # For the few faces of a photo, plain numbers are several times faster than NumPy's small arrays.
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.landmarks.tolist(), strict=True)
    for (left, top, right, bottom), score, points in rows:
        x1, x2 = (min(max(x * per_x, 0.0), float(image.width)) for x in (left, right))
        y1, y2 = (min(max(y * per_y, 0.0), float(image.height)) for y in (top, bottom))
        if x2 > x1 and y2 > y1:
            right_eye, left_eye, nose, right_mouth, left_mouth = ((x * per_x, y * per_y) for x, y in points)
            faces.append(
                Face(
                    box=(x1, y1, x2, y2),
                    score=score,
                    landmarks=(right_eye, left_eye, nose, right_mouth, left_mouth),
                )
            )
    return tuple(faces)
