"""Backends beside the callers that do what a backend should not: `python -m tests.chaos.guests FILE WHAT …`.

asks FIRST          asks for one photo after the other, also while no detector is ready for it
many NUM FIRST      as many clients, each with a photo a second; their outcomes go to FILE
unread              asks for a stream, and reads none of its outcomes
dropped             asks for streams, and leaves each of them in the middle
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cluster import FaceClient, load_settings
from tests.chaos.caller import INTERACTIVE_DEADLINE_S, Notebook, right_time
from tests.chaos.photos import photo

#: Of one stream; more than a client or a detector holds at once.
_NUM_PHOTOS = 2000
_READ_BEFORE_LEAVING = 20
#: What one of many clients may ask for.
_NUMBERS_EACH = 10_000


async def _asks(file: Path, first: int) -> None:
    async with await FaceClient.connect(load_settings(), wait=False) as client:
        with file.open("w") as out:
            notebook = Notebook(out, "interactive")
            for number in itertools.count(first):
                asked = right_time()
                (outcome,) = await client.detect([photo(number)], deadline_s=INTERACTIVE_DEADLINE_S)
                notebook.note(number, asked, outcome)
                await asyncio.sleep(0.2)


async def _one_of_many(
    notebook: Notebook, first: int, is_over: asyncio.Event, connecting: asyncio.Semaphore
) -> None:
    async with connecting:
        client = await FaceClient.connect(load_settings(), wait=False)
    async with client:
        for number in itertools.count(first):
            if is_over.is_set():
                return
            asked = right_time()
            notebook.num_asked += 1
            (outcome,) = await client.detect([photo(number)], deadline_s=INTERACTIVE_DEADLINE_S)
            notebook.note(number, asked, outcome)
            await asyncio.sleep(1.0)


async def _many(file: Path, num: int, first: int) -> None:
    is_over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, is_over.set)
    connecting = asyncio.Semaphore(4)
    with file.open("w") as out:
        notebook = Notebook(out, "interactive")
        async with asyncio.TaskGroup() as tasks:
            for number in range(num):
                tasks.create_task(_one_of_many(notebook, first + number * _NUMBERS_EACH, is_over, connecting))
    file.with_suffix(".last").write_text(json.dumps({"num_asked": notebook.num_asked}))


def _photos() -> Iterator[bytes]:
    return (photo(number) for number in range(_NUM_PHOTOS))


async def _unread() -> None:
    async with await FaceClient.connect(load_settings(), wait=False) as client:
        async for _ in client.stream(_photos(), priority="bulk", deadline_s=60.0):
            print("The stream has an outcome.", flush=True)
            await asyncio.Event().wait()


async def _dropped() -> None:
    async with await FaceClient.connect(load_settings(), wait=False) as client:
        while True:
            stream = client.stream(_photos(), priority="bulk", deadline_s=60.0)
            for _ in range(_READ_BEFORE_LEAVING):
                await anext(stream)
            print("The stream has an outcome.", flush=True)
            await stream.aclose()


def main() -> None:
    """See the module."""
    file, what, *numbers = sys.argv[1:]
    if what == "many":
        asyncio.run(_many(Path(file), *map(int, numbers)))
    elif what == "asks":
        asyncio.run(_asks(Path(file), *map(int, numbers)))
    else:
        asyncio.run({"unread": _unread, "dropped": _dropped}[what]())


if __name__ == "__main__":
    main()
