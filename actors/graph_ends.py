"""Appends the ends of a prepared graph: the best candidates of each image. Large heads stay on the device.

Only this module and `graph` use the onnx package. The plain heads of an image of 640 x 640 pixels are 1.5 MB
(CenterFace) or 0.5 MB (YuNet). What leaves the device instead is 66 KB or 131 KB: the best candidates, and a
few sums that show whether the heads were finite and alive.

All nodes have DirectML kernels. With fixed dimensions, onnxruntime-directml 1.24.4 makes one node of the
whole graph and leaves none to the CPU. How many candidates leave depends on the number of anchors. ONNX
Runtime computes it when it opens a session with fixed dimensions; with free ones on the CPU, in each run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actors.heads import CHECK, STRIDES, TOP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

#: From this version of the operators on, Min takes whole numbers; GatherElements and TopK are older.
LEAST_OPSET = 12

#: The most candidates of an image that leave the device: with CenterFace, and with the other families. A face
#: has several, 3 to 5 on photos of WIDER FACE. CenterFace needs fewer in all, because its peaks go first.
_MAX_CELLS, _MAX_ANCHORS = 1024, 2048
#: Peaks of the heat map below this score do not go first: noise makes thousands of them.
_LEAST_PEAK = 0.1


def append_ends(graph: onnx.GraphProto, family: str, heads: Mapping[str, str], opset: int) -> dict[str, str]:
    """Append the nodes to `graph`; its outputs stay as they are.

        top      float32[batch, K, 16]: score, index of the anchor, four numbers of the box and ten of the
                 landmarks, as the heads hold them; their order is not defined
        check    float32[batch, 3 H + 1]: the sum of each of the H heads, the maximum of each, the minimum of
                 each, and the greatest score

    YuNet, SCRFD and RetinaFace: the K best anchors. Suppression (`decoding.nms`) goes by the score. So these
    anchors give the faces that all anchors give, or the best of them where more than K reach the threshold.

    CenterFace: first the peaks of the heat map (no neighbour is greater, and the score is at least 0.1), then
    the other cells by their score. The faces are those of all cells, as long as the peaks and the cells that
    reach the threshold are together not more than K. Peaks alone would lose faces: of two that stand close to
    each other, one may have no peak of its own.

    The device knows no threshold, so a caller with a lower one takes nothing from the others in its batch. Of
    100 photos of WIDER FACE and a picture of noise, none has too many candidates for K at a threshold of 0.2
    or more; at 0.1, CenterFace has in 6 of them, which lose cells that are no peaks.

    A sum of numbers is not finite if one of them is not; a maximum may ignore NaN.

    Args:
        graph: a graph whose batch, height and width are free.
        family: name of the family.
        heads: the name in the graph of each head, by the head's name.
        opset: version of the graph's operators, at least `LEAST_OPSET`.

    Returns:
        The names in the graph of the two new values, by "top" and "check".
    """
    ends = _Ends(graph, heads, opset)
    build = {
        "centerface": _centerface,
        "yunet": _yunet,
        "scrfd": _scrfd,
        "retinaface": _retinaface,
    }[family]
    top, scores = build(ends)
    return {TOP: top, CHECK: _check(ends, scores)}


class _Ends:
    """Appends nodes with names of their own."""

    def __init__(self, graph: onnx.GraphProto, heads: Mapping[str, str], opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._num_nodes = 0
        self.heads = heads

    def node(self, op: str, *inputs: str, num_outputs: int = 1, **attributes: Any) -> str:
        """Append a node; returns the name of its last output."""
        from onnx import helper

        self._num_nodes += 1
        made = [f"ends_{self._num_nodes}_{number}" for number in range(num_outputs)]
        self._graph.node.append(helper.make_node(op, list(inputs), made, **attributes))
        return made[-1]

    def constant(self, values: Sequence[int] | float) -> str:
        """Add a constant: whole numbers as int64, or one float32."""
        from onnx import numpy_helper

        kind = np.float32 if isinstance(values, float) else np.int64
        name = f"ends_constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=kind), name))
        return name

    def shaped(self, value: str, *shape: int) -> str:
        """Reshape; 0 keeps a dimension, -1 takes what is left."""
        return self.node("Reshape", value, self.constant(shape))

    def reduced(self, op: str, value: str) -> str:
        """[batch, n] → [batch, 1]. From some version on, each operator takes its axes as an input."""
        if self._opset >= {"ReduceSum": 13, "ReduceMax": 18, "ReduceMin": 18}[op]:
            return self.node(op, value, self.constant([1]), keepdims=1)
        return self.node(op, value, axes=[1], keepdims=1)

    def greatest(self, keys: str, max_kept: int) -> str:
        """Indices of the K greatest of each image: float32[batch, A] → int64[batch, K]."""
        num_anchors = self.node("Gather", self.node("Shape", keys), self.constant([1]))
        most = self.node("Min", num_anchors, self.constant([max_kept]))
        return self.node("TopK", keys, most, num_outputs=2, axis=1)

    def picked(self, value: str, index: str, num_columns: int, axis: int) -> str:
        """The numbers at `index` of each column; columns are along the last axis, or before the last one."""
        columns = self.node("Concat", *[index] * num_columns, axis=3 - axis)
        return self.node("GatherElements", value, columns, axis=axis)

    def in_zero_to_one(self, value: str) -> str:
        """Cut at 0 and at 1."""
        return self.node("Clip", value, self.constant(0.0), self.constant(1.0))

    def of_all_strides(self, kind: str) -> str:
        """The heads of one kind, [batch, A, columns] each, joined along the anchors."""
        return self.node("Concat", *[self.heads[f"{kind}_{stride}"] for stride in STRIDES], axis=1)


def _centerface(ends: _Ends) -> tuple[str, str]:
    from onnx import TensorProto

    heat = ends.heads["heat"]
    around = ends.node("MaxPool", heat, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    bar = ends.node("Max", around, ends.constant(_LEAST_PEAK))
    # Scores are in 0..1. Less 1, the cells below the bar come after all peaks, and keep their order.
    below = ends.node("Cast", ends.node("Greater", bar, heat), to=TensorProto.FLOAT)
    keys = ends.shaped(ends.node("Sub", heat, below), 0, -1)
    scores = ends.shaped(heat, 0, -1)
    index = ends.greatest(keys, _MAX_CELLS)
    column = ends.shaped(index, 0, 1, -1)
    parts = [
        ends.shaped(ends.node("GatherElements", scores, index, axis=1), 0, 1, -1),
        ends.node("Cast", column, to=TensorProto.FLOAT),
    ]
    for name, num_columns in (("scale", 2), ("offset", 2), ("landmarks", 10)):
        flat = ends.shaped(ends.heads[name], 0, num_columns, -1)
        parts.append(ends.picked(flat, column, num_columns, axis=2))
    return ends.node("Transpose", ends.node("Concat", *parts, axis=1), perm=[0, 2, 1]), scores


def _yunet(ends: _Ends) -> tuple[str, str]:
    # The decoder takes the square root of the product. The root does not change the order.
    scores = ends.node("Mul", *[ends.in_zero_to_one(ends.of_all_strides(kind)) for kind in ("cls", "obj")])
    return _anchors(ends, scores, ends.of_all_strides("bbox"), ends.of_all_strides("kps"))


def _scrfd(ends: _Ends) -> tuple[str, str]:
    return _anchors(ends, *[ends.of_all_strides(kind) for kind in ("score", "bbox", "kps")])


def _retinaface(ends: _Ends) -> tuple[str, str]:
    of_a_face = ends.node("Gather", ends.heads["conf"], ends.constant([1]), axis=2)
    return _anchors(ends, of_a_face, ends.heads["loc"], ends.heads["landmarks"])


def _anchors(ends: _Ends, scores: str, boxes: str, points: str) -> tuple[str, str]:
    """[batch, A, 1], [batch, A, 4] and [batch, A, 10] → the rows of the best anchors, and all scores flat."""
    from onnx import TensorProto

    flat = ends.shaped(scores, 0, -1)
    row = ends.shaped(ends.greatest(flat, _MAX_ANCHORS), 0, -1, 1)
    parts = [
        ends.picked(scores, row, 1, axis=1),
        ends.node("Cast", row, to=TensorProto.FLOAT),
        ends.picked(boxes, row, 4, axis=1),
        ends.picked(points, row, 10, axis=1),
    ]
    return ends.node("Concat", *parts, axis=2), flat


def _check(ends: _Ends, scores: str) -> str:
    flat = [ends.shaped(head, 0, -1) for head in ends.heads.values()]
    reduced = [ends.reduced(op, head) for op in ("ReduceSum", "ReduceMax", "ReduceMin") for head in flat]
    return ends.node("Concat", *reduced, ends.reduced("ReduceMax", scores), axis=1)
