"""Keeps one Ray node up: starts it, watches it, starts it again after growing pauses, and ends it."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Protocol

import platformdirs

from cluster.background import repeat_blocking
from cluster.backoff import Backoff
from cluster.errors import RayfaceError
from cluster.node.addresses import knock
from cluster.node.contract import DRAIN_NOTE
from cluster.node.process_tree import ProcessTree
from cluster.node.ray_start import Launch
from cluster.ray_internals import has_started
from cluster.telemetry.rate_limit import RateLimitFilter

_LOOK_EVERY_S = 0.5
_TERMINATE_S = 10.0
#: `ray start` says within so much whether the node has joined.
_MAX_START_BYTES = 100_000


class Running(Protocol):
    """What the supervisor needs of a started node; `ProcessTree` is one."""

    def exit_code(self) -> int | None:
        """None while it runs."""
        ...

    def end(self, grace_s: float) -> list[str]:
        """End the node and all that it started; returns the names of what was left and killed."""
        ...


class Supervisor:
    """Keeps a node up until `stop` is called.

    Args:
        launch: makes the command of the next start; called before each start, because an address may change.
        start: starts the command.
        log: where events go.
        may_start: called before each start; raises a RayfaceError where a start would be in vain.
        drain: lets the detectors of this machine finish; called once, at the end.
        is_up: returns whether the node has joined its cluster; asked after each start until it is so.
        on_up: called once after each start, when that is so.
        changed: returns whether the launch is out of date (this machine has another address now).
        last_words: returns what the node wrote before it ended.
        gone: called when a node has ended with all its processes, except after `stop`.
    """

    def __init__(
        self,
        launch: Callable[[], Launch],
        start: Callable[[Launch], Running],
        log: logging.Logger,
        *,
        may_start: Callable[[], None] = lambda: None,
        drain: Callable[[], None] = lambda: None,
        is_up: Callable[[Launch], bool] = lambda launch: False,
        on_up: Callable[[], None] = lambda: None,
        changed: Callable[[Launch], bool] = lambda launch: False,
        last_words: Callable[[], str] = lambda: "",
        gone: Callable[[Launch], None] = lambda launch: None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._launch = launch
        self._start = start
        self._log = log
        self._may_start = may_start
        self._drain = drain
        self._is_up = is_up
        self._on_up = on_up
        self._changed = changed
        self._last_words = last_words
        self._gone = gone
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._node: Running | None = None
        self.num_starts = 0

    def stop(self) -> None:
        """End the node in order; a signal handler or another thread may call it."""
        self._stopped.set()

    def run(self) -> None:
        """Keep the node up; return after `stop`, when nothing of the node is left.

        Raises:
            OSError, subprocess.TimeoutExpired, psutil.Error: after `stop`, the system does not end the node.
        """
        repeat_blocking(
            self._live_once,
            name="Keeping Ray's node up",
            log=self._log,
            backoff=self._backoff,
            is_over=self._stopped.is_set,
            wait=self._pause,
            clock=self._clock,
        )
        self._end_node()

    def _pause(self, pause_s: float) -> None:
        self._log.warning("Starting again in %.1f s.", pause_s)
        self._wait(pause_s)

    def _live_once(self) -> None:
        # What the system did not let us end must be gone before the next start: a machine has one node.
        self._end_node()
        try:
            self._may_start()
            launch = self._launch()
            self.num_starts += 1
            self._log.info("Start %d: ray %s", self.num_starts, " ".join(launch.arguments))
            self._node = self._start(launch)
            self._watch(self._node, launch)
            if not self._stopped.is_set():
                self._end_node()
                self._gone(launch)
        except RayfaceError as error:
            self._log.warning("%s", error, extra={"about": str(error)})
        finally:
            self._end_node()

    def _watch(self, node: Running, launch: Launch) -> None:
        """Return when the node has ended or is to end; its detectors have finished then."""
        was_up = False
        while node.exit_code() is None and not self._stopped.is_set():
            self._wait(_LOOK_EVERY_S)
            if not was_up and self._is_up(launch):
                was_up = True
                self._on_up()
            if self._changed(launch):
                self._log.warning("This machine's address has changed; Ray is started again with it.")
                # It cannot end in order: the head does not hear it from an address that is gone.
                self._end_node(grace_s=0.0)
                return
        if self._stopped.is_set() and node.exit_code() is None:
            self._log.info("Stopping.")
            self._drain()

    def _end_node(self, grace_s: float = _TERMINATE_S) -> None:
        """End the node with all that it started; it is forgotten only when that has worked."""
        if self._node is None:
            return
        code = self._node.exit_code()
        remains = self._node.end(grace_s)
        self._node = None
        if code is not None:
            self._log.warning("Ray ended by itself with code %s. %s", code, self._last_words())
        if remains:
            self._log.info("Ended what Ray had left behind: %s.", ", ".join(sorted(remains)))


class NodeOutput:
    """A file for the output of a node; it is renamed when it has 5 MB.

    Args:
        path: of the file, which keeps what earlier starts wrote.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = 0

    def start(self, launch: Launch) -> ProcessTree:
        """Start the command with its output in the file."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_size > 5_000_000:
                self._path.replace(self._path.with_suffix(".1.log"))
        with self._path.open("ab") as file:
            self._begin = file.tell()
            return ProcessTree(launch.command, launch.environment, file)

    def is_up(self, launch: Launch) -> bool:
        """Whether the latest start has joined: Ray says so, and its node manager can be reached."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self._begin)
            if has_started(file.read(_MAX_START_BYTES).decode("utf-8", "replace")):
                options = dict(each[2:].partition("=")[::2] for each in launch.arguments if "=" in each)
                return not knock(options["node-ip-address"], int(options["node-manager-port"]), 1.0)
        return False

    def last_words(self) -> str:
        """See `last_line`."""
        return last_line(self._path)


