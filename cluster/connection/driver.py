"""The driver process: a process of its own that is Ray's driver, so that the backend's process is none.

Ray ends a driver's whole process, without an exception, when its cluster stays away, when another one is
found at its address, or when the object store of its machine is gone; and calls to a head that is gone hang
for ever. All of that happens here, where it costs nothing: `connection` starts another driver process. And
whatever else a backend does with Ray, in a cluster of its own perhaps, is left alone.

    python -m cluster.connection.driver   reads settings and questions from standard input, answers on output
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial

from actors.faces import Failure
from cluster import ray_internals
from cluster.connection.handlers import HANDLERS, Handlers
from cluster.connection.messages import Answer, Ask, Channel, Drop, Joined, NotJoined
from cluster.deployment import placement
from cluster.deployment.ray_errors import fault_of
from cluster.errors import DetectorNotReady, Fault, NotAnswered, RayfaceError
from cluster.settings import Settings

_LEAVE_WITHIN_S = 15.0
#: An embedded detector, which ends with this process, has sent its spans by then.
_LAST_SPANS_S = 0.5


class Driver:
    """Carries questions to the cluster that this process has joined, each in a task of its own."""

    def __init__(self, handlers: Handlers, channel: Channel) -> None:
        self._handlers = handlers
        self._channel = channel
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, messages: asyncio.Queue[Ask | Drop | None]) -> None:
        """Answer questions until there is a None among them."""
        while (message := await messages.get()) is not None:
            if isinstance(message, Drop):
                if (task := self._tasks.get(message.number)) is not None:
                    task.cancel()
                continue
            task = asyncio.create_task(self._answer(message))
            self._tasks[message.number] = task
            task.add_done_callback(partial(self._done, message.number))

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        del self._tasks[number]

    async def _answer(self, message: Ask) -> None:
        try:
            handler = HANDLERS.get(message.question)
            if handler is None:
                raise NotAnswered(_unknown(message.question))
            answer = Answer(message.number, await handler(self._handlers, *message.arguments))
        except asyncio.CancelledError:
            return
        except DetectorNotReady as error:
            answer = Answer(message.number, fault=Fault.of(error.failure, str(error)))
        except Exception as error:
            answer = Answer(message.number, fault=fault_of(error))
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(self._channel.write, answer)


def _unknown(question: str) -> Fault:
    return Fault.of(
        Failure.VERSION_MISMATCH,
        f"The driver process has no answer to the question {question!r}: its rayface is not the backend's. "
        "Restart the backend.",
    )


class Inbox:
    """What comes through the pipe, from the first moment on; a None when nobody is at its other end any more.

    Args:
        channel: read here and nowhere else.
        parent: the process that started this one.
    """

    def __init__(self, channel: Channel, parent: int) -> None:
        self._channel = channel
        self._parent = parent
        self._lock = threading.Lock()
        self._early: list[Ask | Drop | None] = []
        self._deliver: Callable[[Ask | Drop | None], None] = self._early.append
        #: Whether this process may end without more ado when nobody waits for it.
        self.may_exit = False

    def start(self) -> None:
        """Read from now on, in a thread; watch the parent in another one."""
        threading.Thread(target=self._read, name="read", daemon=True).start()
        if hasattr(os, "fork"):
            threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def into(self, messages: asyncio.Queue[Ask | Drop | None]) -> None:
        """From now on, and what came before, into a queue of the running loop."""
        loop = asyncio.get_running_loop()

        def deliver(message: Ask | Drop | None) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(messages.put_nowait, message)

        with self._lock:
            self.may_exit = False
            self._deliver = deliver
            for message in self._early:
                deliver(message)

    def _read(self) -> None:
        try:
            with contextlib.suppress(EOFError):
                while True:
                    self._put(self._channel.read())
        finally:
            # However this thread ends, nothing more comes.
            self._put(None)

    def _watch(self) -> None:
        # A child that the backend forked may hold our pipe open after the backend itself is gone.
        while os.getppid() == self._parent:
            time.sleep(2.0)
        self._put(None)

    def _put(self, message: Ask | Drop | None) -> None:
        with self._lock:
            if message is None and self.may_exit:
                os._exit(0)
            self._deliver(message)


def main() -> None:
    """Join, say so, and answer until whoever started this process hangs up or is gone."""
    channel, parent = Channel.of_stdio(), os.getppid()
    try:
        settings = Settings(**channel.read())
        inbox = Inbox(channel, parent)
        inbox.start()
        # Joining may take Ray a minute. An embedded Ray that is half there is waited for, and then ended.
        inbox.may_exit = settings.cluster.address is not None
        leave = placement.join_or_start(settings)
    except EOFError:
        return
    except RayfaceError as error:
        with contextlib.suppress(EOFError):
            channel.write(NotJoined(str(error)))
        return
    try:
        import ray

        ray_internals.silence_error_listener()
        address = ray.get_runtime_context().gcs_address
        channel.write(Joined(address))
        asyncio.run(_serve(Driver(Handlers(settings, address), channel), inbox))
    except EOFError:
        pass
    except Exception:
        # The process ends below without a word of its own; its parent reads these.
        traceback.print_exc()
    finally:
        if settings.cluster.address is None and settings.tracing.endpoint:
            time.sleep(_LAST_SPANS_S)
        leave()
        os._exit(0)


async def _serve(driver_process: Driver, inbox: Inbox) -> None:
    messages: asyncio.Queue[Ask | Drop | None] = asyncio.Queue()
    inbox.into(messages)
    try:
        await driver_process.serve(messages)
    finally:
        # A thread that waits for a head that is gone would hold this process up for ever: asyncio itself
        # waits for its threads, and so does Ray.
        threading.Timer(_LEAVE_WITHIN_S, os._exit, [0]).start()


if __name__ == "__main__":
    main()
