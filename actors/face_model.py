"""Pixels → faces, GPU and CPU alike: assemble a batch, run it, decode the heads; measure and prove it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from actors import golden
from actors.decoding import Candidates, HeadsNotFinite, nms
from actors.errors import DeviceLies
from actors.faces import BucketTiming, Face
from actors.images import PreparedImage
from actors.models import ReadyModel
from actors.session import Session, SessionOpener
from actors.settings import DetectorSettings

#: A bigger batch must save at least this share of an image's time, or it is not worth its latency.
_WORTH_GROWING = 0.95


@dataclass(frozen=True, slots=True)
class _Bucket:
    num_images: int
    shape: tuple[int, int]


class FaceModel:
    """One model on one device. `detect` may be called from several threads; at most `num_lanes` run at once.

    While one thread is on the device, others assemble the next batch and decode the last one.
    `may_run` is asked before each run and after it, and raises where the device is no longer ours.
    """

    def __init__(
        self,
        model: ReadyModel,
        opener: SessionOpener,
        settings: DetectorSettings,
        num_lanes: int,
        clock: Callable[[], float] = time.perf_counter,
        may_run: Callable[[], None] = lambda: None,
    ) -> None:
        family = model.family
        self.model = model
        self.num_lanes = num_lanes
        self._settings = settings
        self._opener = opener
        self._may_run = may_run
        self._clock = clock
        self._device = threading.BoundedSemaphore(num_lanes)
        self._sessions: dict[_Bucket | None, Session] = {}
        self._run_ms: dict[_Bucket, float] = {}
        self._score_threshold = settings.score_threshold or family.score_threshold
        self._nms_threshold = settings.nms_threshold or family.nms_threshold
        self.provider = self._session(_Bucket(1, settings.shapes[0])).provider

    @property
    def timings(self) -> tuple[BucketTiming, ...]:
        """What `warm_up` measured, one entry a bucket."""
        return tuple(
            BucketTiming(bucket.num_images, *bucket.shape, round(ms, 3))
            for bucket, ms in self._run_ms.items()
        )

    def warm_up(self) -> None:
        """Run and time the buckets, growing the batch while that pays, and check every slot's answer.

        Raises:
            DeviceLies: a bucket gave a wrong answer for the golden photo.
            DeviceFailed, OutOfMemory: a run failed.
        """
        begun = self._clock()
        shapes = self._settings.shapes
        for shape in shapes:
            self._measure(_Bucket(1, shape))
        smaller = 1
        for size in self._settings.batch_sizes[1:]:
            if self._clock() - begun > self._settings.warm_up_s:
                break
            self._measure(_Bucket(size, shapes[0]))
            if self._ms_per_image(size, shapes[0]) > _WORTH_GROWING * self._ms_per_image(smaller, shapes[0]):
                break
            for shape in shapes[1:]:
                self._measure(_Bucket(size, shape))
            smaller = size

    def best_batch(self, shape: tuple[int, int]) -> int:
        """The measured batch size with the least time an image."""
        sizes = [bucket.num_images for bucket in self._run_ms if bucket.shape == shape]
        return min(sizes, key=lambda size: self._ms_per_image(size, shape), default=1)

    def expected_s(self, num_images: int, shape: tuple[int, int]) -> float:
        """How long a run of so many images should take, in seconds, by the measured table."""
        measured = [(b.num_images, ms) for b, ms in self._run_ms.items() if b.shape == shape]
        fitting = min(
            ((n, ms) for n, ms in measured if n >= num_images), default=max(measured, default=(1, 0.0))
        )
        return fitting[1] / 1000 * max(1.0, num_images / fitting[0])

    def detect(self, images: Sequence[PreparedImage]) -> list[tuple[Face, ...]]:
        """The faces of each image, in order, best first.

        Args:
            images: all prepared for the same shape.

        Raises:
            DeviceLies: heads that are not finite.
            DeviceFailed, OutOfMemory: the run failed.
        """
        shape = images[0].shape
        session, tensor = self._assemble(images, shape)
        with self._device:
            self._may_run()
            heads = session.run(tensor)
            # A process that was stopped in the middle of a run wakes up with an answer nobody may have.
            self._may_run()
        settings = self._settings
        try:
            found = self.model.family.decode(heads, *shape, self._score_threshold)
        except HeadsNotFinite as error:
            raise DeviceLies(
                f"{self.provider} gave numbers that are not finite: {error}. Update or change its driver."
            ) from error
        return [
            _in_original_pixels(nms(candidates, self._nms_threshold, settings.max_faces), image)
            for candidates, image in zip(found, images, strict=False)
        ]

    def check_golden(self) -> None:
        """Detect the golden photo once, in a batch of one.

        Raises:
            DeviceLies: the answer is wrong; says how.
        """
        self._check(_Bucket(1, self._settings.shapes[0]))

    def _measure(self, bucket: _Bucket) -> None:
        # The first run of a bucket compiles and allocates; only later ones tell its cost.
        self._check(bucket)
        session, tensor = self._assemble(golden.photos(bucket.num_images, bucket.shape), bucket.shape)
        begun = self._clock()
        with self._device:
            session.run(tensor)
        self._run_ms[bucket] = (self._clock() - begun) * 1000

    def _check(self, bucket: _Bucket) -> None:
        for slot, faces in enumerate(self.detect(golden.photos(bucket.num_images, bucket.shape))):
            problem = golden.problem(faces)
            if problem:
                raise DeviceLies(
                    f"{self.provider} did not find the known face in the golden photo: {problem} "
                    f"(image {slot + 1} of {bucket.num_images}, tensor {bucket.shape[0]} x "
                    f"{bucket.shape[1]}, model {self.model.name}). Its answers cannot be trusted."
                )

    def _assemble(
        self, images: Sequence[PreparedImage], shape: tuple[int, int]
    ) -> tuple[Session, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        num_slots = len(images)
        if self._opener.fixed_shapes:
            sizes = [b.num_images for b in self._run_ms if b.shape == shape and b.num_images >= num_slots]
            num_slots = min(sizes, default=num_slots)
        tensor = np.zeros((num_slots, *shape, 3), dtype=np.uint8)
        for slot, image in enumerate(images):
            height, width = image.pixels.shape[:2]
            tensor[slot, :height, :width] = image.pixels
        return self._session(_Bucket(num_slots, shape)), tensor

    def _session(self, bucket: _Bucket) -> Session:
        key = bucket if self._opener.fixed_shapes else None
        session = self._sessions.get(key)
        if session is None:
            fixed = None if key is None else (key.num_images, *key.shape)
            session = self._sessions[key] = self._opener.open(self.model.prepared, fixed)
        return session

    def _ms_per_image(self, size: int, shape: tuple[int, int]) -> float:
        return self._run_ms[_Bucket(size, shape)] / size


def _in_original_pixels(found: Candidates, image: PreparedImage) -> tuple[Face, ...]:
    """Undo the shrinking; cut boxes at the photo's edges and drop what lies in the padding alone."""
    per_x = image.width / image.pixels.shape[1]
    per_y = image.height / image.pixels.shape[0]
    boxes = found.boxes.astype(np.float64) * (per_x, per_y, per_x, per_y)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, image.width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, image.height)
    landmarks = found.landmarks.astype(np.float64) * (per_x, per_y)
    faces = []
    for (x1, y1, x2, y2), score, points in zip(boxes, found.scores, landmarks, strict=True):
        if x2 > x1 and y2 > y1:
            right_eye, left_eye, nose, right_mouth, left_mouth = ((float(x), float(y)) for x, y in points)
            faces.append(
                Face(
                    box=(float(x1), float(y1), float(x2), float(y2)),
                    score=float(score),
                    landmarks=(right_eye, left_eye, nose, right_mouth, left_mouth),
                )
            )
    return tuple(faces)
