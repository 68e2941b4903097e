"""The messages between a backend and its driver process, and the two pipes that carry them.

A message is a pickled value. That is safe here: both ends are ours and of one version, which the greeting
before the first message makes sure of (rayface may be upgraded under a backend that runs), and nobody else
can write into the pipes. Pickle also knows where a value ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import select
import threading
from dataclasses import dataclass
from functools import cache
from typing import IO, Any, Generic, NamedTuple, TypeVar, cast

from cluster.connection.cluster_api import ClusterApi
from cluster.deployment.packed import PackedCall
from cluster.errors import Fault
from cluster.protocol.identity import identity
from cluster.protocol.schema import digest_of
from cluster.settings import Settings
from cluster.slabs import SlabAddress


@dataclass(frozen=True, slots=True)
class Join:
    """The first message to a driver process: which cluster to join.

    Attributes:
        settings_json: the backend's settings. They are sent as JSON because `load_settings` makes a class of
            its own, which pickle cannot find in another process.
        slabs: where the backend's memory for pixels is; None if it has none.
    """

    settings_json: str
    slabs: SlabAddress | None = None

    @classmethod
    def of(cls, settings: Settings, slabs: SlabAddress | None = None) -> Join:
        """The message for these settings."""
        return cls(settings.model_dump_json(), slabs)

    def settings(self) -> Settings:
        """The backend's settings."""
        return Settings.model_validate_json(self.settings_json)


# Named tuples: pickle makes and reads them sooner than dataclasses, and each call is two messages.
class Ask(NamedTuple):
    """A question.

    Attributes:
        number: the answer carries it too.
        question: a method of `ClusterApi`, for example "detect".
        arguments: the method's, without `timeout_s`: the backend keeps the time, and drops the question.
    """

    number: int
    question: str
    arguments: tuple[Any, ...]


class Drop(NamedTuple):
    """Nobody waits for the answer to a question any more."""

    number: int


