"""A driver process as the backend sees it: two pipes, three threads, and the questions without an answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVarTuple

from actors.faces import Failure, Priority
from cluster.background import in_thread
from cluster.connection.early_process import EarlyProcess, start_process
from cluster.connection.last_words import why_not_joined
from cluster.connection.messages import (
    Answer,
    Ask,
    CannotDecode,
    CannotEncode,
    Channel,
    Drop,
    FromDriver,
    Join,
    Joined,
    ToDriver,
)
from cluster.errors import ClusterUnavailable, Fault, NotAnswered
from cluster.protocol.rows import Terms
from cluster.settings import Settings
from cluster.slabs import Slabs

Arguments = TypeVarTuple("Arguments")

_END_WITHIN_S = 20.0
#: The threads notice the end of the process at once.
_CLOSED_WITHIN_S = 2.0
_HEARD_WITHIN_S = 0.5
_MAX_LINES = 20

_PROGRAM = "import sys; sys.path[:] = {path!r}; from cluster.connection.driver import main; main()"


class DriverProcess:
    """A process that is Ray's driver. `start` makes it, `end` ends it; it belongs to one event loop.

    Args:
        process: running, with pipes for its standard input, output and error.
        cluster: the address of the cluster that it is to join; None for an embedded one.

    Attributes:
        address: of the joined cluster, HOST:PORT.
        ended: is done when the process has ended, whoever ended it; its result says why, in words.
    """

    def __init__(self, process: subprocess.Popen[bytes], cluster: str | None = None) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._cluster = cluster
        self._channel: Channel[FromDriver, ToDriver] = Channel(process.stdout, process.stdin)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._to_send: queue.PriorityQueue[tuple[int, int, ToDriver | None]] = queue.PriorityQueue()
        self._sequence = itertools.count()
        self._said: deque[str] = deque(maxlen=_MAX_LINES)
        self._joined: asyncio.Future[str] = self._loop.create_future()
        # A start that is cancelled asks nobody why it failed; asyncio would print that later.
        self._joined.add_done_callback(lambda joined: joined.cancelled() or joined.exception())
        self._threads: list[threading.Thread] = []
        self.address = ""
        self.ended: asyncio.Future[str] = self._loop.create_future()

    @classmethod
    async def start(
        cls, settings: Settings, slabs: Slabs | None = None, early: EarlyProcess | None = None
    ) -> DriverProcess:
        """Start a process; wait until it has joined the settings' cluster, or has started an embedded one.

        Args:
            settings: say which cluster to join.
            slabs: the memory for pixels that the process is to share; None for none.
            early: a process that loads already; it is taken if there is a cluster to join.

        Raises:
            ClusterUnavailable: the process could not be started, or could not join; says why.
        """
        try:
            process = early.take() if early and settings.cluster.address is not None else None
            if process is None:
                shared = [slabs.address.descriptor] if slabs and slabs.address.descriptor >= 0 else ()
                process = start_process(_PROGRAM, shared)
        except OSError as error:
            raise ClusterUnavailable(
                f"The process that joins the cluster could not be started: {error}. "
                "Check that this machine has memory, processes and open files left."
            ) from error
        made = cls(process, settings.cluster.address)
        try:
            with contextlib.suppress(EOFError):
                # If the process is gone already, the thread that receives says why.
                made._channel.greet()
            made._start_threads()
            made._put(Join.of(settings, slabs.address if slabs else None))
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

        On cancellation, and when the time is up, it tells the driver process that nobody waits any more.

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
        """Hang up and wait until the process has ended; kill it if it does not end in time.

        An embedded Ray ends with it. A caller that is cancelled waits all the same. No pipe is open then, but
        for one into which a child of the ended process still writes.
        """
        self._put(None)
        await in_thread(self._end_and_close)

    def _start_threads(self) -> None:
        for work in (self._send, self._receive, self._listen):
            thread = threading.Thread(target=work, name=f"driver-process{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _put(self, message: ToDriver | None) -> None:
        if isinstance(message, Ask) and self._to_send.empty() and self._sent_at_once(message):
            return
        # A person's photo and every small question go before the megabytes of a scan.
        self._to_send.put((int(_is_of_scan(message)), next(self._sequence), message))

    def _sent_at_once(self, message: Ask) -> bool:
        """Send a question from the event loop if that does not block; a thread costs more than that."""
        # The thread says what cannot be sent, and notices that the pipe is broken.
        with contextlib.suppress(CannotEncode, EOFError):
            return self._channel.write_at_once(message)
        return False

    def _end(self) -> None:
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end_and_close(self) -> None:
        # The thread that sends hangs up; the system may have refused this process a thread.
        if not self._threads:
            self._channel.hang_up()
        self._end()
        for thread in self._threads:
            thread.join(_CLOSED_WITHIN_S)
        # Each thread closes its own pipe; what nobody reads or writes is left to close.
        if not any(thread.is_alive() for thread in self._threads):
            self._channel.close()
            assert self._process.stderr is not None
            self._process.stderr.close()

    def _send(self) -> None:
        """Runs in a thread, because a pipe that nobody reads blocks."""
        try:
            with contextlib.suppress(EOFError):
                while (message := self._to_send.get()[2]) is not None:
                    # A question that nobody waits for any more need not travel.
                    if not isinstance(message, Ask) or message.number in self._waiting:
                        self._send_one(message)
        finally:
            # However this thread ends: the driver process ends too, and `Connection` starts another one.
            self._channel.hang_up()

    def _send_one(self, message: ToDriver) -> None:
        try:
            self._channel.write(message)
        except CannotEncode as error:
            if not isinstance(message, Ask):
                raise
            detail = f"The question {message.question!r} cannot be sent to the driver process: {error}."
            fault = Fault.of(Failure.INTERNAL, f"{detail} Please report it.")
            self._tell(self._heard, Answer(message.number, fault=fault))

    def _receive(self) -> None:
        try:
            with contextlib.suppress(EOFError):
                while True:
                    self._receive_one()
        finally:
            # The process has ended, or has sent what nobody can read, and is of no more use.
            self._end()
            self._channel.close()
            self._tell(self._has_ended, *self._how_it_ended())

    def _receive_one(self) -> None:
        try:
            self._tell(self._heard, self._channel.read())
        except CannotDecode as error:
            self._said.append(f"it sent a message that cannot be read ({error})")
            raise

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                said = line.decode("utf-8", "replace").rstrip()[:300]
                # Ray's core writes its reason first and the frames of its stack trace after it.
                if len(said) > 3 and not said.startswith(("/", "*", " ")):
                    self._said.append(said)

    def _tell(self, method: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        # The loop may be closed already, when the whole program ends.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(method, *arguments)

    def _heard(self, message: FromDriver) -> None:
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

    def _how_it_ended(self) -> tuple[str, str]:
        """How the process ended; and, if it had not joined, why not, in sentences."""
        has_joined = self._joined.done()
        if not has_joined:
            # Another thread reads what it has written.
            self._threads[-1].join(_HEARD_WITHIN_S)
        why = f"it ended with code {self._process.returncode}"
        if self._said:
            why += f"; its last words: {self._said[-1]}"
        return why, "" if has_joined else why_not_joined(why, self._cluster)

    def _has_ended(self, why: str, why_not: str) -> None:
        self.ended.set_result(why)
        if not self._joined.done():
            self._joined.set_exception(ClusterUnavailable(why_not))
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NotAnswered(_lost(why)))


def _is_of_scan(message: ToDriver | None) -> bool:
    if not isinstance(message, Ask):
        return False
    terms = (each for each in message.arguments if isinstance(each, Terms))
    return message.question == "prepare" or any(each.priority == Priority.BULK for each in terms)


def _lost(why: str) -> Fault:
    return Fault.of(
        Failure.NO_CLUSTER, f"The connection to the cluster was lost ({why}); it is being made anew."
    )
