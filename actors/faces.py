"""The values that travel back to the caller: faces, outcomes and health. Frozen, and without arrays.

Every image gets exactly one `Outcome`, in the order asked: `Detected` (0 or more faces), `Rejected` (the
image is at fault) or `Failed` (we are at fault). A failure is never shown as "no faces".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from actors.named_state import by_names

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class Rejection(StrEnum):
    """Why an image cannot be searched for faces. Sending it again gives the same answer."""

    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    ZERO_SIZED = "zero_sized"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    #: The data inside the file is damaged; `truncated` is a file that ends too early.
    DAMAGED = "damaged"
    #: Decoding would cost more than is allowed, or has cost it; the detail says what.
    TOO_COSTLY = "too_costly"
    #: Of a folder or a pattern that a person named, and that has no photo.
    NO_PHOTOS = "no_photos"


class Failure(StrEnum):
    """Why a good image got no answer. Sending it again later may help."""

    BUSY = "busy"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    NOT_READY = "not_ready"
    MODEL_UNAVAILABLE = "model_unavailable"
    DEVICE_UNAVAILABLE = "device_unavailable"
    DEVICE_HELD = "device_held"
    DEVICE_LIES = "device_lies"
    DEVICE_FAILED = "device_failed"
    OUT_OF_MEMORY = "out_of_memory"
    QUARANTINED = "quarantined"
    DETECTOR_LOST = "detector_lost"
    #: The detector is well and has not heard the cluster's head for too long: it may not use its device now.
    HEAD_SILENT = "head_silent"
    NO_CLUSTER = "no_cluster"
    VERSION_SKEW = "version_skew"
    #: The detector has another model, or other tensors, than was asked for.
    OTHER_SETTINGS = "other_settings"
    INTERNAL = "internal"


class Priority(StrEnum):
    """Who waits for the answer: a person (`interactive`) or a scan (`bulk`). Interactive images go first."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@by_names
@dataclass(frozen=True, slots=True)
class Face:
    """One face, in pixels of the upright original, origin at the top left, as floats.

    Attributes:
        box: x1, y1, x2, y2.
        score: 0..1.
        landmarks: five points x, y: right eye, left eye, nose, right and left corner of the mouth
            (of the person: the right eye is on the left side of the picture).
    """

    box: Box
    score: float
    landmarks: tuple[Point, Point, Point, Point, Point]


@by_names
@dataclass(frozen=True, slots=True)
class Times:
    """Where an image's time went, in milliseconds.

    Attributes:
        prepare_ms: decoding and shrinking, at the caller or at the detector.
        queue_ms: waiting in the detector for its batch.
        run_ms: the session run that the image was part of, and the decoding of its heads.
    """

    prepare_ms: float = 0.0
    queue_ms: float = 0.0
    run_ms: float = 0.0


@by_names
@dataclass(frozen=True, slots=True)
class Stamp:
    """Who answered, stamped on every outcome.

    Attributes:
        served_by: detector and device in words, for example "FaceDetector on CPUExecutionProvider";
            "client" for an image that was refused before it was sent.
        model: name and sha256 of the weights as published, "centerface@09189deaaf86…" in full.
        incarnation: names one life of one detector process; a new process gets a new one.
        epoch: the cluster's number for that life; a later owner has a greater one. 0 outside any cluster.
        fallback: why the caller's own CPU answered and not a detector, for example "circuit open:
            device_failed"; empty when a detector did.
    """

    served_by: str
    model: str = ""
    incarnation: str = ""
    epoch: int = 0
    fallback: str = ""


@by_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer for one image; always one of `Detected`, `Rejected`, `Failed`.

    Attributes:
        status: which of the three it is, as one word: detected, rejected or failed.
    """

    stamp: Stamp
    times: Times = field(default_factory=Times)
    status: ClassVar[str] = ""

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON-ready values, with the same keys for all three kinds.

        `faces` is None where the image was not searched, so that nobody takes a failure for "no faces".
        """
        row: dict[str, Any] = {
            "status": self.status,
            "reason": None,
            "detail": None,
            "faces": None,
            "width": None,
            "height": None,
            "damaged": None,
            "served_by": self.stamp.served_by,
            "model": self.stamp.model,
            "incarnation": self.stamp.incarnation,
            "fallback": self.stamp.fallback or None,
            "retry_after_s": None,
            "times": {name: round(ms, 3) for name, ms in asdict(self.times).items()},
        }
        if isinstance(self, Detected):
            row |= {
                "faces": [asdict(face) for face in self.faces],
                "width": self.width,
                "height": self.height,
                "damaged": asdict(self.damaged) if self.damaged else None,
            }
        elif isinstance(self, Rejected | Failed):
            row |= {"reason": str(self.reason), "detail": self.detail}
        if isinstance(self, Failed):
            row["retry_after_s"] = self.retry_after_s
        return row


