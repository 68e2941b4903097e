"""The pause before a detector's process starts whose predecessors ended right after their own starts.

Ray starts a detector's process again at once. If its cause lasts, that would happen every second or two, and
each time the calls that wait for the detector lose one of their retries. A process that is still starting has
no calls, so waiting there costs none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Protocol

#: A process whose predecessor began so lately had one that ended right after its start.
_SHORT_S = 8.0
_NUM_WITHOUT_PAUSE = 3
_FIRST_PAUSE_S, _MAX_PAUSE_S = 2.0, 30.0


class Store(Protocol):
    """Where a process finds what the one before it wrote; `KeyValueStore` is one."""

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if it has none."""
        ...

    def put(self, key: str, value: bytes) -> bool:
        """Write a value."""
        ...


def pause_before_start(
    name: str,
    store: Store,
    wall: Callable[[], float] = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> float:
    """Wait before this process starts, if those before it ended too soon; returns the seconds.

    Args:
        name: of the detector; it has one key in the store.
        store: of the cluster. If it does not answer, there is no pause.
        wall: seconds since 1970, which processes of one machine share.
        sleep: waits for so many seconds.
    """
    key = f"starts/{name}"
    try:
        num_short, begun = json.loads(store.get(key) or b"[0, 0]")
        num_short = int(num_short) + 1 if 0 <= wall() - float(begun) < _SHORT_S else 0
        pause_s = pause_after(num_short)
        if pause_s:
            sleep(pause_s)
        store.put(key, json.dumps([num_short, wall()]).encode())
    except Exception:
        # The head may be away, and anything may stand there; neither may cost the detector its start.
        return 0.0
    return pause_s


def pause_after(num_short: int) -> float:
    """Seconds to wait after so many processes in a row that ended right after their starts."""
    num = num_short - _NUM_WITHOUT_PAUSE
    return 0.0 if num <= 0 else min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(num - 1, 10))
