"""A process that decodes photos one after another, as its owner sees it: it can be ended at any moment.

Why not `multiprocessing`, or a library on top of it (pebble, loky): its children load the program's main
module again, which in a detector is Ray's, and in a user's script is the script. And pebble's workers share
one pipe and its lock, so that a worker which dies within it stops its neighbours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any, BinaryIO, Protocol

import psutil

from actors.decode_frames import pack_order, read_frame, unpack_photo, write_frame
from actors.errors import DetectorFault, ImageFault
from actors.faces import Rejection
from actors.images import Limits, PreparedImage

_PROGRAM = "import sys; sys.path[:] = {path!r}; from actors.decode_child import main; main({max_bytes})"
#: glibc reserves address space for each arena, and OpenBLAS for each thread: both would count.
_FEWER_THREADS = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
#: The system's nice value of a worker with an expensive photo; it gets a tenth of a busy core.
_SLOW_NICE = 10
#: Exit codes of a process that was ended from outside, with nothing wrong about the photo. Windows'
#: TaskManager and `TerminateProcess` give 1.
_FROM_OUTSIDE = (1, *(-getattr(signal, name) for name in ("SIGKILL", "SIGTERM") if hasattr(signal, name)))
#: And of one whose processor time was up; on Windows that is ERROR_NOT_ENOUGH_QUOTA.
_CPU_IS_UP = (-signal.SIGXCPU,) if sys.platform != "win32" else (1816,)
_EXITS_WITHIN_S = 2.0
_WALL_PER_CPU = 3.0
#: Faults of a photo after which its worker is ended: it has little left of what it may take.
ENDS_A_WORKER = (Rejection.TOO_COSTLY,)


class Decoder(Protocol):
    """What `DecodePool` needs of a worker."""

    def ask(
        self, encoded: bytes, shapes: tuple[tuple[int, int], ...], limits: Limits, max_enlargement: float
    ) -> PreparedImage:
        """See `DecodeWorker.ask`."""
        ...

    @property
    def cpu_s(self) -> float:
        """See `DecodeWorker.cpu_s`."""
        ...

    @property
    def is_alive(self) -> bool:
        """See `DecodeWorker.is_alive`."""
        ...

    def slow_down(self) -> None:
        """See `DecodeWorker.slow_down`."""
        ...

    def end(self) -> None:
        """See `DecodeWorker.end`."""
        ...


class DecodeWorker:
    """One worker. `ask` blocks; the other methods may be called from any thread meanwhile.

    Args:
        process: runs `actors/decode_child.py`, and has said that it is ready.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._orders: BinaryIO = process.stdin  # type: ignore[assignment]  # Popen's pipes are buffered files
        self._answers: BinaryIO = process.stdout  # type: ignore[assignment]  # see above
        self._is_ended = self._is_asking = False

    @classmethod
    def start(cls, max_decode_bytes: int) -> DecodeWorker:
        """Start a worker, and wait until it is ready: a third of a second.

        Args:
            max_decode_bytes: memory that decoding one photo may take.

        Raises:
            DetectorFault: the system does not start it, or it ended at once; says why.
        """
        with contextlib.ExitStack() as files:
            try:
                said = files.enter_context(_scratch_file())
                process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM.format(path=sys.path, max_bytes=max_decode_bytes)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=os.environ | _FEWER_THREADS,
                    start_new_session=True,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
            except OSError as error:
                raise _not_started(str(error)) from error
            worker = cls(process)
            try:
                read_frame(worker._answers, 0)
            except (EOFError, ValueError, OSError) as error:
                worker.end()
                said.seek(0)
                lines = said.read().decode("utf-8", "replace").strip().splitlines()
                raise _not_started(lines[-1] if lines else f"it ended with code {process.wait()}") from error
        return worker

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that the process has used so far; 0 if it is gone."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except (psutil.Error, OSError):
            return 0.0
        return float(times.user + times.system)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; something may end it while it has no work."""
        return self._process.poll() is None

    def ask(
        self, encoded: bytes, shapes: tuple[tuple[int, int], ...], limits: Limits, max_enlargement: float
    ) -> PreparedImage:
        """Let the worker prepare a photo; see `actors.images.prepare`.

        Raises:
            ImageFault: the photo cannot be used, or it made the worker end.
            DetectorFault: the worker was ended from outside, or by `end`.
        """
        self._is_asking = True
        try:
            write_frame(self._orders, pack_order(shapes, limits, max_enlargement), encoded)
            answer, pixels = read_frame(self._answers, 3 * max(height * width for height, width in shapes))
            return _photo_in(answer, pixels)
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            was_ended = self._is_ended
            # A process closes its pipes a little before it is gone and has an exit code.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXITS_WITHIN_S)
            self.end()
            if was_ended:
                raise DetectorFault("Nobody waited for the photo any more; decoding it was ended.") from error
            raise _why_ended(self._process.wait(), limits) from error
        finally:
            self._is_asking = False
            if self._is_ended:
                self._reap()

    def slow_down(self) -> None:
        """Let other work of this machine go first from now on."""
        with contextlib.suppress(psutil.Error, OSError):
            # On Windows the class below the normal one; its number is psutil's.
            psutil.Process(self.pid).nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", _SLOW_NICE))

    def end(self) -> None:
        """Kill the process; what `ask` waits for raises. It does not wait for a process that has work."""
        self._is_ended = True
        # An answer that nobody waits for is of no use, so it is killed and not asked to end.
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.kill()
        if not self._is_asking:
            self._reap()

    def _reap(self) -> None:
        self._process.wait()
        for pipe in (self._orders, self._answers):
            # What could not be sent is still in the pipe's buffer.
            with contextlib.suppress(OSError, ValueError):
                pipe.close()


def max_wall_s(limits: Limits) -> float:
    """Seconds after which a worker is taken to be stuck, with no processor time used."""
    return limits.max_decode_s * _WALL_PER_CPU


def stuck(wall_s: float) -> ImageFault:
    """What is said of a photo that took longer than that."""
    return ImageFault(
        Rejection.TOO_COSTLY,
        f"Decoding the image took {wall_s:g} s, and it was not done (three times detector.max_decode_s). "
        "Send a smaller image, or one in another format.",
    )


def _photo_in(answer: dict[str, Any], pixels: bytes) -> PreparedImage:
    if "reason" in answer:
        raise ImageFault(Rejection(answer["reason"]), answer["detail"])
    if "unforeseen" in answer:
        raise DetectorFault(
            f"Preparing the photo failed in an unforeseen way: {answer['unforeseen']}. Please report it."
        )
    return unpack_photo(answer, pixels)


def _scratch_file() -> BinaryIO:
    """Where a worker writes what goes wrong at its start; nowhere if the disk for such files is full.

    Raises:
        OSError: this process may open no more files.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "r+b")


def _not_started(why: str) -> DetectorFault:
    return DetectorFault(
        f"The process that decodes photos of this kind could not be started: {why}. "
        "Check that this machine has memory, processes and open files left."
    )


def _why_ended(code: int, limits: Limits) -> ImageFault | DetectorFault:
    if code in _CPU_IS_UP:
        return ImageFault(
            Rejection.TOO_COSTLY,
            f"Decoding the image took {limits.max_decode_s:g} s of processor time, and it was not done "
            "(detector.max_decode_s). Send a smaller image, or one in another format.",
        )
    if code in _FROM_OUTSIDE:
        return DetectorFault(
            f"The process that decoded the image was ended from outside (code {code}); ask again. "
            "The system ends processes when a machine has too little memory."
        )
    return ImageFault(
        Rejection.DAMAGED,
        f"The decoder broke down over the image (its process ended with code {code}): the image is damaged, "
        "or made to do so. Save it again with another program.",
    )
