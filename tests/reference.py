"""The published decodes, written again in plain loops: slow, and independent of `actors.decoding`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

Heads = dict[str, np.ndarray[Any, Any]]
Found = tuple[list[float], float, list[list[float]]]


def centerface(heads: Heads, height: int, width: int, threshold: float) -> list[Found]:
    """The first image's candidates, in the order of the map."""
    heat, scale, offset, marks = (heads[name][0] for name in ("heat", "scale", "offset", "landmarks"))
    found: list[Found] = []
    for y in range(heat.shape[1]):
        for x in range(heat.shape[2]):
            if heat[0, y, x] <= threshold:
                continue
            box_h, box_w = math.exp(scale[0, y, x]) * 4, math.exp(scale[1, y, x]) * 4
            x1 = min(max(0.0, (x + offset[1, y, x] + 0.5) * 4 - box_w / 2), width)
            y1 = min(max(0.0, (y + offset[0, y, x] + 0.5) * 4 - box_h / 2), height)
            points = [
                [marks[2 * j + 1, y, x] * box_w + x1, marks[2 * j, y, x] * box_h + y1] for j in range(5)
            ]
            box = [x1, y1, min(x1 + box_w, width), min(y1 + box_h, height)]
            found.append((box, float(heat[0, y, x]), points))
    return found


def yunet(heads: Heads, height: int, width: int, threshold: float) -> list[Found]:
    """The first image's candidates, stride by stride."""
    found: list[Found] = []
    for stride in (8, 16, 32):
        for row in range(height // stride):
            for column in range(width // stride):
                at = row * (width // stride) + column
                objectness = min(max(heads[f"obj_{stride}"][0, at, 0], 0), 1)
                score = math.sqrt(min(max(heads[f"cls_{stride}"][0, at, 0], 0), 1) * objectness)
                if score < threshold:
                    continue
                b, k = heads[f"bbox_{stride}"][0, at], heads[f"kps_{stride}"][0, at]
                cx, cy = (column + b[0]) * stride, (row + b[1]) * stride
                w, h = math.exp(b[2]) * stride, math.exp(b[3]) * stride
                points = [[(k[2 * j] + column) * stride, (k[2 * j + 1] + row) * stride] for j in range(5)]
                found.append(([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], score, points))
    return found


def scrfd(heads: Heads, height: int, width: int, threshold: float) -> list[Found]:
    """The first image's candidates, stride by stride, two for each cell."""
    found: list[Found] = []
    for stride in (8, 16, 32):
        at = 0
        for row in range(height // stride):
            for column in range(width // stride):
                for _ in range(2):
                    score = float(heads[f"score_{stride}"][0, at, 0])
                    d = heads[f"bbox_{stride}"][0, at] * stride
                    k = heads[f"kps_{stride}"][0, at] * stride
                    x, y = column * stride, row * stride
                    at += 1
                    if score >= threshold:
                        points = [[x + k[2 * j], y + k[2 * j + 1]] for j in range(5)]
                        found.append(([x - d[0], y - d[1], x + d[2], y + d[3]], score, points))
    return found


def retinaface(heads: Heads, height: int, width: int, threshold: float) -> list[Found]:
    """The first image's candidates; priors in 0..1, as the source has them."""
    found: list[Found] = []
    at = 0
    for stride, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                for size in sizes:
                    cx, cy = (column + 0.5) * stride / width, (row + 0.5) * stride / height
                    w, h = size / width, size / height
                    loc, score, k = (heads[n][0, at] for n in ("loc", "conf", "landmarks"))
                    at += 1
                    if score[1] < threshold:
                        continue
                    x, y = cx + loc[0] * 0.1 * w, cy + loc[1] * 0.1 * h
                    bw, bh = w * math.exp(loc[2] * 0.2), h * math.exp(loc[3] * 0.2)
                    points = [
                        [(cx + k[2 * j] * 0.1 * w) * width, (cy + k[2 * j + 1] * 0.1 * h) * height]
                        for j in range(5)
                    ]
                    box = [x - bw / 2, y - bh / 2, x + bw / 2, y + bh / 2]
                    found.append(
                        (
                            [box[0] * width, box[1] * height, box[2] * width, box[3] * height],
                            float(score[1]),
                            points,
                        )
                    )
    return found


def iou(one: list[float], other: list[float]) -> float:
    """Intersection over union."""
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return w * h / (areas[0] + areas[1] - w * h)


def nms(found: list[Found], threshold: float) -> list[Found]:
    """Greedy suppression, best score first."""
    kept: list[Found] = []
    for candidate in sorted(found, key=lambda each: -each[1]):
        if all(iou(candidate[0], each[0]) <= threshold for each in kept):
            kept.append(candidate)
    return kept


def centerface_on_photo(
    weights: Path, pixels: np.ndarray[Any, Any], size: int, threshold: float = 0.5
) -> list[Found]:
    """CenterFace as its authors run it: the published graph, a full-size photo, a square letterbox.

    Args:
        weights: the ONNX file as published; only its fixed dimensions are freed.
        pixels: uint8[height, width, 3] in BGR order, the whole photo.
        size: side of the square, in pixels.

    Returns:
        Faces in pixels of the photo.
    """
    import cv2
    import onnx
    import onnxruntime as ort

    model = onnx.load(str(weights))
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if axis != 1:
                dim.dim_param = f"{value.name}_{axis}"
    del model.graph.value_info[:]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    scale = min(size / pixels.shape[0], size / pixels.shape[1])
    small = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((size, size, 3), dtype=np.uint8)
    square[: small[1], : small[0]] = cv2.resize(pixels, small, interpolation=method)
    blob = square[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    outputs = session.run(["537", "538", "539", "540"], {session.get_inputs()[0].name: blob})
    heads = dict(zip(("heat", "scale", "offset", "landmarks"), outputs, strict=True))
    found = nms(centerface(heads, size, size, threshold), 0.3)
    x, y = pixels.shape[1] / small[0], pixels.shape[0] / small[1]
    return [
        ([b[0] * x, b[1] * y, b[2] * x, b[3] * y], score, [[px * x, py * y] for px, py in points])
        for b, score, points in found
    ]
