"""Notices a run that does not end: a hung device never returns, and only a new process gets it back."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_log = logging.getLogger("rayface.detector")

#: Seconds between two looks at the runs under way.
_LOOK_EVERY_S = 0.5


@dataclass(eq=False, slots=True)
class _Watched:
    what: str
    limit_s: float
    watched_s: float = 0.0


class Watchdog:
    """Watches runs on the device, and ends the process when one takes too long.

    Only time in which the watchdog itself was awake counts: after a machine slept, or a process was stopped,
    runs are hours old by the clock, and nothing is wrong with them.

    Args:
        bite: ends the process; called once, with a sentence about what ran for how long. If it raises, it is
            called again at the next look.
        clock: returns seconds, for durations.
    """

    def __init__(self, bite: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._bite = bite
        self._clock = clock
        self._changed = threading.Condition()
        self._runs: list[_Watched] = []
        self._looked = clock()
        self._ended = False
        self._is_idle = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look regularly from now on, in a thread."""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking, and end the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def watching(self, what: str, limit_s: float) -> Iterator[None]:
        """Watch the block, which may take `limit_s` seconds; `what` says in words what is run."""
        run = _Watched(what, limit_s)
        with self._changed:
            if not self._runs:
                self._looked = self._clock()
            self._runs.append(run)
            if self._is_idle:
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._runs.remove(run)

    def look(self) -> None:
        """Count the time since the last look, and bite if a run has taken too long."""
        with self._changed:
            now = self._clock()
            awake_s, self._looked = min(now - self._looked, 2 * _LOOK_EVERY_S), now
            for run in self._runs:
                run.watched_s += awake_s
            late = next((run for run in self._runs if run.watched_s > run.limit_s), None)
            if late is None or self._ended:
                return
        self._bite(f"{late.what} has taken {late.watched_s:.1f} s, and {late.limit_s:g} s are allowed")
        with self._changed:
            self._ended = True

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._is_idle = True
                self._changed.wait_for(lambda: self._runs or self._ended)
                # Runs that begin from now on wake nobody: the thread looks at them soon enough.
                self._is_idle = False
                self._changed.wait_for(lambda: self._ended, _LOOK_EVERY_S)
                if self._ended:
                    return
            try:
                self.look()
            except Exception:
                # The process did not end, and nothing else helps against a hung device: bite again.
                _log.exception("The watchdog could not end the process; it tries again.")
