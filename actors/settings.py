"""`DetectorSettings`: all settings of a detector, with defaults that suit a newcomer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Provider = Literal["cpu", "directml"]

#: Settings that change answers and need another model or other tensors: a client with others is refused.
OF_MODEL = frozenset({"model", "model_path", "input_size"})
#: Settings that travel with each call, whatever the detector was placed with.
OF_CALL = frozenset({"score_threshold", "nms_threshold", "max_faces"})
#: Settings that count where a photo is made small; a client does that by its own.
OF_CALLER = frozenset(
    {
        "max_enlargement",
        "max_image_pixels",
        "max_image_bytes",
        "max_decode_bytes",
        "max_decode_s",
        "search_damaged",
    }
)
#: Settings that a machine that joins decides by the devices that it lends.
OF_MACHINE = frozenset({"provider", "device_id", "exclusive"})
#: Settings that concern only how a detector works, and none of its answers.
OF_OPERATION = frozenset(
    {
        "lease_s",
        "opener",
        "batch_sizes",
        "warm_up_s",
        "num_lanes",
        "max_queued_images",
        "max_queued_bytes",
        "num_prepare_threads",
        "golden_interval_s",
        "max_run_s",
        "max_first_run_s",
        "quarantine_s",
    }
)


class DetectorSettings(BaseModel):
    """The settings of one detector. They are small and plain, because they are sent as the actor's argument.

    Attributes:
        model: The model's name in the catalogue (`rayface models`).
        model_path: A file of a known family, used instead of `model`.
        provider: What the session must run on. The session never falls back to another by itself.
        device_id: The adapter's number, for DirectML.
        exclusive: Whether only one process of this machine at a time may have the device open.
            Without a value: true for a GPU, false for the CPU. On a machine that joined with
            `rayface join` it is always true.
        lease_s: Seconds for which the detector may use the device after it last heard from the cluster.
        opener: "module:name" of a `SessionOpener` of your own, which is made with (provider,
            device_id): for another runtime, or for a simulated device.
        score_threshold: The least score of a face, 0..1. Without a value, that of the model's family.
        nms_threshold: The greatest IoU of two faces that are both kept. Without a value, that of the
            model's family.
        max_faces: Faces kept for each image, best first.
        input_size: The longer side of the tensor in pixels, a multiple of 32.
        max_enlargement: A small photo is enlarged at most this many times to fill the tensor.
        batch_sizes: Batch sizes that the detector may use. It measures them at start and while it works, and
            uses the best one.
        warm_up_s: Seconds that the measurement may take at start, after each shape has run once. What an
            earlier process measured is only checked.
        num_lanes: Runs on the device at once. Without a value: one for a GPU, one for each core of a CPU.
        max_image_pixels: The most pixels of a photo (width times height in the header). A larger photo
            is rejected before it is decoded.
        max_image_bytes: The most bytes of an encoded photo. A larger one is rejected before it is decoded.
        max_decode_bytes: The most bytes of memory that decoding a photo may take. In a format that cannot be
            decoded at a reduced size, 600 MB are enough for 120 megapixels of colours as PNG or TIFF, 66 as
            HEIC, 54 as AVIF and 35 as WebP.
        max_decode_s: The most seconds of processor time that decoding a photo may take. Every photo but an
            ordinary JPEG is decoded in a process of its own, which then ends, and the photo is rejected.
        search_damaged: Whether what is left of a damaged or truncated JPEG is searched. Its outcome is then
            `detected` with the mark `damaged`. Without it, the photo is rejected.
        max_queued_images: The most images that wait, of both priorities together. Further images fail
            with the reason `busy`. A quarter of the places is kept for interactive images.
        max_queued_bytes: The most bytes of all images that wait, as they were sent. Further images fail
            with the reason `busy`.
        num_prepare_threads: Threads that prepare photos for callers that send them encoded. Without a
            value, one for each core.
        golden_interval_s: Seconds between two tries of the golden photo, whether the device is busy or idle.
        max_run_s: Seconds that a run may take. If it takes longer, the device hangs: the process ends
            and is started again.
        max_first_run_s: Seconds that opening a session may take, and so may the first run of each bucket,
            which compiles the model.
        quarantine_s: Seconds for which an image that ended the detector's process twice is not run
            again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = "centerface"
    model_path: Path | None = None
    provider: Provider = "cpu"
    device_id: Annotated[int, Field(ge=0)] = 0
    exclusive: bool | None = None
    lease_s: Annotated[float, Field(gt=0)] = 10.0
    opener: str | None = None
    score_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    nms_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    max_faces: Annotated[int, Field(gt=0)] = 1000
    input_size: Annotated[int, Field(ge=64, le=4096)] = 640
    max_enlargement: Annotated[float, Field(ge=1)] = 2.0
    batch_sizes: tuple[Annotated[int, Field(ge=1, le=256)], ...] = (1, 2, 4, 8, 16, 32)
    warm_up_s: Annotated[float, Field(ge=0)] = 1.0
    num_lanes: Annotated[int, Field(ge=1)] | None = None
    max_image_pixels: Annotated[int, Field(gt=0)] = 200_000_000
    max_image_bytes: Annotated[int, Field(gt=0)] = 200_000_000
    max_decode_bytes: Annotated[int, Field(ge=100_000_000)] = 600_000_000
    max_decode_s: Annotated[float, Field(gt=0)] = 20.0
    search_damaged: bool = False
    max_queued_images: Annotated[int, Field(ge=1)] = 512
    max_queued_bytes: Annotated[int, Field(ge=1_000_000)] = 1_000_000_000
    num_prepare_threads: Annotated[int, Field(ge=1)] | None = None
    golden_interval_s: Annotated[float, Field(gt=0)] = 60.0
    max_run_s: Annotated[float, Field(gt=0)] = 10.0
    max_first_run_s: Annotated[float, Field(gt=0)] = 120.0
    quarantine_s: Annotated[float, Field(gt=0)] = 3600.0

    @field_validator("input_size")
    @classmethod
    def _multiple_of_32(cls, size: int) -> int:
        if size % 32:
            raise ValueError("must be a multiple of 32 (the coarsest stride of the networks)")
        return size

    @field_validator("batch_sizes")
    @classmethod
    def _rising_from_one(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError("must rise and begin with 1, for example [1, 2, 4]")
        return sizes

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Tensor sizes (height, width) in pixels: square, landscape 4:3, portrait 3:4."""
        long = self.input_size
        short = -(-long * 3 // 4 // 32) * 32
        return ((long, long), (short, long), (long, short))
