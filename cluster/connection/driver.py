"""The driver process: a process of its own that is Ray's driver in place of the backend's process.

Ray ends a driver's whole process, without an exception, when the cluster stays away, when another cluster
answers at its address, or when the object store of its machine is gone; and a call to a head that is gone
hangs for ever. Here that costs nothing: `Connection` starts another driver process. And a backend may use Ray
for other things, in a cluster of its own: nothing here touches that.

    python -m cluster.connection.driver   reads settings and questions from standard input, answers on output
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from actors.faces import Failure
from cluster import ray_internals
from cluster.connection.messages import (
    Answer,
    Ask,
    CannotEncode,
    Channel,
    Drop,
    FromDriver,
    Join,
    Joined,
    NotJoined,
    OtherVersion,
    ToDriver,
)
from cluster.deployment import joining
from cluster.deployment.ray_errors import fault_of
from cluster.errors import ClusterUnavailable, DetectorNotReady, Fault, NotAnswered, RayfaceError
from cluster.slabs import SlabAddress, Slabs

#: An embedded Ray has processes to end. A driver that only joined has not: the head notices that it is gone.
_LEAVE_EMBEDDED_WITHIN_S = 15.0
_LEAVE_WITHIN_S = 3.0
#: An embedded detector ends with this process; it has sent its last spans after so long.
_LAST_SPANS_S = 0.5
_UPGRADED = (
    "rayface was changed on this machine while this program ran, and the two would misread each other "
    "(version_skew). Restart the program."
)

Handler = Callable[..., Awaitable[Any]]


class Driver:
    """Answers the backend's questions, each in a task of its own.

    Args:
        handlers: the method that answers each question, by the question's name; every other question is
            refused.
        channel: takes the answers.
    """

    def __init__(self, handlers: Mapping[str, Handler], channel: Channel[ToDriver, FromDriver]) -> None:
        self._handlers = handlers
        self._channel = channel
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, messages: asyncio.Queue[Ask | Drop | None]) -> None:
        """Answer questions until a None comes."""
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
            handler = self._handlers.get(message.question)
            if handler is None:
                raise NotAnswered(_unknown(message.question))
            answer = Answer(message.number, await handler(*message.arguments))
        except asyncio.CancelledError:
            return
        except DetectorNotReady as error:
            answer = Answer(message.number, fault=Fault.of(error.failure, str(error)))
        except Exception as error:
            answer = Answer(message.number, fault=fault_of(error))
        with contextlib.suppress(EOFError):
            try:
                if not self._channel.write_at_once(answer):
                    await asyncio.to_thread(self._channel.write, answer)
            except CannotEncode as error:
                fault = _not_sent(message.question, error)
                await asyncio.to_thread(self._channel.write, Answer(message.number, fault=fault))


def _not_sent(question: str, error: CannotEncode) -> Fault:
    return Fault.of(
        Failure.INTERNAL,
        f"The answer to the question {question!r} cannot be sent: {error}. Please report it.",
    )


def _unknown(question: str) -> Fault:
    return Fault.of(
        Failure.VERSION_SKEW,
        f"The driver process has no answer to the question {question!r}: its rayface is not the backend's. "
        "Restart the backend.",
    )


class Inbox:
    """Reads the backend's messages from the first moment on; a None says that the backend is gone.

    Args:
        channel: nobody else reads from it.
        parent: the process id of the backend.

    Attributes:
        may_exit: whether this process may end at once when the backend is gone.
    """

    def __init__(self, channel: Channel[ToDriver, FromDriver], parent: int) -> None:
        self._channel = channel
        self._parent = parent
        self._lock = threading.Lock()
        self._early: list[Ask | Drop | None] = []
        self._deliver: Callable[[Ask | Drop | None], None] = self._early.append
        self.may_exit = False

    def start(self) -> None:
        """Begin to read, in a thread, and to watch the backend's process, in another one."""
        threading.Thread(target=self._read, name="read", daemon=True).start()
        if hasattr(os, "fork"):
            threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def into(self, messages: asyncio.Queue[Ask | Drop | None]) -> None:
        """Deliver all messages, those that came before too, into a queue of the running loop."""
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
                    message = self._channel.read()
                    assert not isinstance(message, Join), "a driver process joins once"
                    self._put(message)
        finally:
            # However this thread ends: no more messages come.
            self._put(None)

    def _watch(self) -> None:
        # A child that the backend forked may hold the pipe open after the backend itself is gone.
        while os.getppid() == self._parent:
            time.sleep(2.0)
        self._put(None)

    def _put(self, message: Ask | Drop | None) -> None:
        with self._lock:
            if message is None and self.may_exit:
                os._exit(0)
            self._deliver(message)


