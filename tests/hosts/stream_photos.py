"""A backend that asks for one photo after another and writes each outcome down: `python -m … FILE SECONDS`.

It writes one JSON object for each photo: when it asked (seconds since 1970), how long it took, the outcome.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cluster import BlockingFaceClient
from tests.conftest import PHOTOS

_DEADLINE_S = 20.0


def main(file: Path, seconds: float) -> None:
    """Ask until the time is up; a failure does not end it."""
    photo = (PHOTOS / "montage_faces.jpg").read_bytes()
    with BlockingFaceClient() as client, file.open("w") as out:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            asked, begun = time.time(), time.monotonic()
            outcome = client.detect([photo], deadline_s=_DEADLINE_S)[0]
            row = outcome.as_dict()
            row = {
                "asked": asked,
                "took_s": time.monotonic() - begun,
                "status": row["status"],
                "reason": row["reason"],
                "num_faces": len(row["faces"] or ()),
                "incarnation": outcome.stamp.incarnation,
            }
            out.write(json.dumps(row) + "\n")
            out.flush()
            time.sleep(0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
