"""BentoML: a service with adaptive batching, and one worker a core.

See https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator, misc"
# The packages are in the peer's own environment.

from __future__ import annotations

import os
import sys
from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from tests.benchmarks.peers.model import MAX_BATCH, PeerModel

WORKERS_VARIABLE = "RAYFACE_TEST_WORKERS"


@bentoml.service(workers=int(os.environ.get(WORKERS_VARIABLE, "1")), traffic={"timeout": 60})
class FaceService:
    """Gets images decoded by BentoML."""

    def __init__(self) -> None:
        self._model = PeerModel()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH)
    def detect(self, photos: list[Image]) -> list[dict[str, Any]]:
        """The faces of each photo."""
        pixels = [np.asarray(each.convert("RGB"))[:, :, ::-1] for each in photos]
        return self._model.detect([self._model.shrink(np.ascontiguousarray(each)) for each in pixels])


if __name__ == "__main__":
    os.environ[WORKERS_VARIABLE] = sys.argv[2]
    service = f"{__spec__.name}:FaceService"
    words = ["-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", sys.argv[1]]
    os.execv(sys.executable, [sys.executable, *words])
