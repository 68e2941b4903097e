"""Records which images are on the device, so that one photo ends the detector's process twice at most.

Before each run the images are written into a file; after the run they are taken out, whether it failed or
not. Images that the next process finds in the file are suspects: each is run alone, with nothing else on the
device. A suspect that is found there alone is quarantined: it is not run for a while, and its caller is told
so. If the process died of something else, each of these images is run alone once, and that is all.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

#: Suspects, and quarantined images, that are kept: the latest ones. Bounds file and memory.
_MOST_KEYS = 256


@dataclass(slots=True)
class _Page:
    """The one line of the file.

    Attributes:
        context: model and device; the record of another context says nothing about this one.
        flights: the images of each run under way.
        suspects: for each suspect, when it became one, in seconds since 1970.
        quarantined: for each quarantined image, when that ends, in seconds since 1970.
        max_batch: the most images that one run has memory for; None if the device never lacked memory.
        last_words: why the process ended itself; empty if it did not.
    """

    context: str = ""
    flights: list[list[str]] = field(default_factory=list)
    suspects: dict[str, float] = field(default_factory=dict)
    quarantined: dict[str, float] = field(default_factory=dict)
    max_batch: int | None = None
    last_words: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the page; an empty one where there is no file, or none that can be read."""
        try:
            # Bytes after the first line remain from a longer line: cutting the file costs as much as writing.
            page = cls(**json.loads(path.read_bytes().split(b"\n", 1)[0]))
            page.flights = [[str(key) for key in flight] for flight in page.flights]
            page.suspects = {str(key): float(at) for key, at in page.suspects.items()}
            page.quarantined = {str(key): float(until) for key, until in page.quarantined.items()}
            page.max_batch = None if page.max_batch is None else max(1, int(page.max_batch))
            page.context, page.last_words = str(page.context), str(page.last_words)
        except (OSError, ArithmeticError, ValueError, TypeError, AttributeError, RecursionError):
            return cls()
        return page


class FlightRecorder:
    """The record of one device. The process that owns the device makes it when it opens the device.

    Args:
        path: path of the file.
        context: model and device in words.
        quarantine_s: seconds that an image stays quarantined, and that a suspect which is not sent again
            stays a suspect.
        wall: returns seconds since 1970; the file outlives the clock of any process.

    Attributes:
        last_words: why the process before this one ended itself; empty if it was killed, or if this is the
            first.
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
        """The most images that one run has memory for; None if the device never lacked memory."""
        return self._page.max_batch

    @property
    def num_suspects(self) -> int:
        """Images that will be run alone."""
        return len(self._page.suspects)

    @property
    def num_quarantined(self) -> int:
        """Images that are not run for now."""
        now = self._wall()
        return sum(until > now for until in self._page.quarantined.values())

    def is_suspect(self, key: str) -> bool:
        """Whether the image must be run with nothing else on the device."""
        return key in self._page.suspects

    def is_quarantined(self, key: str) -> bool:
        """Whether the image must not be run."""
        return self._page.quarantined.get(key, 0.0) > self._wall()

    @contextlib.contextmanager
    def flight(self, keys: Sequence[str]) -> Iterator[None]:
        """Record the images while the block runs; a suspect that ran alone in it is cleared."""
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
        """Record that the device has no memory for larger batches."""
        with self._lock:
            self._page.max_batch = max_batch
            self._write()

    def say_last(self, words: str) -> None:
        """Record why this process ends itself, for the next one."""
        with self._lock:
            self._page.last_words = words
            self._write()

    def close(self) -> None:
        """Close the file, after the device was closed."""
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
        """Write in place and unbuffered: the record must survive the process, not the machine.

        If it cannot be written (a full disk), the record is lost, and the run goes on.
        """
        # Not `asdict`, which copies every list first; this is done twice a run.
        page = {name: getattr(self._page, name) for name in _NAMES}
        line = json.dumps(page, separators=(",", ":")).encode() + b"\n"
        with contextlib.suppress(OSError):
            if self._file is None:
                self._path.touch()
                self._file = self._path.open("r+b", buffering=0)
            self._file.seek(0)
            self._file.write(line)


_NAMES = tuple(each.name for each in fields(_Page))


def _latest(times: dict[str, float]) -> dict[str, float]:
    return dict(sorted(times.items(), key=lambda item: item[1])[-_MOST_KEYS:])
