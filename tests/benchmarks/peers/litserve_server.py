"""LitServe: a LitAPI whose requests are batched, with one worker a core.

See https://lightning.ai/docs/litserve/features/batching.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator, misc, no-untyped-def"
# The packages are in the peer's own environment.

import sys
from typing import Any

import litserve as ls

from tests.benchmarks.peers.model import MAX_BATCH, PeerModel


class FaceAPI(ls.LitAPI):
    """Decodes requests one by one, and predicts a batch."""

    def setup(self, device: str) -> None:
        self._model = PeerModel()

    # Without an annotation, as in its documentation: LitServe reads it, and takes one for a field.
    def decode_request(self, request):
        return self._model.decode(request["photo"].file.read())

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, batch: list[Any]) -> list[dict[str, Any]]:
        return self._model.detect(batch)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = FaceAPI(max_batch_size=MAX_BATCH, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[2]), timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
