"""stub until the full one lands"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Heads = Mapping[str, NDArray[np.float32]]


class HeadsNotFinite(ArithmeticError): ...


@dataclass(frozen=True, slots=True)
class Candidates:
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]


def decode_centerface(heads, height, width, score_threshold):
    out = []
    for heat, scale, off, lm in zip(heads["heat"], heads["scale"], heads["offset"], heads["landmarks"]):
        y, x = np.nonzero(heat[0] > score_threshold)
        s = heat[0][y, x]
        bh = 4 * np.exp(scale[0, y, x])
        bw = 4 * np.exp(scale[1, y, x])
        x1 = np.clip((x + off[1, y, x] + 0.5) * 4 - bw / 2, 0, width)
        y1 = np.clip((y + off[0, y, x] + 0.5) * 4 - bh / 2, 0, height)
        b = np.stack([x1, y1, np.minimum(x1 + bw, width), np.minimum(y1 + bh, height)], 1)
        l = np.stack(
            [np.stack([lm[2 * j + 1, y, x] * bw + x1, lm[2 * j, y, x] * bh + y1], 1) for j in range(5)], 1
        )
        o = np.argsort(-s)
        out.append(Candidates(b[o], s[o], l[o]))
    return out


def nms(c, t, n):
    keep = []
    b = c.boxes
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    for i in range(len(b)):
        ok = True
        for k in keep:
            w = min(b[i, 2], b[k, 2]) - max(b[i, 0], b[k, 0])
            h = min(b[i, 3], b[k, 3]) - max(b[i, 1], b[k, 1])
            if w > 0 and h > 0 and w * h / (area[i] + area[k] - w * h) > t:
                ok = False
                break
        if ok:
            keep.append(i)
    keep = keep[:n]
    return Candidates(b[keep], c.scores[keep], c.landmarks[keep])
