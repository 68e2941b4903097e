"""YuNet here against OpenCV's own reading of the same file on the same pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actors.decoding import Candidates, decode_yunet, nms
from actors.graph import prepare_graph
from actors.session import OnnxSessionOpener
from tests.pixels import read_pixels

SCORE, OVERLAP = 0.6, 0.3


def synthetic_yunet(path: Path) -> None:
    """A file with YuNet's twelve heads and random weights, its size fixed as in the published one."""
    random = np.random.default_rng(7)
    nodes, weights, outputs = [], [], []
    for stride in (8, 16, 32):
        for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{kind}_{stride}"
            kernel = random.normal(size=(channels, 3, stride, stride)).astype(np.float32) / (stride * 255)
            weights += [numpy_helper.from_array(kernel, f"{name}_w")]
            weights += [numpy_helper.from_array(np.array([1, -1, channels], dtype=np.int64), f"{name}_shape")]
            nodes += [
                helper.make_node("Conv", ["input", f"{name}_w"], [f"{name}_map"], strides=[stride, stride]),
                helper.make_node("Transpose", [f"{name}_map"], [f"{name}_last"], perm=[0, 2, 3, 1]),
            ]
            flat = name if kind in ("bbox", "kps") else f"{name}_flat"
            nodes.append(helper.make_node("Reshape", [f"{name}_last", f"{name}_shape"], [flat]))
            if flat != name:
                nodes.append(helper.make_node("Sigmoid", [flat], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, channels]))
    photo = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 320, 320])
    graph = helper.make_graph(nodes, "yunet", [photo], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, str(path))


def ours(path: Path, folder: Path, pixels: np.ndarray[Any, Any]) -> Candidates:
    prepared = folder / "prepared.onnx"
    prepare_graph(path, prepared)
    # Two images in a run: the published graph takes one, ours any number.
    heads = OnnxSessionOpener("cpu").open(prepared, None).run(np.stack([pixels, pixels]))
    height, width = pixels.shape[:2]
    first, second = decode_yunet(heads, height, width, SCORE)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    return nms(first, OVERLAP, 1000)


def opencvs(path: Path, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    size = (pixels.shape[1], pixels.shape[0])
    detector = cv2.FaceDetectorYN.create(str(path), "", size, SCORE, OVERLAP, 5000)
    # OpenCV's types do not say that no face at all is None.
    found: np.ndarray[Any, Any] | None = detector.detect(pixels)[1]
    return np.zeros((0, 15)) if found is None else np.asarray(found)


def compare(path: Path, folder: Path, pixels: np.ndarray[Any, Any]) -> int:
    mine, theirs = ours(path, folder, pixels), opencvs(path, pixels)
    assert len(mine.scores) == len(theirs)
    order = np.argsort(-theirs[:, 14], kind="stable")
    theirs = theirs[order]
    np.testing.assert_allclose(mine.scores, theirs[:, 14], atol=1e-3)
    corners = np.concatenate([theirs[:, :2], theirs[:, :2] + theirs[:, 2:4]], axis=1)
    np.testing.assert_allclose(mine.boxes, corners, atol=1.0)
    np.testing.assert_allclose(mine.landmarks.reshape(-1, 10), theirs[:, 4:14], atol=1.0)
    return len(theirs)


@pytest.fixture
def pixels(photos: Path) -> np.ndarray[Any, Any]:
    photo = read_pixels(photos / "astronaut.jpg")
    return np.asarray(cv2.resize(photo, (320, 320), interpolation=cv2.INTER_AREA))


def test_same_as_opencv_on_a_file_with_yunets_heads(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """Same boxes within 1 px, same landmarks and scores; the weights are random, the decode is not."""
    path = tmp_path / "yunet.onnx"
    synthetic_yunet(path)
    assert compare(path, tmp_path, pixels) > 5


@pytest.mark.skipif(
    "RAYFACE_TEST_YUNET" not in os.environ, reason="RAYFACE_TEST_YUNET names no real YuNet file"
)
def test_same_as_opencv_on_a_real_file(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """With published weights: the astronaut's one face."""
    assert compare(Path(os.environ["RAYFACE_TEST_YUNET"]), tmp_path, pixels) == 1
