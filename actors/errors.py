"""Whose fault it is, and whether asking again is of any use.

    ActorError
    ├── ImageFault           the image's: rejected, never counts against the device
    └── DetectorFault        ours: failed, with a reason
        ├── ModelUnavailable     weights missing, altered or of an unknown family
        ├── DeviceUnavailable    the provider asked for is not there
        ├── DeviceHeld           another process has the device; says which
        ├── LeaseOver            the cluster was not heard for too long, or has another owner
        ├── DeviceLies           it computes, but wrongly (the golden photo says so)
        ├── DeviceFailed         a run raised
        ├── DeviceRemoved        the adapter is gone or was reset; only a new process gets it back
        ├── OutOfMemory          the bucket was too big
        ├── Quarantined          the image has ended the detector's process before, and is not run again now
        ├── Busy                 the queue is full; says how long to wait
        ├── DeadlineMissed       not run, because it could not be answered in time
        └── NotReady             starting, draining or stopped

Every argument goes to the base constructor, so that an error keeps it across pickling.
"""

from __future__ import annotations

from typing import ClassVar

from actors.faces import Failure, Rejection


class ActorError(Exception):
    """Anything that `actors` raises on purpose."""


class ImageFault(ActorError):
    """The image cannot be used; carries the `Rejection` and a sentence for people."""

    def __init__(self, reason: Rejection, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class DetectorFault(ActorError):
    """A good image got no answer; `detail` says what happened and what to do next."""

    failure: ClassVar[Failure] = Failure.INTERNAL

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail

    @property
    def retry_after_s(self) -> float | None:
        """How long to wait before asking again, where that is known."""
        return None


class ModelUnavailable(DetectorFault):
    """The weights are missing, altered, or of a family that nobody here can decode."""

    failure = Failure.MODEL_UNAVAILABLE


class DeviceUnavailable(DetectorFault):
    """The provider or adapter that was asked for cannot be had."""

    failure = Failure.DEVICE_UNAVAILABLE


class DeviceHeld(DetectorFault):
    """Another process has the device open; `holder` says which, where its record can be read."""

    failure = Failure.DEVICE_HELD

    def __init__(self, device: str, holder: object = None) -> None:
        super().__init__(
            f"The device {device} belongs to {holder or 'another process, which left no readable record'}. "
            "One process owns a device at a time: use that one, or end it first."
        )
        self.args = (device, holder)
        self.device = device
        self.holder = holder


class LeaseOver(DetectorFault):
    """The owner was cut off from its cluster and stopped, or was succeeded by another."""

    failure = Failure.DETECTOR_LOST


class DeviceLies(DetectorFault):
    """The device runs without an error and gives wrong numbers."""

    failure = Failure.DEVICE_LIES


class DeviceFailed(DetectorFault):
    """A session run raised an error."""

    failure = Failure.DEVICE_FAILED


class DeviceRemoved(DetectorFault):
    """The adapter was removed or reset. It never comes back inside this process (onnxruntime#26606)."""

    failure = Failure.DEVICE_FAILED


class OutOfMemory(DetectorFault):
    """The device had no memory for the batch."""

    failure = Failure.OUT_OF_MEMORY


class Quarantined(DetectorFault):
    """The image was alone on the device when the process died, after it had been there once before."""

    failure = Failure.QUARANTINED


class DeadlineMissed(DetectorFault):
    """The answer could not be had in the time allowed; the image was not run."""

    failure = Failure.DEADLINE


class NotReady(DetectorFault):
    """The detector is starting, draining or stopped."""

    failure = Failure.NOT_READY


class Busy(DetectorFault):
    """The queue is full. Not an error of anybody: wait `retry_after_s` and ask again."""

    failure = Failure.BUSY

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__(detail)
        self.args = (detail, wait_s)
        self.wait_s = wait_s

    @property
    def retry_after_s(self) -> float | None:
        return self.wait_s
