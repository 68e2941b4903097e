"""A backend under chaos: asks for numbered photos and writes down their outcomes.

    python -m tests.chaos.caller FILE interactive|bulk SECONDS FIRST_NUMBER

It writes one JSON object for each photo, and ends when the time is up and every photo has an outcome.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

from actors.faces import Detected, Outcome
from cluster import FaceClient, load_settings
from tests.chaos.photos import is_right, photo

INTERACTIVE_DEADLINE_S = 10.0
#: Faults last seconds, so a scan that is not answered by then would never be answered.
_BULK_DEADLINE_S = 60.0
_PAUSE_S = 0.05


def right_time() -> float:
    """Seconds since 1970, also where a test has set `time.time` to another time."""
    return time.clock_gettime(time.CLOCK_REALTIME)


class Notebook:
    """The file in which a caller writes outcomes down."""

    def __init__(self, out: IO[str], priority: str) -> None:
        self._out = out
        self._priority = priority
        self.num_asked = 0

    def note(self, number: int, asked: float, outcome: Outcome) -> None:
        """Write down one photo's outcome."""
        row: dict[str, Any] = {
            "number": number,
            "priority": self._priority,
            "asked": asked,
            "answered": right_time(),
            "status": outcome.status,
            "reason": str(getattr(outcome, "reason", "")),
            "detail": getattr(outcome, "detail", ""),
            "num_faces": len(outcome.faces) if isinstance(outcome, Detected) else None,
            "right": is_right(number, outcome),
            "fallback": outcome.stamp.fallback,
            "incarnation": outcome.stamp.incarnation,
        }
        self._out.write(json.dumps(row) + "\n")
        self._out.flush()


async def _interactive(client: FaceClient, notebook: Notebook, until: float, first: int) -> None:
    number = first
    while time.monotonic() < until:
        asked = right_time()
        notebook.num_asked += 1
        (outcome,) = await client.detect([photo(number)], deadline_s=INTERACTIVE_DEADLINE_S)
        notebook.note(number, asked, outcome)
        number += 1
        await asyncio.sleep(_PAUSE_S)


async def _bulk(client: FaceClient, notebook: Notebook, until: float, first: int) -> None:
    asked: deque[tuple[int, float]] = deque()

    async def photos() -> AsyncIterator[bytes]:
        number = first
        while time.monotonic() < until:
            asked.append((number, right_time()))
            notebook.num_asked += 1
            yield photo(number)
            number += 1
            # The scan pauses, so that it does not take both cores of a small machine for itself.
            await asyncio.sleep(0.01)

    async for outcome in client.stream(photos(), priority="bulk", deadline_s=_BULK_DEADLINE_S):
        number, at = asked.popleft()
        notebook.note(number, at, outcome)


async def _call(file: Path, priority: str, seconds: float, first: int) -> None:
    async with await FaceClient.connect(load_settings(), wait=False) as client:
        with file.open("w") as out:
            notebook = Notebook(out, priority)
            # The load starts when a detector is there: the run measures faults, not the start.
            while not any(each.state == "ready" for each in client.status().detectors):
                await asyncio.sleep(0.2)
            until = time.monotonic() + seconds
            ask = _interactive if priority == "interactive" else _bulk
            await ask(client, notebook, until, first)
        last = {"num_asked": notebook.num_asked, "status": client.status().as_dict()}
        file.with_suffix(".last").write_text(json.dumps(last))


def main() -> None:
    """See the module."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    file, priority, seconds, first = sys.argv[1:]
    asyncio.run(_call(Path(file), priority, float(seconds), int(first)))


if __name__ == "__main__":
    main()
