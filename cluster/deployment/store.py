"""What we keep in the cluster's own key-value store: which process owns a detector's name."""

from __future__ import annotations

import time

_KV_NAMESPACE = b"rayface"
_CALL_TIMEOUT_S = 2.0


class Epochs:
    """The owners of one detector's name, newest last, as claims in the store."""

    def __init__(self, name: str, namespace: str) -> None:
        from ray.experimental.internal_kv import internal_kv_get_gcs_client

        self._client = internal_kv_get_gcs_client()
        self._prefix = f"owner/{namespace}/{name}/".encode()

    def read_epoch(self) -> int:
        """Of the newest owner; 0 if there was none, as after a head that lost its memory."""
        claims = self._client.internal_kv_keys(self._prefix, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S)
        return max((int(claim.removeprefix(self._prefix)) for claim in claims), default=0)

    def take_epoch(self, incarnation: str) -> int:
        """An epoch greater than every earlier one, and nobody else's.

        Milliseconds since 1970 where nothing greater is kept, so that a head that lost its memory does not
        begin again at 1, behind owners whose answers are still on their way.
        """
        epoch = max(self.read_epoch() + 1, int(time.time() * 1000))
        # Each claim is a key of its own, which only one process can be the first to write.
        while not self._claim(epoch, incarnation):
            epoch += 1
        for claim in self._client.internal_kv_keys(self._prefix, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S):
            if int(claim.removeprefix(self._prefix)) < epoch:
                self._client.internal_kv_del(claim, False, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S)
        return epoch

    def _claim(self, epoch: int, incarnation: str) -> bool:
        key, value = self._prefix + str(epoch).encode(), incarnation.encode()
        num_added = self._client.internal_kv_put(key, value, False, _KV_NAMESPACE, timeout=_CALL_TIMEOUT_S)
        return int(num_added) == 1
