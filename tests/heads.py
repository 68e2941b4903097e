"""Random heads of each family, for tests of what is made from them."""

from __future__ import annotations

from typing import Any

import numpy as np

Heads = dict[str, np.ndarray[Any, Any]]
FAMILY_NAMES = ("centerface", "yunet", "scrfd", "retinaface")


def random_heads(family: str, height: int, width: int, batch: int, seed: int = 1) -> Heads:
    """Plain heads, as of a network that sees faces here and there."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return random.normal(size=(batch, *shape)).astype(np.float32)

    def score(*shape: int) -> np.ndarray[Any, Any]:
        return random.random((batch, *shape), dtype=np.float32) ** 4

    if family == "centerface":
        h, w = height // 4, width // 4
        return {
            "heat": score(1, h, w),
            "scale": normal(2, h, w),
            "offset": score(2, h, w),
            "landmarks": score(10, h, w),
        }
    cells = {s: (height // s) * (width // s) for s in (8, 16, 32)}
    if family == "retinaface":
        anchors = 2 * sum(cells.values())
        return {"loc": normal(anchors, 4), "conf": score(anchors, 2), "landmarks": normal(anchors, 10)}
    heads: Heads = {}
    for s, num in cells.items():
        anchors = num * (2 if family == "scrfd" else 1)
        heads |= {f"bbox_{s}": normal(anchors, 4), f"kps_{s}": normal(anchors, 10)}
        names = ["score"] if family == "scrfd" else ["cls", "obj"]
        heads |= {f"{name}_{s}": score(anchors, 1) for name in names}
    return heads