def main(*, is_early: bool = False) -> None:
    """Join the cluster, say so, and answer questions until the backend hangs up or is gone.

    Args:
        is_early: whether to load everything at once, because the backend loads meanwhile and says later which
            cluster to join; an embedded one cannot be started then.
    """
    # Hundreds of thousands of objects are made below, by Ray above all, and stay. Looking through them for
    # garbage would take a tenth of a second of the start, and as long again and again while calls wait.
    gc.disable()
    channel: Channel[ToDriver, FromDriver] = Channel.of_stdio()
    parent = os.getppid()
    try:
        if is_early:
            joining.load_ray()
            _load_handlers()
        channel.check_greeting()
        join = channel.read()
        assert isinstance(join, Join), "the first message says which cluster to join"
        settings = join.settings()
        slabs = _shared(join.slabs) if join.slabs else None
        inbox = Inbox(channel, parent)
        inbox.start()
        # Joining may take Ray a minute. An embedded Ray that is starting must be up before it can be ended.
        inbox.may_exit = settings.cluster.address is not None
        threading.Thread(target=_load_handlers, name="load", daemon=True).start()
        leave = joining.join_or_start(settings)
    except EOFError:
        return
    except OtherVersion:
        # Not by the channel: the other end might misread it.
        sys.stderr.write(f"{_UPGRADED}\n")
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
        from cluster.connection.handlers import Handlers

        leave_within_s = _LEAVE_EMBEDDED_WITHIN_S if settings.cluster.address is None else _LEAVE_WITHIN_S
        driver = Driver(Handlers(settings, address, slabs).table(), channel)
        gc.freeze()
        gc.enable()
        asyncio.run(_serve(driver, inbox, leave_within_s))
    except EOFError:
        pass
    except Exception:
        # `os._exit` below prints nothing; the backend reads the last words of this process.
        traceback.print_exc()
    finally:
        if settings.cluster.address is None and settings.tracing.endpoint:
            time.sleep(_LAST_SPANS_S)
        leave()
        os._exit(0)


def _shared(address: SlabAddress) -> Slabs:
    """The backend's memory for pixels. A process that was started early has not inherited it.

    Raises:
        ClusterUnavailable: it cannot be opened.
    """
    slabs = Slabs.inherited(address) or Slabs.opened(address)
    if slabs is None:
        raise ClusterUnavailable(
            "The process that joins the cluster cannot open the memory for photos that it is to share. Set "
            "`client.max_shared_bytes = 0`: photos are copied to it then."
        )
    return slabs


def _load_handlers() -> None:
    """Load what answers questions; usually while Ray starts its processes, or finds the head."""
    import cluster.connection.handlers  # noqa: F401  # for its loading alone


async def _serve(driver: Driver, inbox: Inbox, leave_within_s: float) -> None:
    messages: asyncio.Queue[Ask | Drop | None] = asyncio.Queue()
    inbox.into(messages)
    try:
        await driver.serve(messages)
    finally:
        # asyncio waits for its threads, and Ray for its own. A thread that waits for a head that is gone
        # would keep this process for ever.
        threading.Timer(leave_within_s, os._exit, [0]).start()


if __name__ == "__main__":
    main()
