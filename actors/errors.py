"""The errors of a detector: who is at fault, and whether asking again helps.

    ActorError
    ├── ImageFault           the image is at fault: it is rejected, and that never counts against the device
    └── DetectorFault        we are at fault: the image failed, with a reason
        ├── ModelUnavailable     weights missing, altered or of an unknown family
        ├── OtherSettings        the call wants another model, or other tensors, than the detector has
        ├── DeviceUnavailable    the provider that was asked for is not there
        ├── DeviceHeld           another process has the device; says which
        ├── LeaseOver            another process has become the owner
        ├── HeadSilent           the head was not heard for too long; the detector is well and waits for it
        ├── DeviceLies           the device computes wrong numbers (the golden photo shows it)
        ├── DeviceFailed         a run on the device raised an error
        ├── DeviceRemoved        the adapter is gone or was reset; only a new process gets it back
        ├── OutOfMemory          the device had no memory for the batch
        ├── Quarantined          the image ended the detector's process before; it is not run again for now
        ├── Busy                 the queue is full; says how long to wait
        ├── DeadlineMissed       no answer in the time allowed
        ├── NotReady             starting, draining or stopped
        └── Misplaced            a rayface of another version placed the detector, in words unknown here

Each constructor hands every argument to its base, so that pickling keeps them.
"""

from __future__ import annotations

from typing import ClassVar, Self

from actors.faces import Failure, Rejection

#: A silent head is asked again and again, several times a second: its return is known soon.
_HEAD_IS_ASKED_EVERY_S = 0.5


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

    def fresh(self) -> Self:
        """This fault without the frames of those to whom it was raised before.

        A lasting fault is raised to every caller, and would keep the frames and the photos of all of them.
        """
        return self.with_traceback(None)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait before asking again; None where that is not known."""
        return None


class ModelUnavailable(DetectorFault):
    """The weights are missing, altered, or of a family that cannot be decoded here."""

    failure = Failure.MODEL_UNAVAILABLE


class OtherSettings(DetectorFault):
    """The call wants answers of another model, or of other tensors; nothing was run."""

    failure = Failure.OTHER_SETTINGS


class DeviceUnavailable(DetectorFault):
    """The provider or adapter that was asked for is not there, or cannot be opened."""

    failure = Failure.DEVICE_UNAVAILABLE


class DeviceHeld(DetectorFault):
    """Another process owns the device; `holder` says which one, where its record can be read."""

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
    """Another process has become the owner; this one never uses the device again."""

    failure = Failure.DETECTOR_LOST


class HeadSilent(DetectorFault):
    """The head was not heard for longer than the lease. Nobody lost anything: ask again when it is heard."""

    failure = Failure.HEAD_SILENT

    @property
    def retry_after_s(self) -> float:
        return _HEAD_IS_ASKED_EVERY_S


class DeviceLies(DetectorFault):
    """The device runs without an error and computes wrong numbers."""

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
    """The image was on the device at two deaths of the process, alone at the second one."""

    failure = Failure.QUARANTINED


class DeadlineMissed(DetectorFault):
    """The answer did not come in the time allowed."""

    failure = Failure.DEADLINE


class _AskAgain(DetectorFault):
    """A fault that passes; `wait_s` says when to ask again, where that is known."""

    def __init__(self, detail: str, wait_s: float | None = None) -> None:
        super().__init__(detail)
        self.args = (detail, wait_s)
        self.wait_s = wait_s

    @property
    def retry_after_s(self) -> float | None:
        return self.wait_s


class NotReady(_AskAgain):
    """The detector is starting, draining or stopped."""

    failure = Failure.NOT_READY


class Misplaced(DetectorFault):
    """Another version of rayface placed the detector, and this one cannot do what it says."""

    failure = Failure.VERSION_SKEW


class Busy(_AskAgain):
    """The queue is full. Nobody is at fault: wait `retry_after_s` seconds and ask again."""

    failure = Failure.BUSY
