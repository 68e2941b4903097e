"""A filter that limits how often a log repeats itself: a long outage must not fill it with one line."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

#: The first events of a kind, which are all written.
_NUM_FREE = 4
#: After those, one is written after this pause, which doubles each time up to the longest.
_FIRST_AGAIN_S = 10.0
_LONGEST_S = 300.0
#: A kind of event that did not happen for this long is new again.
_FORGOTTEN_S = 900.0
#: Kinds of events that are remembered.
_MOST_KINDS = 200


@dataclass(slots=True)
class _Seen:
    last: float
    again_at: float
    pause_s: float
    num_free: int = _NUM_FREE - 1
    num_held_back: int = 0


class RateLimitFilter(logging.Filter):
    """Lets the first events of a kind through, and of those that follow only some, saying how many not.

    Two events are of one kind if they have the same message before its arguments are put in, and the same
    `extra={"about": …}`, if any.

    Args:
        clock: seconds, for durations.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        # A logger calls its filters in any thread without a lock, and in a signal handler too.
        self._lock = threading.RLock()
        self._seen: dict[tuple[str, object], _Seen] = {}

    @property
    def num_kinds(self) -> int:
        """Kinds of events that are remembered."""
        return len(self._seen)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether an event is to be written."""
        with self._lock:
            return self._filter(record)

    def _filter(self, record: logging.LogRecord) -> bool:
        now, kind = self._clock(), (record.msg, getattr(record, "about", None))
        seen = self._seen.get(kind)
        if seen is None or now - seen.last > _FORGOTTEN_S:
            if len(self._seen) >= _MOST_KINDS:
                del self._seen[min(self._seen, key=lambda each: self._seen[each].last)]
            self._seen[kind] = _Seen(now, now + _FIRST_AGAIN_S, _FIRST_AGAIN_S)
            return True
        seen.last = now
        if seen.num_free:
            seen.num_free -= 1
            seen.again_at = now + seen.pause_s
            return True
        if now < seen.again_at:
            seen.num_held_back += 1
            return False
        if seen.num_held_back:
            record.msg += f" ({seen.num_held_back} more like this were not written)"
        seen.num_held_back = 0
        seen.pause_s = min(_LONGEST_S, 2 * seen.pause_s)
        seen.again_at = now + seen.pause_s
        return True


def rate_limited_log(name: str) -> logging.Logger:
    """The logger of that name, with the filter on it."""
    log = logging.getLogger(name)
    if not any(isinstance(each, RateLimitFilter) for each in log.filters):
        log.addFilter(RateLimitFilter())
    return log
