"""Bulk images wait while no detector may be asked or is heard: a scan would rather wait than fail."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cluster.client.detector_pool import DetectorPool


class BulkPause:
    """Holds calls with bulk images back until a detector may be asked again.

    Args:
        pool: says whether one may be asked, and why not.
        max_pause_s: how long a call is held back at most, counted from when the pause of all began.
        log: told when a pause begins and ends.
        clock: seconds; the pool's.
    """

    def __init__(
        self, pool: DetectorPool, max_pause_s: float, log: logging.Logger, clock: Callable[[], float]
    ) -> None:
        self._pool = pool
        self._max_pause_s = max_pause_s
        self._log = log
        self._clock = clock
        self._why_by_call: dict[object, str] = {}

    @property
    def why(self) -> str:
        """Why bulk images wait, in words; empty while they do not."""
        return next(iter(self._why_by_call.values()), "")

    async def wait(self) -> float:
        """Wait until a detector may be asked, or until the pause has been as long as it may be.

        Returns:
            The seconds that it has waited.
        """
        call, begun = object(), self._clock()
        until = begun + self._max_pause_s
        try:
            while (refusal := self._pool.absence()) is not None:
                if (since := self._pool.refused_since) is not None:
                    until = min(until, since + self._max_pause_s)
                if self._clock() >= until:
                    break
                self._why_by_call[call] = refusal.fault.detail
                self._log.warning("Bulk images wait for a detector: %s", refusal.fault.detail)
                await self._pool.changed(min(1.0, until - self._clock()))
        finally:
            if self._why_by_call.pop(call, None) and not self._why_by_call:
                self._log.info("Bulk images go on.")
        return self._clock() - begun
