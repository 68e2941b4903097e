"""The detector of every peer: cv2, ONNX Runtime, and our own decoding of the heads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.decoding import nms
from actors.families import FAMILIES

GRAPH_VARIABLE = "RAYFACE_TEST_GRAPH"
FAMILY_VARIABLE = "RAYFACE_TEST_FAMILY"
#: The tensors that our detector takes too: square, landscape and portrait.
_SHAPES = ((640, 640), (480, 640), (640, 480))
MAX_BATCH = 8

Tensor = np.ndarray[Any, np.dtype[np.uint8]]


class PeerModel:
    """One session; the variables name its graph and its family."""

    def __init__(self) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        # As many sessions as cores are at work.
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ[GRAPH_VARIABLE], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._family = FAMILIES[os.environ[FAMILY_VARIABLE]]

    def decode(self, photo: bytes) -> Tensor:
        """A JPEG → its tensor, uint8[h, w, 3]."""
        import cv2

        pixels = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError("no image")
        return self.shrink(np.asarray(pixels, dtype=np.uint8))

    def shrink(self, pixels: Tensor) -> Tensor:
        """BGR pixels → their tensor, uint8[h, w, 3]."""
        import cv2

        height, width = pixels.shape[:2]
        # The largest scale; of two shapes that allow it, the smaller one.
        scale, _, shape = max((min(h / height, w / width), -h * w, (h, w)) for h, w in _SHAPES)
        small_w, small_h = round(width * scale), round(height * scale)
        tensor = np.zeros((*shape, 3), dtype=np.uint8)
        small = cv2.resize(pixels, (small_w, small_h), interpolation=cv2.INTER_AREA)
        tensor[:small_h, :small_w] = small
        return tensor

    def detect(self, tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        """The faces of each image, in pixels of its tensor."""
        found: list[dict[str, Any]] = [{} for _ in tensors]
        for shape in {each.shape for each in tensors}:
            places = [place for place, each in enumerate(tensors) if each.shape == shape]
            values = self._session.run(
                self._outputs, {self._input: np.stack([tensors[place] for place in places])}
            )
            heads = {
                name.removeprefix("head_"): value for name, value in zip(self._outputs, values, strict=True)
            }
            answers = self._family.decode(heads, shape[0], shape[1], self._family.score_threshold)
            for place, candidates in zip(places, answers, strict=True):
                kept = nms(candidates, self._family.nms_threshold, 1000)
                found[place] = {"boxes": kept.boxes.tolist(), "scores": kept.scores.tolist()}
        return found
