"""What a backend and its driver process say to each other: pickled values over two pipes, one by one.

Both ends are ours, of one version, and the pipes are nobody else's; so pickle is safe here, and it knows
where a value ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from dataclasses import dataclass
from typing import IO, Any

from cluster.errors import Fault


@dataclass(frozen=True, slots=True)
class Ask:
    """A question.

    Attributes:
        number: the answer carries it too.
        question: a method of `ClusterApi`, for example "detect".
        arguments: the method's, without `timeout_s`: the backend keeps the time, and drops the question.
    """

    number: int
    question: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Nobody waits for the answer to a question any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question, or the fault that stands in for it."""

    number: int
    value: Any = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The driver process is a driver of the cluster now.

    Attributes:
        address: of the cluster's store, HOST:PORT.
    """

    address: str


@dataclass(frozen=True, slots=True)
class NotJoined:
    """It could not become one; says why. It ends after this."""

    why: str


class Channel:
    """One end of the two pipes. Any thread may write; one reads."""

    def __init__(self, reading: IO[bytes], writing: IO[bytes]) -> None:
        self._reading = reading
        self._writing = writing
        self._lock = threading.Lock()

    @classmethod
    def of_stdio(cls) -> Channel:
        """This process's standard input and output, which from then on are nobody else's.

        What Ray or anybody writes on standard output goes to standard error.
        """
        reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        return cls(reading, writing)

    def read(self) -> Any:
        """The next value; blocks.

        Raises:
            EOFError: the other end is gone, or what it sent cannot be read.
        """
        try:
            return pickle.load(self._reading)
        except Exception as error:
            # A process that dies in the middle of a value leaves half of it. Pickle raises many kinds of
            # errors then, IndexError and AttributeError among them.
            raise EOFError(f"{type(error).__name__}: {error}") from error

    def write(self, value: Any) -> None:
        """Send a value; blocks while the other end does not read.

        Raises:
            EOFError: the other end is gone.
            Exception: the value cannot be sent; this end has hung up, because half of it may have been.
        """
        try:
            with self._lock:
                pickle.dump(value, self._writing, protocol=5)
                self._writing.flush()
        except (OSError, ValueError) as error:
            raise EOFError(str(error)) from error
        except BaseException:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """The other end reads nothing more, and knows it."""
        with contextlib.suppress(OSError, ValueError):
            self._writing.close()
