"""The guards of the unit tests in conftest.py: each fault that they look for fails the test that has it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

#: One test for each guard, and one that is well.
_PLANTED = """
import asyncio, threading, time

def test_well():
    asyncio.run(asyncio.sleep(0))

def test_task():
    async def fails():
        raise OSError("nobody looks")
    async def begins():
        asyncio.create_task(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    asyncio.run(begins())

def test_future():
    async def begins():
        asyncio.get_running_loop().create_future().set_exception(OSError("nobody looks"))
    asyncio.run(begins())

def test_callback():
    async def begins():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
    asyncio.run(begins())

def test_thread():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

def test_finalizer():
    class Ends:
        def __del__(self):
            raise OSError("nobody looks")
    Ends()

def test_open_file():
    open(__file__)

def test_sleep():
    time.sleep(0.001)

def test_asyncio_sleep():
    asyncio.run(asyncio.sleep(0.05))

def test_event():
    threading.Event().wait(0.05)
"""


def test_each_guard_fails_the_test_that_breaks_it(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_planted.py").write_text(_PLANTED, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)], capture_output=True, text=True, check=False
    )
    planted = set(re.findall(r"def (test_\w+)", _PLANTED))
    caught = set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
    assert caught == planted - {"test_well"}, done.stdout
