"""Keeps the measured times of batches in a file, so that the next process need not measure them all again.

A file belongs to one device. It holds a table for each combination of driver, model and settings, the latest
few. A file that cannot be read or written costs time at the next start, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from actors.batch_table import KeptRow

_VERSION = 1
#: Tables in a file, the latest ones; rows in a table.
_MAX_TABLES = 8
_MAX_ROWS = 256
#: Bytes of a file that is read; a larger one is not ours.
_MAX_BYTES = 1_000_000
_MAX_AGE_S = 10 * 365 * 86_400.0
_RUNTIMES = ("onnxruntime-directml", "onnxruntime-gpu", "onnxruntime")


def runtime_version() -> str:
    """Which ONNX Runtime is installed, for example "onnxruntime 1.22.0"; empty if none is."""
    for name in _RUNTIMES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return ""


class BatchFile:
    """The file of one device.

    Args:
        path: path of the file; its folder exists.
        key: what the times depend on, in words: driver, model and settings.
        tell: called with a sentence where a file is ignored, or cannot be written.
        wall: returns seconds since 1970; the file outlives the clock of any process.
    """

    def __init__(
        self, path: Path, key: str, tell: Callable[[str], None], wall: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._key = key
        self._tell = tell
        self._wall = wall
        self._told: set[str] = set()

    def read(self) -> list[KeptRow]:
        """What an earlier process kept under the same key; nothing if there is no such process or file."""
        at, rows = self._tables().get(self._key, (0.0, []))
        passed_s = max(0.0, self._wall() - at)
        return [
            KeptRow(row.num_images, row.height, row.width, row.run_ms, row.num_runs, row.age_s + passed_s)
            for row in rows
        ]

    def write(self, rows: Sequence[KeptRow]) -> None:
        """Replace what is kept under the key; the file is replaced as a whole."""
        tables = self._tables()
        tables[self._key] = (self._wall(), list(rows[:_MAX_ROWS]))
        latest = sorted(tables.items(), key=lambda item: item[1][0])[-_MAX_TABLES:]
        text = json.dumps({"version": _VERSION, "tables": dict(latest)}, separators=(",", ":"))
        fresh = ""
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="ascii", dir=self._path.parent, prefix=self._path.name, delete=False
            ) as file:
                fresh = file.name
                file.write(text)
            os.replace(fresh, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            self._tell_once(
                "write",
                f"The times of batches cannot be kept in {self._path} ({error.strerror or error}); "
                "the next start measures them again.",
            )

    def _tell_once(self, kind: str, sentence: str) -> None:
        """Tell of a trouble, unless one of its kind was told before."""
        if kind not in self._told:
            self._told.add(kind)
            self._tell(sentence)

    def _tables(self) -> dict[str, tuple[float, list[KeptRow]]]:
        try:
            facts = self._path.stat()
            if not stat.S_ISREG(facts.st_mode):
                # Reading a FIFO would wait for somebody who writes.
                raise ValueError("it is no file")
            if facts.st_size > _MAX_BYTES:
                raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
            found = json.loads(self._path.read_bytes())
            if found["version"] != _VERSION:
                raise ValueError(f"it is of version {found['version']}, not {_VERSION}")
            return {
                str(key): (float(at), [_row(row) for row in rows])
                for key, (at, rows) in found["tables"].items()
            }
        except FileNotFoundError:
            return {}
        except (
            OSError,
            ArithmeticError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            self._tell_once(
                "read",
                f"The times of batches in {self._path} are ignored: {error!r}. They are measured again, "
                "and the file is replaced.",
            )
            return {}


def _row(values: Sequence[float]) -> KeptRow:
    """The row, checked.

    Raises:
        ValueError, TypeError: the values are no row.
    """
    num_images, height, width, run_ms, num_runs, age_s = values
    row = KeptRow(int(num_images), int(height), int(width), float(run_ms), int(num_runs), float(age_s))
    if not (math.isfinite(row.run_ms) and row.run_ms > 0 and min(row[:3]) > 0 and row.num_runs > 0):
        raise ValueError(f"{values} are no times of a bucket")
    if not 0 <= row.age_s < _MAX_AGE_S:
        raise ValueError(f"{row.age_s} s is no age")
    return row
