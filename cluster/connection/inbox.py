"""What a courier is sent, from the first moment on, also while it joins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable

from cluster.connection.messages import Ask, Channel, Drop


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
        with contextlib.suppress(EOFError):
            while True:
                self._put(self._channel.read())
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