def last_line(output: Path) -> str:
    """A sentence with the last line of the file, and where to read the others."""
    with contextlib.suppress(OSError), output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 2000))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return f"Its last words: {lines[-1][:300] if lines else 'none'} (all of them: {output})"
    return ""


def drain_by_note(notes: Path, is_done: Callable[[], bool], seconds: float) -> Callable[[], None]:
    """Make a function that asks this machine's detectors by a file to finish, and waits for them.

    A file works without the cluster too.
    """

    def drain() -> None:
        (notes / DRAIN_NOTE).touch()
        # Detectors look for the note about once a second.
        until = time.monotonic() + seconds
        while time.monotonic() < until and not is_done():
            time.sleep(0.2)

    return drain


def log_folder(folder: Path | None) -> Path:
    """The folder of the commands' own logs, which exists then; None takes the user's log folder."""
    where = folder or Path(platformdirs.user_log_path("rayface", appauthor=False))
    where.mkdir(parents=True, exist_ok=True)
    return where


def supervisor_log(name: str, folder: Path | None) -> tuple[logging.Logger, Path]:
    """A log on standard error and in a file of at most 5 MB with three before it; and its folder."""
    where = log_folder(folder)
    log = logging.getLogger(f"rayface.{name}")
    log.setLevel(logging.INFO)
    log.propagate = False
    # A head that is away for hours must give few lines, not one every half minute.
    log.addFilter(RateLimitFilter())
    lines = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    for handler in (
        RotatingFileHandler(where / f"{name}.log", maxBytes=5_000_000, backupCount=3, encoding="utf-8"),
        logging.StreamHandler(sys.stderr),
    ):
        handler.setFormatter(lines)
        # A line that a full disk does not take is lost; logging would print a traceback for each.
        handler.handleError = lambda record: None  # type: ignore[method-assign]
        log.addHandler(handler)
    return log, where
