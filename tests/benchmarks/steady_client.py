"""A backend of the soak: asks for one photo after another at a steady rate, until it is ended.

python -m tests.benchmarks.steady_client CALLS_PER_S
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from pathlib import Path

from cluster import FaceClient, load_settings

PHOTOS = Path(__file__).parents[1] / "photos"
_DEADLINE_S = 20.0
_TELL_EVERY_S = 20.0


async def _ask(calls_per_s: float) -> None:
    loop = asyncio.get_running_loop()
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    answers: Counter[str] = Counter()
    # The machine with the GPU may still be joining.
    async with await FaceClient.connect(load_settings(), wait=False) as client:
        while not any(each.state == "ready" for each in client.status().detectors):
            await asyncio.sleep(0.2)
        begun = told = loop.time()
        for number in itertools.count():
            # What a slow answer has cost is not caught up: that would be a burst, and no steady load.
            begun = max(begun + 1 / calls_per_s, loop.time() - 1 / calls_per_s)
            await asyncio.sleep(begun - loop.time())
            (outcome,) = await client.detect([photos[number % len(photos)]], deadline_s=_DEADLINE_S)
            answers[str(getattr(outcome, "reason", outcome.status))] += 1
            if loop.time() - told > _TELL_EVERY_S:
                told = loop.time()
                print(dict(answers), flush=True)


if __name__ == "__main__":
    asyncio.run(_ask(float(sys.argv[1])))
