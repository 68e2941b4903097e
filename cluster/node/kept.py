"""The record of the cluster that `rayface up` keeps on this machine: where it is, and which processes it has.

The record lies in a folder that only this user can enter. A folder or a record that somebody else could have
written is not followed: it would name the head to which photos are sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import psutil

from cluster.errors import ConfigurationError
from cluster.ray_variables import HEAD_PROCESS_NAMES, NODE_PROCESS_NAMES

# Loading the settings takes longer than all of this; `detect` reads the record before.
if TYPE_CHECKING:
    from filelock import BaseFileLock

    from cluster.settings import Settings

_RECORD = "cluster.json"
#: A file in the folder; while it exists, the keeper ends its cluster.
_END_NOTE = "end"
_LOCK = "lock"
#: Beginning of the name of Ray's folder for a kept cluster. `remove_leftovers` removes no other folder.
TEMP_PREFIX = "rayface-up-"


def versions() -> dict[str, str]:
    """The versions that a program and the cluster that it joins must share."""
    from importlib.metadata import version

    return {
        "rayface": version("rayface"),
        "ray": version("ray"),
        "python": ".".join(map(str, sys.version_info[:2])),
    }


def boot() -> str:
    """Names this start of the machine; "" where the system has no name for it."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


@dataclass(frozen=True, slots=True)
class KeptProcess:
    """One process of a kept cluster.

    Attributes:
        name: the process's name, for people.
        pid: its number.
        born: when it began, as `born` tells; another process that got the same number differs in it.
    """

    name: str
    pid: int
    born: float

    @classmethod
    def of(cls, process: psutil.Process) -> KeptProcess | None:
        """The entry for a running process; None if it has ended."""
        began = born(process.pid)
        try:
            return None if began is None else cls(process.name(), process.pid, began)
        except psutil.Error:
            return None

    def is_alive(self) -> bool:
        """Whether this process still runs; one of another user, or that began at another time, is another."""
        began = born(self.pid)
        return began is not None and abs(began - self.born) < 1.0 and _is_process_ours(self.pid)

    def kill(self) -> None:
        """Kill this process if it still runs."""
        if self.is_alive():
            with contextlib.suppress(psutil.Error):
                psutil.Process(self.pid).kill()


@dataclass(frozen=True, slots=True)
class KeptCluster:
    """A kept cluster, as its keeper recorded it.

    Attributes:
        address: the head's, HOST:PORT.
        since: when it was ready, in seconds since 1970.
        idle_minutes: it ends after so many minutes in which no program used it; 0 for never.
        temp_dir: Ray's folder.
        processes: the keeper first, then what it started.
        settings: what its detector was made of; see `kept_settings`.
        versions: of rayface, Ray and Python.
        boot: which start of this machine it belongs to.
    """

    address: str
    since: float
    idle_minutes: float
    temp_dir: str
    processes: tuple[KeptProcess, ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=versions)
    boot: str = field(default_factory=boot)

    @property
    def keeper(self) -> KeptProcess:
        """The process that keeps it."""
        return self.processes[0]

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        ends = (
            f"ends after {self.idle_minutes:g} minutes without use"
            if self.idle_minutes
            else "does not end by itself"
        )
        return f"the kept cluster of this machine at {self.address}, since {since}; it {ends}"

    def why_ended(self) -> str:
        """Why it is of no more use, as a part of a sentence; "" while all that it needs is alive."""
        if self.boot != boot():
            return "this machine was started again since then"
        needed = [
            each for each in self.processes[1:] if each.name in (*HEAD_PROCESS_NAMES, *NODE_PROCESS_NAMES)
        ]
        gone = [each.name for each in (self.keeper, *needed) if not each.is_alive()]
        return f"of its processes, {' and '.join(gone)} ended" if gone else ""

    def why_other(self, settings: Settings) -> str:
        """Why it does not suit these settings, as a part of a sentence; "" if it does."""
        ours = versions()
        if differs := [name for name in ours if self.versions.get(name) != ours[name]]:
            return "it runs " + ", ".join(f"{name} {self.versions.get(name)}" for name in differs)
        others, _ = self._others(settings)
        return f"it was started with another {', '.join(others)}" if others else ""

    def in_operation(self, settings: Settings) -> list[str]:
        """The settings that concern only how its detector works, and no answer, and that differ, by name."""
        return self._others(settings)[1]

    def _others(self, settings: Settings) -> tuple[list[str], list[str]]:
        from cluster.node.kept_settings import others

        return others(self.settings, settings)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a keeper is told.

    Attributes:
        settings_json: the settings of the cluster and its detector.
        idle_minutes: after how many minutes without use it ends; 0 for never.
        temp_dir: Ray's folder, which is the keeper's to remove.
    """

    settings_json: str
    idle_minutes: float
    temp_dir: str


def born(pid: int) -> float | None:
    """When a process began; None if it does not run any more.

    On Linux, seconds since the machine's start: a clock that is set anew does not change them. Elsewhere,
    seconds since 1970.
    """
    try:
        if sys.platform == "linux":
            # proc(5): the fields after the name, which may hold blanks; state is the 3rd, starttime the 22nd.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            return None if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return float(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return None


def _is_process_ours(pid: int) -> bool:
    """Whether a process belongs to this user; on Windows, where there is no owner's number, always."""
    if sys.platform == "win32":
        return True
    try:
        return bool(psutil.Process(pid).uids().effective == os.geteuid())
    except psutil.Error:
        return False


def folder() -> Path:
    """The folder of the record; it may not exist."""
    return Path(platformdirs.user_state_path("rayface", appauthor=False)) / "up"


