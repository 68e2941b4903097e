"""The circuit breaker of one detector: closed, open, half-open. Pure; the time is handed in.

It judges the device, not the day: only calls that say something about the device are recorded, by rate over a
sliding window and never fewer than `min_calls` of them; a lasting cause (`trip`) opens it at once. Open, it
lets nothing through. After a while, longer each time, it is half-open: then one probe at a time may ask the
detector to detect the golden photo, never a person's, and enough of those in a row close it.

The states are those of Nygard, "Release It!", 2007; rate and slow calls over a window, as in Resilience4j.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from actors.faces import Failure
from cluster.errors import Fault
from cluster.settings import CircuitSettings

#: Calls remembered, whatever the window: bounds the memory.
_MOST_CALLS = 1000


class CircuitState(StrEnum):
    """Whether calls go through (closed), none do (open), or only a probe does (half-open)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class CircuitView:
    """A circuit at one moment, for people.

    Attributes:
        cause: of the last opening, or of the last probe that failed since; None while closed.
        since_s: seconds in this state.
        retry_after_s: until a probe may be sent; 0 unless open.
        num_calls: recorded in the window.
        num_failed: of these.
        num_slow: of these; a failed call is not slow as well.
        num_opened: openings since the start.
    """

    state: CircuitState
    cause: Fault | None
    since_s: float
    retry_after_s: float
    num_calls: int
    num_failed: int
    num_slow: int
    num_opened: int


class CircuitBreaker:
    """One detector's breaker; not thread-safe, one event loop uses it.

    Args:
        settings: window, rates and times.
        now: the present, in seconds on the clock that every later call uses.
        chance: a number in [0, 1), for the jitter.
        on_open: called with the cause when the circuit was closed and opens.
    """

    def __init__(
        self,
        settings: CircuitSettings,
        now: float,
        chance: Callable[[], float] = random.random,
        on_open: Callable[[Fault], None] = lambda cause: None,
    ) -> None:
        self._settings = settings
        self._chance = chance
        self._on_open = on_open
        self._calls: deque[tuple[float, Fault | None, bool]] = deque(maxlen=_MOST_CALLS)
        self._cause: Fault | None = None
        self._since = now
        #: When a probe may be sent; None while closed.
        self._probe_at: float | None = None
        self._probe_ends: float | None = None
        self._num_good_probes = 0
        self._num_in_a_row = 0
        self.num_opened = 0

    def state(self, now: float) -> CircuitState:
        """Open becomes half-open by time alone."""
        if self._probe_at is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self._probe_at else CircuitState.HALF_OPEN

    def record(self, now: float, cause: Fault | None = None, *, slow: bool = False) -> None:
        """A call ended that says something about the device.

        What ends while the circuit is not closed began before it opened, and is not counted.

        Args:
            cause: why it failed; None if it was answered.
            slow: whether the device took longer for it than it should.
        """
        if self._probe_at is not None:
            return
        self._calls.append((now, cause, slow))
        calls = self._window(now)
        num_failed = sum(cause is not None for _, cause, _ in calls)
        num_slow = sum(slow and cause is None for _, cause, slow in calls)
        if len(calls) < self._settings.min_calls:
            return
        if num_failed >= self._settings.max_failure_rate * len(calls) and num_failed:
            last = next(cause for _, cause, _ in reversed(calls) if cause is not None)
            self._open(
                now,
                Fault.of(last.failure, f"{num_failed} of the last {len(calls)} calls failed: {last.detail}"),
            )
        elif num_slow >= self._settings.max_slow_rate * len(calls) and num_slow:
            limit = f"longer than {self._settings.slow_run_s:g} s on the device"
            self._open(
                now,
                Fault.of(Failure.DEVICE_FAILED, f"{num_slow} of the last {len(calls)} calls took {limit}."),
            )

    def trip(self, now: float, cause: Fault) -> None:
        """A lasting cause was found: open at once. An open circuit only takes note of the newer cause."""
        if self._probe_at is None:
            self._open(now, cause)
        else:
            self._cause = cause

    def probe_soon(self, now: float) -> None:
        """There is reason to believe that the cause is gone: a probe need not wait, nor for one under way."""
        if self._probe_at is not None:
            self._probe_at = min(self._probe_at, now)
            self._probe_ends = None

    def take_probe(self, now: float) -> bool:
        """Whether the caller is to send a probe now, and tell by `probed` how it went.

        A probe that nobody tells about is given up after `probe_timeout_s`.
        """
        if self.state(now) is not CircuitState.HALF_OPEN:
            return False
        if self._probe_ends is not None and now < self._probe_ends:
            return False
        self._probe_ends = now + self._settings.probe_timeout_s
        return True

    def probed(self, now: float, cause: Fault | None = None) -> None:
        """A probe ended; `cause` says why it failed, None that the golden photo was detected."""
        if self._probe_ends is None or self.state(now) is not CircuitState.HALF_OPEN:
            return  # it was reset meanwhile, or the probe was given up and another has answered
        self._probe_ends = None
        if cause is not None:
            self._open(now, cause)
            return
        self._num_good_probes += 1
        if self._num_good_probes >= self._settings.num_probes:
            self._close(now)

    def reset(self, now: float) -> None:
        """Close it because a person says so, and forget what was."""
        self._num_in_a_row = 0
        self._close(now)

    def view(self, now: float) -> CircuitView:
        """What it is now, for people."""
        calls = self._window(now)
        state = self.state(now)
        since = self._probe_at if state is CircuitState.HALF_OPEN and self._probe_at else self._since
        return CircuitView(
            state=state,
            cause=self._cause,
            since_s=max(0.0, now - since),
            retry_after_s=max(0.0, self._probe_at - now) if self._probe_at is not None else 0.0,
            num_calls=len(calls),
            num_failed=sum(cause is not None for _, cause, _ in calls),
            num_slow=sum(slow and cause is None for _, cause, slow in calls),
            num_opened=self.num_opened,
        )

    def _window(self, now: float) -> deque[tuple[float, Fault | None, bool]]:
        while self._calls and self._calls[0][0] <= now - self._settings.window_s:
            self._calls.popleft()
        return self._calls

    def _open(self, now: float, cause: Fault) -> None:
        settings = self._settings
        was_closed = self._probe_at is None
        if was_closed and now - self._since > settings.window_s:
            # It had been well for long enough to be judged afresh.
            self._num_in_a_row = 0
        seconds = min(settings.max_open_s, settings.open_s * 2.0 ** min(self._num_in_a_row, 30))
        # Never longer than the longest: jitter takes away only.
        self._probe_at = now + seconds * (1.0 - settings.jitter * self._chance())
        self._num_in_a_row += 1
        self._num_good_probes = 0
        self._probe_ends = None
        self._cause = cause
        self._calls.clear()
        self._since = now
        if was_closed:
            self.num_opened += 1
            self._on_open(cause)

    def _close(self, now: float) -> None:
        self._probe_at = self._probe_ends = self._cause = None
        self._num_good_probes = 0
        self._calls.clear()
        self._since = now
