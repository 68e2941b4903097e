"""One driver process, seen from the backend: two pipes, three threads and the questions under way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import subprocess
import sys
import threading
from collections import deque
from typing import Any

from actors.faces import Failure, Priority
from cluster.background import in_thread
from cluster.connection.messages import Answer, Ask, Channel, Drop, Joined, NotJoined
from cluster.errors import ClusterUnavailable, Fault, NotAnswered
from cluster.settings import Settings

_END_WITHIN_S = 20.0
_MAX_LINES = 20

_PROGRAM = "import sys; sys.path[:] = {path!r}; from cluster.connection.driver import main; main()"


class DriverProcess:
    """Made by `start`, ended by `end`; belongs to one event loop.

    Attributes:
        address: of the cluster that it has joined.
        ended: done when it has ended, by itself or not; holds why, in words.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._channel = Channel(process.stdout, process.stdin)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._to_send: queue.PriorityQueue[tuple[int, int, Any]] = queue.PriorityQueue()
        self._sequence = itertools.count()
        self._said: deque[str] = deque(maxlen=_MAX_LINES)
        self._joined: asyncio.Future[str] = self._loop.create_future()
        self.address = ""
        self.ended: asyncio.Future[str] = self._loop.create_future()

    @classmethod
    async def start(cls, settings: Settings) -> DriverProcess:
        """Start a process, and wait until it has joined the cluster in the settings or has one embedded.

        Raises:
            ClusterUnavailable: the process could not be started, or could not join; says why.
        """
        try:
            process = subprocess.Popen(
                # The same modules as here, wherever they were found.
                [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl+C is for this process; the driver process ends when this one hangs up.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise ClusterUnavailable(
                f"The process that joins the cluster could not be started: {error}. "
                "Look whether this machine has memory, processes and open files left."
            ) from error
        made = cls(process)
        try:
            for work in (made._send, made._receive, made._listen):
                threading.Thread(target=work, name=f"driver-process{work.__name__}", daemon=True).start()
            # A setting may hold a path; as JSON it is understood by the other process's own settings.
            made._put(settings.model_dump(mode="json"))
            made.address = await asyncio.shield(made._joined)
        except BaseException:
            await made.end()
            raise
        return made

    @property
    def num_asked(self) -> int:
        """Questions without an answer so far."""
        return len(self._waiting)

    async def ask(self, question: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """The answer to a question of `ClusterApi`.

        On cancellation, and when the time is up, the driver process is told that nobody waits any more.

        Raises:
            NotAnswered: no answer came within `timeout_s` seconds; says why.
        """
        if self.ended.done():
            raise NotAnswered(_lost(self.ended.result()))
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        self._put(Ask(number, question, arguments))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise NotAnswered(Fault.of(Failure.DEADLINE, "No answer came in time.")) from None
        finally:
            self._waiting.pop(number, None)
            if answer.cancelled():
                self._put(Drop(number))

    async def end(self) -> None:
        """Hang up, and wait until it is gone; one that does not go is killed.

        An embedded Ray goes with it. Whoever is cancelled here waits all the same.
        """
        self._put(None)
        await in_thread(self._end)

    def _put(self, message: Any) -> None:
        # A person's photo, and every small question, goes before the megabytes of a scan.
        is_bulk = isinstance(message, Ask) and Priority.BULK in message.arguments
        self._to_send.put((int(is_bulk), next(self._sequence), message))

    def _end(self) -> None:
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self) -> None:
        """In a thread, because a pipe that nobody reads blocks."""
        try:
            with contextlib.suppress(EOFError):
                while (message := self._to_send.get()[2]) is not None:
                    # What nobody waits for any more need not travel.
                    if not isinstance(message, Ask) or message.number in self._waiting:
                        self._channel.write(message)
        finally:
            # However this thread ends, the driver process ends too, and another one is started.
            self._channel.hang_up()

    def _receive(self) -> None:
        try:
            with contextlib.suppress(EOFError):
                while True:
                    self._tell(self._heard, self._channel.read())
        finally:
            # It has ended, or says what cannot be read: then it is of no more use.
            self._end()
            self._tell(self._has_ended)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            said = line.decode("utf-8", "replace").rstrip()[:300]
            # The frames of a stack trace of Ray's core come after what it has to say.
            if len(said) > 3 and not said.startswith(("/", "*", " ")):
                self._said.append(said)

    def _tell(self, method: Any, *arguments: Any) -> None:
        # The loop may be gone already, at the end of everything.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(method, *arguments)

    def _heard(self, message: Answer | Joined | NotJoined) -> None:
        if isinstance(message, Answer):
            answer = self._waiting.get(message.number)
            if answer is None or answer.done():
                return
            if message.fault is not None:
                answer.set_exception(NotAnswered(message.fault))
            else:
                answer.set_result(message.value)
        elif self._joined.done():
            return
        elif isinstance(message, Joined):
            self._joined.set_result(message.address)
        else:
            self._joined.set_exception(ClusterUnavailable(message.why))

    def _has_ended(self) -> None:
        why = f"it ended with code {self._process.returncode}"
        if self._said:
            why += f"; its last words: {self._said[-1]}"
        self.ended.set_result(why)
        if not self._joined.done():
            said = "The process that joins the cluster did not get so far"
            self._joined.set_exception(ClusterUnavailable(f"{said}: {why}."))
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NotAnswered(_lost(why)))


def _lost(why: str) -> Fault:
    return Fault.of(
        Failure.NO_CLUSTER, f"The connection to the cluster was lost ({why}); it is being made anew."
    )
