"""Measures how many cores of a detector's machine could decode JPEGs; clients choose by it what they send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

#: A shorter time between two readings says more about single runs than about the machine.
_MEASURE_S = 1.0


def idle_s() -> float:
    """Seconds for which the cores of this machine were idle since it started, summed over all cores."""
    times = psutil.cpu_times()
    return float(times.idle + getattr(times, "iowait", 0.0))


class SpareCores:
    """Measures the cores that nobody needs for anything else than decoding JPEGs.

    Decoding counts as spare. Otherwise a client that sends JPEGs would find no spare cores because of its own
    JPEGs, would go back to pixels, and would find spare cores again.

    Args:
        num_cores: cores that this process may use.
        clock: seconds.
        read_idle_s: reads the idle seconds of all cores of the machine.
    """

    def __init__(
        self,
        num_cores: int,
        clock: Callable[[], float] = time.monotonic,
        read_idle_s: Callable[[], float] = idle_s,
    ) -> None:
        self._num_cores = num_cores
        self._clock = clock
        self._read_idle_s = read_idle_s
        self._lock = threading.Lock()
        self._decoding_s = 0.0
        self._read_at = clock()
        self._idle_s = read_idle_s()
        self._measured: float | None = None

    def decoded(self, took_s: float) -> None:
        """Count the processor seconds of one decoded JPEG; any thread may call it."""
        with self._lock:
            self._decoding_s += took_s

    def measure(self) -> float | None:
        """Return the spare cores since the reading before, at most those that this process may use.

        The figure is kept for a second, however often it is asked for. None in the first second.
        """
        with self._lock:
            now = self._clock()
            if (passed_s := now - self._read_at) < _MEASURE_S:
                return self._measured
            idle = self._read_idle_s()
            spare = (idle - self._idle_s + self._decoding_s) / passed_s
            self._measured = min(float(self._num_cores), max(0.0, spare))
            self._read_at, self._idle_s, self._decoding_s = now, idle, 0.0
            return self._measured
