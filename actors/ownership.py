"""One process owns a device of this machine: a lock that ends with its process, and a record of the holder.

On Windows the lock is a `Global\\` mutex, which every session of the machine sees; elsewhere it is `flock` on
a file in /tmp. The system releases both when the process ends, however it ends; a file alone would stay.
Beside the lock lies a record for people: who holds it, since when, for which cluster. Only messages use the
record, with one exception: a successor of the same cluster and name may end a predecessor that no longer
refreshes its record (it hangs, or was stopped), so that it does not hold the device for ever.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from actors.errors import DeviceHeld, DeviceUnavailable


def new_incarnation() -> str:
    """A new name for this life of the process, made of host, pid and random digits."""
    return f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Attributes:
        pid: number of the process.
        born: when that process began, in seconds since 1970; another process that got the same pid differs in
            it.
        since: when it took the lock, in seconds since 1970.
        name: name of the detector or command.
        cluster: the cluster that it serves, in words.
    """

    pid: int
    born: float
    since: float
    name: str
    cluster: str

    @classmethod
    def here(cls, name: str, cluster: str) -> Holder:
        """A holder that is this process and takes the lock now."""
        return cls(os.getpid(), psutil.Process().create_time(), time.time(), name, cluster)

    def is_alive(self) -> bool:
        """Whether this process still runs; another one with the same pid does not count."""
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.born) < 1.0)
        except psutil.AccessDenied:
            return True
        except psutil.Error:
            return False

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.name} (pid {self.pid}, since {since}, for {self.cluster or 'no cluster'})"


class DeviceLock:
    """The right to open one device; a thread holds it until `release` or the end of the process.

    A thread of our own holds it, because a Windows mutex belongs to a thread and is abandoned when that ends.

    Args:
        device: name of the device, for example "directml-0"; letters, digits and hyphens.
        folder: folder of lock and record; None takes the one that all processes of this machine use.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        if not device.replace("-", "").isalnum():
            raise ValueError(
                f"The name {device!r} is not allowed: a device's name has letters, digits and hyphens only."
            )
        self.device = device
        self._folder = folder or machine_folder()
        self._record = self._folder / f"rayface-{device}.json"
        self._end = threading.Event()
        self._holding: threading.Thread | None = None

    def acquire(self, name: str, cluster: str = "") -> None:
        """Take the lock now, without waiting for it.

        Raises:
            DeviceHeld: another process, or another part of this one, has it; says who.
            DeviceUnavailable: the system gives no lock; says why.
        """
        if self._holding is not None:
            return
        is_ours: Future[bool] = Future()
        self._end.clear()
        holding = threading.Thread(
            target=self._hold, args=(is_ours,), name=f"hold-{self.device}", daemon=True
        )
        holding.start()
        try:
            if not is_ours.result():
                holding.join()
                raise DeviceHeld(self.device, self.holder())
        except OSError as error:
            is_full = error.errno == errno.ENOSPC
            advice = "Make room on that disk." if is_full else "Let this user write in that folder."
            raise DeviceUnavailable(
                f"The lock of the device {self.device} cannot be opened in {self._folder}: {error}. "
                f"Without the lock, two processes could use the device. {advice}"
            ) from error
        self._holding = holding
        self._write(Holder.here(name, cluster))

    def acquire_from_predecessor(
        self,
        name: str,
        cluster: str,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the lock; wait for a predecessor of the same name and cluster to release it.

        A predecessor that neither releases it nor refreshes its record within `patience_s` seconds is ended.

        Raises:
            DeviceHeld: another process holds it, or a predecessor that refreshes its record.
        """
        begun, seen = clock(), self._freshness()
        while True:
            try:
                return self.acquire(name, cluster)
            except DeviceHeld as held:
                holder = held.holder
                if (
                    not isinstance(holder, Holder)
                    or (holder.name, holder.cluster) != (name, cluster)
                    or self._freshness() != seen
                ):
                    raise
                if clock() - begun >= patience_s:
                    _end_process(holder)
                    begun = clock()
                sleep(0.2)

    def refresh(self) -> None:
        """Set the time of the record to now: the holder is well."""
        if self._holding is not None:
            with contextlib.suppress(OSError):
                os.utime(self._record)

    def holder(self) -> Holder | None:
        """The holder in the record; None where there is no record, or none that can be read."""
        try:
            found = Holder(**json.loads(self._record.read_text(encoding="utf-8")))
            born, since = float(found.born), float(found.since)
            return Holder(int(found.pid), born, since, str(found.name), str(found.cluster))
        except (OSError, ArithmeticError, ValueError, TypeError, RecursionError):
            return None

    def is_used(self) -> bool:
        """Whether the process in the record is alive; the lock itself is not touched."""
        holder = self.holder()
        return holder is not None and holder.is_alive()

    def release(self) -> None:
        """Release the lock, after the record: a record never names a process without the lock."""
        if self._holding is None:
            return
        with contextlib.suppress(OSError):
            self._record.unlink()
        self._end.set()
        self._holding.join()
        self._holding = None

    def _freshness(self) -> int:
        try:
            return self._record.stat().st_mtime_ns
        except OSError:
            return 0

    def _hold(self, is_ours: Future[bool]) -> None:
        try:
            with _system_lock(self.device, self._folder) as taken:
                is_ours.set_result(taken)
                if taken:
                    self._end.wait()
        except BaseException as error:
            # `acquire` waits for an answer.
            if is_ours.done():
                raise
            is_ours.set_exception(error)

    def _write(self, holder: Holder) -> None:
        # Written whole or not at all, readable by all users. Without it, only messages name no holder.
        with contextlib.suppress(OSError):
            draft = self._record.with_suffix(f".{holder.pid}")
            draft.write_text(json.dumps(asdict(holder)), encoding="utf-8")
            draft.chmod(0o644)
            draft.replace(self._record)


def machine_folder() -> Path:
    """The folder of locks and records of this machine.

    It is the same for every user and every TMPDIR: otherwise two owners would hold two locks.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("PROGRAMDATA") or tempfile.gettempdir())
    return Path("/tmp")


def _end_process(holder: Holder) -> None:
    """End the process of the record, but no other process that has got its pid since."""
    if holder.is_alive():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(holder.pid)
            process.kill()
            process.wait(5)


if sys.platform == "win32":
    from actors.windows_mutex import mutex as _system_lock
else:
    from actors.file_lock import file_lock as _system_lock
