"""Which process owns a detector's name: claims in the cluster's key-value store."""

from __future__ import annotations

import time

from cluster.ray_internals import KeyValueStore


class Epochs:
    """The owners of one detector's name, newest last, as claims in the store.

    Args:
        name: of the detector.
        namespace: Ray's, that the name belongs to.
        store: of the cluster.
    """

    def __init__(self, name: str, namespace: str, store: KeyValueStore) -> None:
        self._store = store
        self._prefix = f"owner/{namespace}/{name}/"

    def read_epoch(self) -> int:
        """The newest owner's epoch; 0 if there was none, as at a head that lost its tables."""
        return max(self._epochs(), default=0)

    def take_epoch(self, incarnation: str) -> int:
        """Claim an epoch that is greater than every earlier one, and that nobody else has.

        It is at least the time in milliseconds since 1970: a head that lost its tables would else begin again
        at 1, and owners with greater epochs may still be answering.
        """
        epoch = max(self.read_epoch() + 1, int(time.time() * 1000))
        # Each claim is a key of its own, which only one process can be the first to write.
        while not self._store.put(self._key(epoch), incarnation.encode(), overwrite=False):
            epoch += 1
        for earlier in self._epochs():
            if earlier < epoch:
                self._store.delete(self._key(earlier))
        return epoch

    def _epochs(self) -> list[int]:
        return [int(key.removeprefix(self._prefix)) for key in self._store.keys(self._prefix)]

    def _key(self, epoch: int) -> str:
        return f"{self._prefix}{epoch}"
