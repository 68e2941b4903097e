"""What was on the device when the process died, so that a photo that kills it does so twice at most.

The images of each run are noted in a file before it and crossed out after it, however it ends, unless it ends
the process. What the next process finds there are suspects: each is run alone, with nothing else on the
device. One that is found there alone, as a suspect, is quarantined: it is not run for a while, and answered
with that reason. A process that died of something else costs its images one run alone, and nothing more.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

#: Kept of each kind, the latest: bounds file and memory.
_MOST_KEYS = 256


@dataclass(slots=True)
class _Page:
    """The file's one line.

    Attributes:
        context: model and device; what was found under another says nothing about this one.
        flights: the images of each run under way.
        suspects: image → when it became one, seconds since 1970.
        quarantined: image → until when, seconds since 1970.
        max_batch: images in a run that the device had memory for, where that was found out.
        last_words: why the process ended itself, if it did.
    """

    context: str = ""
    flights: list[list[str]] = field(default_factory=list)
    suspects: dict[str, float] = field(default_factory=dict)
    quarantined: dict[str, float] = field(default_factory=dict)
    max_batch: int | None = None
    last_words: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """An empty page where there is none, or none that can be understood."""
        try:
            # What follows the first line is left of a longer one, whose writer died before it cut the file.
            page = cls(**json.loads(path.read_bytes().split(b"\n", 1)[0]))
            page.flights = [[str(key) for key in flight] for flight in page.flights]
            page.suspects = {str(key): float(at) for key, at in page.suspects.items()}
            page.quarantined = {str(key): float(until) for key, until in page.quarantined.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return cls()
        return page


class FlightRecorder:
    """One device's record; made when the device is opened, by the one process that owns it.

    Args:
        path: of the file.
        context: model and device in words.
        quarantine_s: how long an image stays quarantined, and a suspect that is not seen again a suspect.
        wall: seconds since 1970: the file outlives every process's own clock.

    Attributes:
        last_words: of the process before this one, if it ended itself; "" if it was killed, or none was.
    """

    def __init__(
        self, path: Path, context: str, quarantine_s: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._quarantine_s = quarantine_s
        self._wall = wall
        self._lock = threading.Lock()
        self._file: Any = None
        found = _Page.read(path)
        self.last_words = found.last_words
        self._page = _Page(context)
        if found.context == context:
            self._page.max_batch = found.max_batch
            self._judge(found)
        self._write()

    @property
    def max_batch(self) -> int | None:
        """Images in a run that the device has memory for; None if it never lacked any."""
        return self._page.max_batch

    @property
    def num_suspects(self) -> int:
        """Images that will be run alone."""
        return len(self._page.suspects)

    @property
    def num_quarantined(self) -> int:
        """Images that are not run."""
        now = self._wall()
        return sum(until > now for until in self._page.quarantined.values())

    def is_suspect(self, key: str) -> bool:
        """Whether it must be run with nothing else on the device."""
        return key in self._page.suspects

    def is_quarantined(self, key: str) -> bool:
        """Whether it must not be run."""
        return self._page.quarantined.get(key, 0.0) > self._wall()

    @contextlib.contextmanager
    def flight(self, keys: Sequence[str]) -> Iterator[None]:
        """Around a run on the device; a suspect that survives it alone is one no more."""
        noted = list(keys)
        with self._lock:
            self._page.flights.append(noted)
            alone = len(noted) == 1 and len(self._page.flights) == 1
            self._write()
        try:
            yield
        finally:
            with self._lock:
                self._page.flights.remove(noted)
                if alone:
                    self._page.suspects.pop(noted[0], None)
                self._write()

    def limit_batch(self, max_batch: int) -> None:
        """Remember that the device has no memory for more."""
        with self._lock:
            self._page.max_batch = max_batch
            self._write()

    def say_last(self, words: str) -> None:
        """Leave word why this process ends itself, for the next."""
        with self._lock:
            self._page.last_words = words
            self._write()

    def close(self) -> None:
        """The device was closed in peace."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _judge(self, found: _Page) -> None:
        now = self._wall()
        suspects = {key: at for key, at in found.suspects.items() if now - at < self._quarantine_s}
        quarantined = {key: until for key, until in found.quarantined.items() if until > now}
        flown = [key for flight in found.flights for key in flight]
        if len(flown) == 1 and flown[0] in suspects:
            del suspects[flown[0]]
            quarantined[flown[0]] = now + self._quarantine_s
        else:
            suspects.update(dict.fromkeys(flown, now))
        self._page.suspects = _latest(suspects)
        self._page.quarantined = _latest(quarantined)

    def _write(self) -> None:
        """In place and unbuffered: it must survive the process, not the machine.

        That it cannot be written (a full disk) costs what it is for, and no answer.
        """
        line = json.dumps(asdict(self._page), separators=(",", ":")).encode() + b"\n"
        with contextlib.suppress(OSError):
            if self._file is None:
                self._path.touch()
                self._file = self._path.open("r+b", buffering=0)
            self._file.seek(0)
            self._file.write(line)
            self._file.truncate()


def _latest(times: dict[str, float]) -> dict[str, float]:
    return dict(sorted(times.items(), key=lambda item: item[1])[-_MOST_KEYS:])
