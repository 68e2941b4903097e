"""Threads that end with the process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from actors.daemon_threads import DaemonThreads


def test_work_is_done_and_its_errors_are_told() -> None:
    with DaemonThreads(2, "work") as threads:
        assert threads.submit(lambda: threading.current_thread().name).result(5) == "work_0"
        assert threads.submit(divmod, 7, 4).result(5) == (1, 3)
        with pytest.raises(ZeroDivisionError):
            threads.submit(divmod, 7, 0).result(5)


def test_there_are_as_many_threads_as_are_needed_and_no_more() -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)

    def held() -> str:
        begun.release()
        assert gate.wait(5)
        return threading.current_thread().name

    with DaemonThreads(2, "work") as threads:
        tasks = [threads.submit(held) for _ in range(4)]
        assert begun.acquire(timeout=5)
        assert begun.acquire(timeout=5)
        assert not begun.acquire(blocking=False)
        gate.set()
        assert {each.result(5) for each in tasks} == {"work_0", "work_1"}


def test_a_thread_without_work_is_used_again() -> None:
    with DaemonThreads(8, "work") as threads:
        assert {threads.submit(threading.current_thread).result(5).name for _ in range(20)} == {"work_0"}


def test_shutting_down_cancels_what_has_not_begun() -> None:
    gate, begun = threading.Event(), threading.Event()

    def held() -> bool:
        begun.set()
        return gate.wait(5)

    threads = DaemonThreads(1, "work")
    first, second = threads.submit(held), threads.submit(int)
    assert begun.wait(5)
    threads.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert first.result(5)
    assert second.cancelled()
    with pytest.raises(RuntimeError):
        threads.submit(int)
    threads.shutdown()


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """Python waits for every thread of a ThreadPoolExecutor."""
    program = (
        "import threading\n"
        "from actors.daemon_threads import DaemonThreads\n"
        "threads = DaemonThreads(1, 'work')\n"
        "threads.submit(threading.Event().wait)\n"
        "threads.shutdown(wait=False, cancel_futures=True)\n"
    )
    here = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=here, timeout=30, check=True)
