"""What a backend and its driver process say to each other: pickled values over two pipes, one by one.

Both ends are ours, of one version, and the pipes are nobody else's; so pickle is safe here, and it knows
where a value ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from dataclasses import dataclass, field
from typing import IO, Any

from cluster.errors import Fault


@dataclass(frozen=True, slots=True)
class Ask:
    """A question.

    Attributes:
        number: of the question, by which its answer is known.
        verb: which of the driver process's, for example "detect".
        arguments: of that.
    """

    number: int
    verb: str
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


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a driver process's own connection to the cluster is.

    Attributes:
        head_answers: whether the cluster's store answered it just now.
        stranded: why this driver process is of no more use although the cluster may be well; empty if it is.
    """

    head_answers: bool
    stranded: str


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        node_id: Ray's, in hex.
        address: by which the others reach it.
        name: as it calls itself.
        resources: what it offers, by Ray's names.
        ports: of its own, that every other machine must reach, by what listens there.
    """

    node_id: str
    address: str
    name: str
    resources: dict[str, float]
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActorEntry:
    """A detector in Ray's own table.

    Attributes:
        state: as Ray has it: ALIVE, RESTARTING, PENDING_CREATION, DEAD.
        num_restarts: since it was placed.
        address: of the machine where it is, or was last.
        port: of its process; 0 while it has none.
        cause: why its last process ended, by Ray; empty if Ray does not say.
    """

    state: str
    num_restarts: int
    address: str
    port: int = 0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class DriverAddress:
    """The driver process's own place in the cluster.

    Attributes:
        node_id: of the machine that it belongs to.
        address: by which others reach it.
        port: of its process, at which detectors and tasks answer; 0 if it cannot be told.
    """

    node_id: str
    address: str
    port: int


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
            EOFError: the other end is gone.
        """
        try:
            return pickle.load(self._reading)
        except (OSError, ValueError, pickle.UnpicklingError) as error:
            # A process that dies in the middle of a value leaves half of it.
            raise EOFError(str(error)) from error

    def write(self, value: Any) -> None:
        """Send a value; blocks while the other end does not read.

        Raises:
            EOFError: the other end is gone.
        """
        try:
            with self._lock:
                pickle.dump(value, self._writing, protocol=5)
                self._writing.flush()
        except (OSError, ValueError) as error:
            raise EOFError(str(error)) from error

    def hang_up(self) -> None:
        """The other end reads nothing more, and knows it."""
        with contextlib.suppress(OSError, ValueError):
            self._writing.close()