@by_names
@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the picture is missing, and was not searched.

    Attributes:
        decoded_share: the share of the picture's pixels that could be decoded, 0..1.
    """

    decoded_share: float


@by_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Detected(Outcome):
    """The image was searched; `faces` holds the faces, best first, and may be empty.

    Attributes:
        width: width of the upright original, in pixels.
        height: height of the upright original, in pixels.
        damaged: how much of the picture is there, if a part is missing; None for a whole picture. It may hold
            more faces than were found.
    """

    status: ClassVar[str] = "detected"
    faces: tuple[Face, ...]
    width: int
    height: int
    damaged: Damage | None = None


@by_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Outcome):
    """The image is at fault; `detail` says how, in a sentence for people."""

    status: ClassVar[str] = "rejected"
    reason: Rejection
    detail: str


@by_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Outcome):
    """We are at fault; `detail` says what happened and what to do.

    Attributes:
        retry_after_s: how long to wait before asking again, in seconds, where that can be told.
    """

    status: ClassVar[str] = "failed"
    reason: Failure
    detail: str
    retry_after_s: float | None = None


class State(StrEnum):
    """Where a detector is in its life. Only `ready` has earned trust (the golden photo)."""

    STARTING = "starting"
    READY = "ready"
    #: Well, but its lease on the device is over: the head is silent. It goes on when it hears the head.
    WAITING = "waiting"
    FAULTY = "faulty"
    DRAINING = "draining"


@by_names
@dataclass(frozen=True, slots=True)
class BucketTiming:
    """How long a run of one bucket takes.

    Attributes:
        num_images: images in the run.
        height: height of the tensor, in pixels.
        width: width of the tensor, in pixels.
        run_ms: milliseconds of a run, for the whole batch: the median of the last runs. On a CPU these are of
            processor time.
        num_runs: runs that were measured, those of earlier processes too.
        age_s: seconds since the last of them.
        is_used: whether it is the size that full batches of this shape have now.
    """

    num_images: int
    height: int
    width: int
    run_ms: float
    num_runs: int = 0
    age_s: float = 0.0
    is_used: bool = False


@by_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a detector is, in its own words and numbers.

    Attributes:
        detail: why it is not ready, in words; empty when it is ready.
        failure: the reason as a `Failure`; None when it is ready or still starting.
        provider: the ONNX Runtime provider that the session really uses; empty before it is open.
        provider_requested: the provider that was asked for.
        device: the device that it owns or wants, for example "directml:0".
        owner_since: when it took the device for itself, seconds since 1970; None if it has no lock on it.
        golden_age_s: seconds since the golden photo was last detected correctly; None if never.
        shapes: tensor sizes that it takes, (height, width) in pixels; clients prepare images for one of them.
        buckets: the time of each bucket, measured at start and by every run since.
        num_lanes: runs that may be on the device at once.
        start_ms: milliseconds of each part of the start: model, session, warm_up.
        max_batch: the most images that one run has memory for; None if the device never lacked memory.
        last_words: why the process before this one ended itself; empty if it was killed, or if this is the
            first.
        num_queued_interactive: interactive images among those queued.
        num_runs: runs on the device since the process began, without those of the golden photo.
        num_images_run: photos in those runs.
        num_slots: batch slots in those runs; fill = num_images_run / num_slots.
        busy_s: seconds of `uptime_s` in which the device ran; the sum of all lanes.
        num_suspects: images that were on the device when a process died; each will be run alone.
        num_quarantined: images that ended a process while they were alone on the device; they are not run for
            now.
        spare_cores: cores of its machine that were idle or decoded JPEGs in the last second or more, summed;
            None while they are not measured.
        settings: the detector's settings as it was placed with, JSON-ready; None where they are not known.
        placed_by: host and process that placed it, in words; empty where that is not known.
    """

    name: str
    state: State
    detail: str
    failure: Failure | None
    provider: str
    provider_requested: str
    device: str
    owner_since: float | None
    stamp: Stamp
    host: str
    pid: int
    uptime_s: float
    golden_age_s: float | None
    shapes: tuple[tuple[int, int], ...]
    buckets: tuple[BucketTiming, ...]
    num_lanes: int
    start_ms: dict[str, float]
    num_queued: int
    num_running: int
    num_detected: int
    num_rejected: int
    num_failed: int
    max_batch: int | None = None
    last_words: str = ""
    num_suspects: int = 0
    num_quarantined: int = 0
    num_queued_interactive: int = 0
    num_runs: int = 0
    num_images_run: int = 0
    num_slots: int = 0
    busy_s: float = 0.0
    spare_cores: float | None = None
    settings: dict[str, Any] | None = None
    placed_by: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The health as JSON-ready values."""
        return asdict(self)
