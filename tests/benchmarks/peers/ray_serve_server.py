"""Ray Serve: a deployment whose calls are batched by `@serve.batch`, with one replica a core.

See https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator, misc, attr-defined"
# The packages are in the peer's own environment.

from __future__ import annotations

import os
import sys
import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from tests.benchmarks.peers.model import MAX_BATCH, PeerModel


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0})
class Faces:
    """Batches the photos of many requests."""

    def __init__(self) -> None:
        self._model = PeerModel()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.01)
    async def detect(self, photos: list[bytes]) -> list[dict[str, Any]]:
        """The faces of each photo."""
        return self._model.detect([self._model.decode(photo) for photo in photos])

    async def __call__(self, request: Request) -> Any:
        """The faces of the photo in the body."""
        return await self.detect(await request.body())


if __name__ == "__main__":
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=os.environ["RAY_TMPDIR"],
        object_store_memory=256_000_000,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Faces.options(num_replicas=int(sys.argv[2])).bind())
    while os.getppid() != 1:
        time.sleep(1)
