"""Ray's client of a head, as far as a `KeyValueStore` uses it; no Ray."""

from __future__ import annotations


class FakeHead:
    """Keeps what is written, by key; there is one namespace."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def internal_kv_keys(self, prefix: bytes, namespace: bytes, timeout: float) -> list[bytes]:
        return [key for key in self.kept if key.startswith(prefix)]

    def internal_kv_get(self, key: bytes, namespace: bytes, timeout: float) -> bytes | None:
        return self.kept.get(key)

    def internal_kv_put(
        self, key: bytes, value: bytes, overwrite: bool, namespace: bytes, timeout: float
    ) -> int:
        is_new = key not in self.kept
        if is_new or overwrite:
            self.kept[key] = value
        return int(is_new)

    def internal_kv_del(self, key: bytes, by_prefix: bool, namespace: bytes, timeout: float) -> int:
        return int(self.kept.pop(key, None) is not None)
