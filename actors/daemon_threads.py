"""Threads that do not keep a process from ending, for work that may hang, like reading from a lost disk."""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
#: Seconds for which the end of the process waits for work that is under way. A thread that is stopped within
#: a library may bring the process down, and no work that does not hang takes so long.
_EXIT_WITHIN_S = 2.0
_Work = tuple["Future[object]", Callable[[], object]]


class DaemonThreads(Executor):
    """An executor whose threads end with the process.

    Python waits for the threads of a `ThreadPoolExecutor` when it ends, also after `shutdown(wait=False)`, so
    one read that hangs would keep the whole process.

    Args:
        num_threads: threads at most; each is started when all others have work.
        name: the names of the threads begin with it.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._name = name
        self._num_threads = num_threads
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._num_idle = 0
        self._is_shut_down = False
        _all.add(self)

    def submit(
        self, fn: Callable[Arguments, Value], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Value]:
        """See `concurrent.futures.Executor.submit`.

        Raises:
            RuntimeError: it is shut down.
        """
        done: Future[Value] = Future()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._queue.put((done, lambda: fn(*args, **kwargs)))  # type: ignore[arg-type]  # it takes any value
            self._num_idle -= 1
            if self._num_idle < 0 and len(self._threads) < self._num_threads:
                self._num_idle += 1
                name = f"{self._name}_{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        with self._lock:
            self._is_shut_down = True
            threads = list(self._threads)
            while cancel_futures and not self._queue.empty():
                work = self._queue.get()
                if work is not None:
                    work[0].cancel()
            for _ in threads:
                self._queue.put(None)
        if wait:
            for thread in threads:
                thread.join()

    def join(self, until: float) -> None:
        """Wait for the threads until this moment, on `time.monotonic`."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            done, task = work
            if not done.set_running_or_notify_cancel():
                self._has_time()
                continue
            # Whoever hears of the result may submit more at once, so the thread counts as idle before that.
            try:
                value = task()
            except BaseException as error:
                self._has_time()
                done.set_exception(error)
            else:
                self._has_time()
                done.set_result(value)
                del value
            # They would live on until the next work comes.
            del work, done, task

    def _has_time(self) -> None:
        with self._lock:
            self._num_idle += 1


_all: weakref.WeakSet[DaemonThreads] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    executors = list(_all)
    for each in executors:
        each.shutdown(wait=False, cancel_futures=True)
    until = time.monotonic() + _EXIT_WITHIN_S
    for each in executors:
        each.join(until)
