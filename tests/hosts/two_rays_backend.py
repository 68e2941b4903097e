"""A backend that asks for photos all the time, and also runs a Ray of its own: `python -m … FILE SECONDS`.

It writes one JSON object for each photo: when it asked (seconds since 1970), how long it took, the outcome,
and the answer of the actor in the backend's own Ray.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import ray

from cluster import BlockingFaceClient
from tests.conftest import PHOTOS

_DEADLINE_S = 5.0


@ray.remote
class Counter:
    """An actor of the backend's own Ray."""

    def __init__(self) -> None:
        self._num = 0

    def count(self) -> int:
        """Count one more call, and return how many there were."""
        self._num += 1
        return self._num


def main(file: Path, seconds: float) -> None:
    """Ask until the time is up; a failure does not end it."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    counter = Counter.remote()  # type: ignore[attr-defined]  # ray.remote adds `remote`
    large = ray.put(b"x" * 20_000_000)
    photo = (PHOTOS / "montage_faces.jpg").read_bytes()
    with BlockingFaceClient(wait=False) as client, file.open("w") as out:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            asked, begun = time.time(), time.monotonic()
            outcome = client.detect([photo], deadline_s=_DEADLINE_S)[0]
            took_s = time.monotonic() - begun
            row = outcome.as_dict()
            row = {
                "asked": asked,
                "took_s": took_s,
                "status": row["status"],
                "reason": row["reason"],
                "detail": row["detail"],
                "num_faces": len(row["faces"] or ()),
                "incarnation": outcome.stamp.incarnation,
                "pid": os.getpid(),
                "counted": ray.get(counter.count.remote(), timeout=5),
                "large": len(ray.get(large, timeout=5)),
            }
            out.write(json.dumps(row) + "\n")
            out.flush()
            time.sleep(0.3)
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
