"""What the detectors' devices did between two moments, from the counters in their health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.faces import Health


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """All devices together, between two moments.

    Attributes:
        num_devices: detectors that were heard at both moments, in the same life of their process.
        num_restarted: detectors whose process is another one now, or that are silent; they are left out.
        busy: the share of the time in which the devices ran, 0..1, the mean over all lanes; None if no
            detector was heard.
        num_runs: runs.
        num_images: images in those runs, those of other clients too.
        num_slots: slots in those runs.
    """

    num_devices: int
    num_restarted: int
    busy: float | None
    num_runs: int
    num_images: int
    num_slots: int

    @property
    def fill(self) -> float | None:
        """Images run, divided by slots; None if nothing ran."""
        return self.num_images / self.num_slots if self.num_slots else None

    @property
    def mean_batch(self) -> float | None:
        """Images in a run; None if nothing ran."""
        return self.num_images / self.num_runs if self.num_runs else None


def device_use(before: Mapping[str, Health], after: Mapping[str, Health]) -> DeviceUse:
    """Compare what each detector said of itself at two moments, by name.

    A detector's own clock counts its busy seconds and its uptime, so a slow answer changes no share.
    """
    same = [
        (before[name], health)
        for name, health in after.items()
        if name in before and before[name].stamp.incarnation == health.stamp.incarnation
    ]
    lane_s = sum((last.uptime_s - first.uptime_s) * last.num_lanes for first, last in same)
    busy_s = sum(last.busy_s - first.busy_s for first, last in same)
    return DeviceUse(
        num_devices=len(same),
        num_restarted=len(before.keys() | after.keys()) - len(same),
        busy=min(1.0, max(0.0, busy_s / lane_s)) if lane_s > 0 else None,
        num_runs=sum(last.num_runs - first.num_runs for first, last in same),
        num_images=sum(last.num_images_run - first.num_images_run for first, last in same),
        num_slots=sum(last.num_slots - first.num_slots for first, last in same),
    )
