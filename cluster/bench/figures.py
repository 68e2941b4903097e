"""What was measured under one load, as the choice of the limit needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: From this share on, a device, all cores or a process with one busy thread count as busy.
BUSY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured, as the choice needs it.

    Attributes:
        num_images: images that got an outcome.
        failed: images that failed, by reason.
        rejected: images that were rejected, by reason.
        num_by_fallback: images that the CPU of the client's process answered in place of a detector.
        num_refused: times that a detector was too busy to take an image, and was asked again.
        images_per_s: images that were searched, a second.
        rate: images a second that were asked for; None if callers waited for their answers.
        seconds: how long was measured.
        num_due: calls that should have begun meanwhile; None if callers waited for their answers.
        num_calls: calls that were answered meanwhile.
        is_gone: whether no detector could be heard at the end, and no face was searched for any more.
        num_outstanding: calls without an answer at the end.
        num_callers: calls that were outstanding at all times; None with a rate.
        images_per_call: images of one call.
        device_busy: the share of the time in which the devices ran, 0..1; None if it is not known.
        fill: images run, divided by slots; None if it is not known.
        on_processor: whether a detector runs on this machine's processor instead of a GPU.
        is_here: whether all detectors run on this machine.
        cores: cores in use, by kind of process (`usage.KINDS`).
        num_cores: cores of this machine that the client may use.
        prepare_cores: seconds in which threads prepared photos, a second.
        num_prepare_threads: threads that prepare photos of this priority.
        stage_ms: milliseconds of a call, by stage (`stages.STAGES`).
        sent_bytes_per_s: bytes that this machine sent on its network, a second.
        link_bytes_per_s: bytes a second that the links to the detectors carry, as the client's calls measured
            it; None if that is not known.
        nominal_bytes_per_s: bytes a second that the network interface can carry, as its driver says; None if
            it does not say.
        encodings: how photos travelled, in words; empty if that is not known.
        wire: the setting `client.wire`.
        max_images_in_flight: the setting.
    """

    num_images: int
    failed: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    num_by_fallback: int = 0
    num_refused: int = 0
    images_per_s: float = 0.0
    rate: float | None = None
    seconds: float = 0.0
    num_due: int | None = None
    num_calls: int = 0
    is_gone: bool = False
    num_outstanding: int = 0
    num_callers: int | None = None
    images_per_call: int = 1
    device_busy: float | None = None
    fill: float | None = None
    on_processor: bool = False
    is_here: bool = True
    cores: Mapping[str, float] = field(default_factory=dict)
    num_cores: int = 1
    prepare_cores: float = 0.0
    num_prepare_threads: int = 1
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    sent_bytes_per_s: float = 0.0
    link_bytes_per_s: float | None = None
    nominal_bytes_per_s: float | None = None
    encodings: str = ""
    wire: str = "auto"
    max_images_in_flight: int = 128

    @property
    def busy_cores(self) -> float:
        """Cores in use by all programs, at most those that there are."""
        return min(float(self.num_cores), sum(self.cores.values()))

    @property
    def cores_are_busy(self) -> bool:
        """Whether nearly all cores are in use."""
        return self.busy_cores >= BUSY * self.num_cores

    @property
    def device_is_busy(self) -> bool:
        """Whether the devices run nearly all the time."""
        return self.device_busy is not None and self.device_busy >= BUSY

    @property
    def link_share(self) -> float | None:
        """The share of the link that is in use, 0..1; None if its speed is not known.

        A measured speed is better than the one that a driver states: the slowest part of the way may be
        behind this machine's interface.
        """
        speed = self.link_bytes_per_s or self.nominal_bytes_per_s
        return min(1.0, self.sent_bytes_per_s / speed) if speed and not self.is_here else None

    @property
    def call_ms(self) -> float:
        """Milliseconds of all stages of a call together."""
        return sum(self.stage_ms.values())

    def share(self, stage: str) -> float:
        """The share of a call's time that a stage takes, 0..1."""
        return self.stage_ms.get(stage, 0.0) / self.call_ms if self.call_ms else 0.0