class Answer(NamedTuple):
    """The answer to a question, or the fault that stands in for it."""

    number: int
    value: Any = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The driver process has joined the cluster.

    Attributes:
        address: the head's, HOST:PORT.
    """

    address: str


@dataclass(frozen=True, slots=True)
class NotJoined:
    """The driver process could not join, says why, and ends."""

    why: str


ToDriver = Join | Ask | Drop
FromDriver = Joined | NotJoined | Answer

Received = TypeVar("Received")
Sent = TypeVar("Sent")


#: A pipe that says it is ready takes so many bytes (POSIX: PIPE_BUF, 512 at least).
_MAX_AT_ONCE_BYTES = getattr(select, "PIPE_BUF", 0)


class CannotEncode(Exception):
    """A message cannot be pickled; nothing of it was sent."""


class CannotDecode(EOFError):
    """A message cannot be read. Nobody knows where the next one begins, so no more can be read."""


class OtherVersion(Exception):
    """The other end has another version of these messages; nothing of it was read."""


@cache
def _greeting() -> bytes:
    """The same for two processes whose messages are the same; always of one length."""
    kinds = (Join, Ask, Drop, Answer, Joined, NotJoined, PackedCall, ClusterApi)
    return f"{digest_of(kinds)} {identity().tag}".encode().ljust(64)[:64]


class Channel(Generic[Received, Sent]):
    """One end of the two pipes; any number of threads may write, one thread reads.

    Args:
        reading: the pipe from the other end.
        writing: the pipe to the other end.
    """

    def __init__(self, reading: IO[bytes], writing: IO[bytes]) -> None:
        self._reading = reading
        self._writing = writing
        self._lock = threading.Lock()

    @classmethod
    def of_stdio(cls) -> Channel[Received, Sent]:
        """A channel over the standard input and output of this process, which nobody else can use then.

        What Ray or anything else writes to the standard output goes to the standard error instead.
        """
        reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        return cls(reading, writing)

    def greet(self) -> None:
        """Send the greeting, once, before the first message.

        Raises:
            EOFError: the other end is gone.
        """
        try:
            self._writing.write(_greeting())
            self._writing.flush()
        except (OSError, ValueError) as error:
            raise EOFError(str(error)) from error

    def check_greeting(self) -> None:
        """Wait for the other end's greeting, once, before the first message.

        Raises:
            EOFError: the other end is gone.
            OtherVersion: the other end has another version of the messages.
        """
        heard = self._reading.read(len(_greeting()))
        if not heard:
            raise EOFError
        if heard != _greeting():
            raise OtherVersion

    def read(self) -> Received:
        """Wait for the next message, and return it.

        Raises:
            EOFError: the other end is gone.
            CannotDecode: the message cannot be read; this kind of EOFError has a text.
        """
        try:
            return cast(Received, pickle.load(self._reading))
        except EOFError:
            raise
        except (OSError, ValueError, pickle.UnpicklingError) as error:
            # A process that dies in the middle of a message leaves half of it.
            raise EOFError(str(error)) from error
        except Exception as error:
            # Pickle raises whatever a class's own methods raise, and an AttributeError for a missing class.
            raise CannotDecode(f"{type(error).__name__}: {error}") from error

    def write(self, message: Sent) -> None:
        """Send a message; blocks while the other end does not read.

        Raises:
            EOFError: the other end is gone.
            CannotEncode: the message cannot be pickled; others can still be sent.
        """
        parts = self._pickled(message)
        try:
            with self._lock:
                self._writing.writelines(parts)
                self._writing.flush()
        except (OSError, ValueError) as error:
            raise EOFError(str(error)) from error

    def write_at_once(self, message: Sent) -> bool:
        """Send a message if that blocks nobody; returns whether it was sent.

        Raises:
            EOFError: the other end is gone.
            CannotEncode: the message cannot be pickled; others can still be sent.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            parts = self._pickled(message, _MAX_AT_ONCE_BYTES)
            if not _is_ready(self._writing):
                return False
            self._writing.write(b"".join(parts))
            self._writing.flush()
            return True
        except _TooLong:
            return False
        except (OSError, ValueError) as error:
            raise EOFError(str(error)) from error
        finally:
            self._lock.release()

    def _pickled(self, message: Sent, max_bytes: int | None = None) -> _Parts:
        parts = _Parts(max_bytes)
        try:
            # As a whole before the first byte is sent: half a message would spoil every later one. In parts,
            # because joining them would copy the photos once more.
            pickle.dump(message, parts, protocol=5)
        except _TooLong:
            raise
        except Exception as error:
            # Pickle raises whatever an object's own methods raise.
            raise CannotEncode(f"{type(error).__name__}: {error}") from error
        return parts

    def hang_up(self) -> None:
        """Close the writing pipe; the other end reads what was sent, and then that this end is gone."""
        with contextlib.suppress(OSError, ValueError):
            self._writing.close()

    def close(self) -> None:
        """Close both ways; only the thread that reads may do this."""
        self.hang_up()
        self._reading.close()


class _TooLong(Exception):
    """The message is longer than it may be."""


class _Parts(list[bytes]):
    """Keeps what pickle writes, up to so many bytes."""

    def __init__(self, max_bytes: int | None) -> None:
        self._num_left = max_bytes

    def write(self, part: bytes) -> None:
        if self._num_left is not None:
            # Large pixels come as a buffer, which has no length.
            self._num_left -= memoryview(part).nbytes
            if self._num_left < 0:
                raise _TooLong
        self.append(part)


def _is_ready(pipe: IO[bytes]) -> bool:
    """Whether a pipe takes `_MAX_AT_ONCE_BYTES` without blocking; not known on Windows."""
    if not hasattr(select, "poll"):
        return False
    try:
        poll = select.poll()
        poll.register(pipe.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except io.UnsupportedOperation:
        # It is no pipe.
        return False
