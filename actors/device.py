"""Which device a detector runs on, and the right to open it."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from actors.errors import DeviceHeld, DeviceUnavailable, HeadSilent, LeaseOver
from actors.ownership import DeviceLock
from actors.session import OnnxSessionOpener, ProviderNames, SessionOpener
from actors.settings import DetectorSettings, Provider


@dataclass(frozen=True, slots=True)
class Device:
    """One adapter (or the CPU) of this machine.

    Attributes:
        provider: "cpu" or "directml".
        number: number of the adapter, for DirectML; for the CPU it only tells detectors apart.
    """

    provider: Provider
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Device:
        """The device of a text: "directml:1" is adapter 1, "directml" is adapter 0.

        Raises:
            ValueError: the text names no known provider, or no number after the colon.
        """
        provider, _, number = text.strip().partition(":")
        if provider not in get_args(Provider) or not (number or "0").isdigit():
            raise ValueError(f"{text!r} names no device; give for example 'directml:0' or 'cpu'.")
        return cls(cast(Provider, provider), int(number or 0))

    def __str__(self) -> str:
        return f"{self.provider}:{self.number}"

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, and not the CPU."""
        return self.provider != "cpu"

    @property
    def provider_name(self) -> str:
        """What ONNX Runtime calls the provider."""
        return ProviderNames[self.provider]

    @property
    def lock_name(self) -> str:
        """What the machine-wide lock of the device is called."""
        return f"{self.provider}-{self.number}"


class Lease:
    """How long this process may use its device without news of the cluster.

    Without a call of `limit` it is endless: that is a detector outside any cluster.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._renewed = clock()
        self._seconds: float | None = None
        self._reason = ""

    def limit(self, seconds: float) -> None:
        """Let it end `seconds` after each renewal, and renew it now."""
        with self._lock:
            self._seconds, self._renewed = seconds, self._clock()

    def renew(self) -> None:
        """The cluster was heard."""
        with self._lock:
            self._renewed = self._clock()

    def end(self, reason: str) -> None:
        """End it for good, because another process is the owner now; `reason` is a sentence."""
        with self._lock:
            self._reason = reason

    @property
    def age_s(self) -> float:
        """Seconds since the cluster was heard."""
        with self._lock:
            return self._clock() - self._renewed

    def check(self) -> None:
        """Check the lease; called before and after every run on the device.

        The device must not be used then, and an answer that it just gave must not be passed on.

        Raises:
            LeaseOver: another process is the owner now.
            HeadSilent: the head was not heard for too long.
        """
        with self._lock:
            reason = self._reason
        if reason:
            raise LeaseOver(reason)
        if (silence := self.silence()) is not None:
            raise silence

    def silence(self) -> HeadSilent | None:
        """What to say while the lease is over because the head is silent; None while it is not over."""
        with self._lock:
            silent_s, seconds = self._clock() - self._renewed, self._seconds
        if seconds is None or silent_s <= seconds:
            return None
        return HeadSilent(
            f"The detector is well, but it has not heard the cluster's head for {silent_s:.0f} s (its lease "
            f"is {seconds:g} s), so another process may own the device by now. It goes on when it hears the "
            "head. If that takes long, check that the head runs, and that this machine reaches it."
        )


def own_a_device(
    devices: Sequence[Device],
    name: str,
    cluster: str,
    patience_s: float,
    folder: Path | None = None,
) -> tuple[Device, DeviceLock]:
    """Lock the first free device; if none is free, wait for one whose holder is our predecessor.

    Raises:
        DeviceHeld: other processes hold all devices; says which one holds the first.
    """
    locks = [(device, DeviceLock(device.lock_name, folder)) for device in devices]
    for device, lock in locks:
        try:
            lock.acquire(name, cluster)
        except DeviceHeld:
            continue
        return device, lock
    faults = []
    for device, lock in locks:
        try:
            lock.acquire_from_predecessor(name, cluster, patience_s)
        except DeviceHeld as held:
            faults.append(held)
            continue
        return device, lock
    raise faults[0]


def work_clock_for(device: Device, settings: DetectorSettings) -> Callable[[], float] | None:
    """The clock that tells what a run costs, where the wall clock also counts waiting for a core."""
    # `OnnxSessionOpener` gives a run on the CPU one thread, the caller's. Of other openers nothing is known.
    # Windows counts a thread's time in steps of 16 ms.
    is_known = not device.is_gpu and settings.opener is None and sys.platform != "win32"
    return time.thread_time if is_known else None


def opener_for(device: Device, settings: DetectorSettings) -> SessionOpener:
    """The session opener that the settings name, or else ONNX Runtime's on the device.

    Raises:
        DeviceUnavailable: `settings.opener` names nothing that can be imported.
    """
    if settings.opener is None:
        return OnnxSessionOpener(device.provider, device.number)
    module, _, name = settings.opener.partition(":")
    try:
        made: SessionOpener = getattr(importlib.import_module(module), name)(device.provider, device.number)
    except (ImportError, AttributeError) as error:
        raise DeviceUnavailable(
            f"The session opener {settings.opener!r} cannot be imported: {error}. Give 'module:name', "
            "importable where the detector runs."
        ) from error
    return made