def make_folder() -> Path:
    """Make the folder of the record, private from its first moment on, and return it.

    Raises:
        ConfigurationError: it cannot be made, or is not this user's alone.
    """
    path = folder()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {path} cannot be made ({error.strerror}). `rayface up` keeps its record there; let "
            "this user write in it."
        ) from error
    if problem := _not_ours(path, is_folder=True):
        raise ConfigurationError(problem)
    return path


def read() -> KeptCluster | None:
    """The recorded cluster, whether it still runs or not; None if there is no record that can be read.

    Raises:
        ConfigurationError: somebody else could have written the record.
    """
    path = folder() / _RECORD
    for each, is_folder in ((path.parent, True), (path, False)):
        if not os.path.lexists(each):
            return None
        if problem := _not_ours(each, is_folder=is_folder):
            raise ConfigurationError(problem)
    try:
        return _cluster(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        # An older version may have written it, or a disk may have been full.
        return None


def _cluster(values: dict[str, Any]) -> KeptCluster:
    """The cluster that a record describes.

    It checks by hand: pydantic takes longer to load than `rayface detect` may lose here.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError, AttributeError: the values are no record.
    """
    processes = tuple(
        KeptProcess(_text(each["name"]), _pid(each["pid"]), _number(each["born"]))
        for each in values["processes"]
    )
    if not processes:
        raise ValueError("it has no processes")
    address = _text(values["address"])
    if not address.rpartition(":")[2].isdecimal():
        raise ValueError(f"{address} is not HOST:PORT")
    settings = {_text(name): value for name, value in values["settings"].items()}
    for name in ("cluster.namespace", "cluster.detector_name"):
        _text(settings[name])
    return KeptCluster(
        address=address,
        since=_number(values["since"]),
        idle_minutes=_number(values["idle_minutes"]),
        temp_dir=_text(values["temp_dir"]),
        processes=processes,
        settings=settings,
        versions={_text(name): _text(value) for name, value in values["versions"].items()},
        boot=_text(values["boot"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: object) -> float:
    """The number of seconds or minutes: the calendar of Windows ends soon after the largest one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 3e10:
        raise TypeError(f"{value!r} is no number of seconds or minutes")
    return float(value)


def _pid(value: object) -> int:
    # Number 1 is the system's first process, and 0 none that anybody could end.
    if isinstance(value, bool) or not isinstance(value, int) or not 1 < value < 2**31:
        raise TypeError(f"{value!r} is no number of a process")
    return value


def write(cluster: KeptCluster) -> None:
    """Write the record, whole or not at all.

    Raises:
        ConfigurationError, OSError: it cannot be written.
    """
    path = make_folder() / _RECORD
    draft = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(cluster), file)
    draft.replace(path)


def ask_to_end() -> None:
    """Leave the note that makes the keeper end its cluster."""
    (make_folder() / _END_NOTE).touch(mode=0o600)


def is_asked_to_end() -> bool:
    """Whether the note is there."""
    return (folder() / _END_NOTE).exists()


def lock() -> BaseFileLock:
    """What each process holds while it starts or ends a kept cluster, or clears one away.

    Its file stays in the folder: a process that had opened it before it was removed would hold a lock that no
    other process sees.

    Raises:
        ConfigurationError: as for `make_folder`.
    """
    from filelock import FileLock

    return FileLock(make_folder() / _LOCK)


def clear_away() -> None:
    """Remove what is left of a cluster whose keeper was killed: Ray's agents may have outlived it.

    A keeper that runs does this itself. A cluster that another process starts or ends now is left to it.
    """
    from filelock import Timeout

    with contextlib.suppress(ConfigurationError, Timeout, OSError), lock().acquire(timeout=0):
        cluster = read()
        if cluster is not None and not (cluster.boot == boot() and cluster.keeper.is_alive()):
            remove_leftovers(cluster)


def remove_leftovers(cluster: KeptCluster | None) -> None:
    """Kill what is left of a cluster whose keeper ended, and remove its folder, its record and the note."""
    if cluster is not None:
        if cluster.boot == boot():
            for each in cluster.processes:
                each.kill()
        remove_temp_dir(cluster.temp_dir)
    for name in (_RECORD, _END_NOTE):
        with contextlib.suppress(OSError):
            (folder() / name).unlink()


def remove_temp_dir(temp_dir: str) -> None:
    """Remove Ray's folder of a kept cluster; any other folder stays."""
    path = Path(temp_dir)
    if path.name.startswith(TEMP_PREFIX) and not _not_ours(path, is_folder=True):
        shutil.rmtree(path, ignore_errors=True)


def alive(processes: Sequence[KeptProcess]) -> list[KeptProcess]:
    """Those that still run."""
    return [each for each in processes if each.is_alive()]


def _not_ours(path: Path, *, is_folder: bool) -> str:
    """Why a folder or file is not trusted, in a sentence; "" if only this user can have written it."""
    try:
        seen = path.lstat()
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})."
    is_right = stat.S_ISDIR(seen.st_mode) if is_folder else stat.S_ISREG(seen.st_mode)
    if not is_right:
        return f"{path} is no {'folder' if is_folder else 'file'}, and is not followed. Remove it."
    # On Windows, the user's own profile folder is private already, and there is no owner's number.
    if hasattr(os, "geteuid") and (seen.st_uid != os.geteuid() or seen.st_mode & 0o077):
        return (
            f"{path} belongs to another user or is open to others, so what it says is not followed. Remove "
            "it, or run `chmod go=` on it if it is yours."
        )
    return ""
