"""The circuit breaker of one detector: closed, open or half-open. It has no clock; callers hand in the time.

It judges the device. Only calls that say something about the device are recorded. The circuit opens when the
window holds at least `min_calls` calls and too large a share of them failed or was slow. A lasting cause
(`trip`) opens it at once. An open circuit lets no call through. After a pause, which is longer each time, the
circuit is half-open: one probe at a time may ask the detector to detect the golden photo, never a person's
photo. Enough good probes in a row close the circuit.

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

#: The most calls in the window; bounds the memory.
_MOST_CALLS = 1000


class CircuitState(StrEnum):
    """What goes through: every call (closed), nothing (open), or only a probe (half-open)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class CircuitView:
    """A circuit at one moment, for people.

    Attributes:
        state: closed, open or half-open.
        cause: why it opened, or why the newest probe failed; None while it is closed.
        since_s: seconds since it is in this state.
        retry_after_s: seconds until a probe may be sent; 0 unless it is open.
        num_calls: calls in the window.
        num_failed: failed calls in the window.
        num_slow: slow calls in the window; a failed call is not counted as slow.
        num_opened: how often it opened since the start.
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
        chance: gives a random number in [0, 1), for the jitter.
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
        self._calls: deque[tuple[float, Fault | None, bool]] = deque()
        # Counted as calls come and go: a window may hold thousands, and each call asks.
        self._num_failed = self._num_slow = 0
        self._cause: Fault | None = None
        self._since = now
        #: When a probe may be sent; None while closed.
        self._probe_at: float | None = None
        self._probe_ends: float | None = None
        self._num_good_probes = 0
        self._num_in_a_row = 0
        self.num_opened = 0

    def state(self, now: float) -> CircuitState:
        """The state now; an open circuit becomes half-open when its pause is over."""
        if self._probe_at is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self._probe_at else CircuitState.HALF_OPEN

    def record(self, now: float, cause: Fault | None = None, *, slow: bool = False) -> None:
        """Record a call that says something about the device.

        A call that ends while the circuit is not closed began before it opened, and is not counted.

        Args:
            now: the present.
            cause: why the call failed; None if it was answered.
            slow: whether the device took too long for it.
        """
        if self._probe_at is not None:
            return
        self._calls.append((now, cause, slow))
        self._count(cause, slow, 1)
        calls = self._window(now)
        num_failed, num_slow = self._num_failed, self._num_slow
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
        """Open at once, because a lasting cause was found. An open circuit only keeps the newer cause."""
        if self._probe_at is None:
            self._open(now, cause)
        else:
            self._cause = cause

    def probe_soon(self, now: float) -> None:
        """Let the next probe begin now, because the cause is probably gone; do not wait for one under way."""
        if self._probe_at is not None:
            self._probe_at = min(self._probe_at, now)
            self._probe_ends = None

    def take_probe(self, now: float) -> bool:
        """Whether the caller has to send a probe now, and to call `probed` when it ended.

        A probe is given up if `probed` is not called within `probe_timeout_s`.
        """
        if self.state(now) is not CircuitState.HALF_OPEN:
            return False
        if self._probe_ends is not None and now < self._probe_ends:
            return False
        self._probe_ends = now + self._settings.probe_timeout_s
        return True

    def probed(self, now: float, cause: Fault | None = None) -> None:
        """Record a probe that ended; `cause` says why it failed, None that it went well."""
        if self._probe_ends is None or self.state(now) is not CircuitState.HALF_OPEN:
            return  # the circuit was reset, or this probe was given up and another one has answered
        self._probe_ends = None
        if cause is not None:
            self._open(now, cause)
            return
        self._num_good_probes += 1
        if self._num_good_probes >= self._settings.num_probes:
            self._close(now)

    def reset(self, now: float) -> None:
        """Close the circuit because a person says so, and forget every call."""
        self._num_in_a_row = 0
        self._close(now)

    def view(self, now: float) -> CircuitView:
        """The circuit as it is now, for people."""
        calls = self._window(now)
        state = self.state(now)
        since = self._probe_at if state is CircuitState.HALF_OPEN and self._probe_at else self._since
        return CircuitView(
            state=state,
            cause=self._cause,
            since_s=max(0.0, now - since),
            retry_after_s=max(0.0, self._probe_at - now) if self._probe_at is not None else 0.0,
            num_calls=len(calls),
            num_failed=self._num_failed,
            num_slow=self._num_slow,
            num_opened=self.num_opened,
        )

    def _window(self, now: float) -> deque[tuple[float, Fault | None, bool]]:
        oldest = now - self._settings.window_s
        while self._calls and (self._calls[0][0] <= oldest or len(self._calls) > _MOST_CALLS):
            _, cause, slow = self._calls.popleft()
            self._count(cause, slow, -1)
        return self._calls

    def _count(self, cause: Fault | None, slow: bool, change: int) -> None:
        if cause is not None:
            self._num_failed += change
        elif slow:
            self._num_slow += change

    def _forget_calls(self) -> None:
        self._calls.clear()
        self._num_failed = self._num_slow = 0

    def _open(self, now: float, cause: Fault) -> None:
        settings = self._settings
        was_closed = self._probe_at is None
        if was_closed and now - self._since > settings.window_s:
            # The circuit was closed for long enough; its earlier openings do not count any more.
            self._num_in_a_row = 0
        seconds = min(settings.max_open_s, settings.open_s * 2.0 ** min(self._num_in_a_row, 30))
        # Jitter only shortens the pause, so it is never longer than `max_open_s`.
        self._probe_at = now + seconds * (1.0 - settings.jitter * self._chance())
        self._num_in_a_row += 1
        self._num_good_probes = 0
        self._probe_ends = None
        self._cause = cause
        self._forget_calls()
        self._since = now
        if was_closed:
            self.num_opened += 1
            self._on_open(cause)

    def _close(self, now: float) -> None:
        self._probe_at = self._probe_ends = self._cause = None
        self._num_good_probes = 0
        self._forget_calls()
        self._since = now
