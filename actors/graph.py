"""Makes the graph that rayface runs from a published ONNX file: uint8 photos in, any batch, any size.

With `graph_ends` the only user of the onnx package, which is slow to import. A prepared graph is kept and not
made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.errors import ModelUnavailable
from actors.families import Family, identify
from actors.graph_ends import LEAST_OPSET, append_ends
from actors.heads import CHECK, TOP

if TYPE_CHECKING:
    import onnx

#: Version of this recipe. Raise it when the prepared graph changes, so that kept ones are made again.
RECIPE = 3

INPUT_NAME = "photos"


def recognise_file(path: Path) -> tuple[Family, dict[str, str]]:
    """The family of an ONNX file, and the output of each head by the head's name.

    Raises:
        ModelUnavailable: the file is no ONNX file, or of no known family.
    """
    return _recognise(_load(path), path.name)


def prepare_graph(source: Path, target: Path, *, with_ends: bool = True) -> None:
    """Write the graph that `session` opens, from the published file `source` into `target`.

    Its input is `photos`, uint8[batch, height, width, 3] in BGR order; the cast, the change to channels
    first, the swap to the network's own colour order and its mean and scale are part of the graph.

    Its outputs are those of `graph_ends.append_ends`. They are the family's plain heads, with the family's
    canonical names, where `with_ends` is false and where the ends cannot be appended: heads without a batch
    axis, or operators so old that the onnx package cannot bring them to version `LEAST_OPSET`.

    Raises:
        ModelUnavailable: the file is no ONNX file, or of no known family.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = _load(source)
    family, names = _recognise(model, source.name)
    if with_ends:
        with_ends = all(len(output.type.tensor_type.shape.dim) > 2 for output in model.graph.output)
    if with_ends and _opset(model) < LEAST_OPSET:
        model, with_ends = _with_newer_operators(model)
    graph = model.graph
    photo = _photo_input(model)

    del graph.value_info[:]
    _free_batch_in_reshapes(graph)
    num_axes = {output.name: len(output.type.tensor_type.shape.dim) for output in graph.output}
    if with_ends:
        names = append_ends(graph, family.name, names, _opset(model))
        num_axes = {names[TOP]: 3, names[CHECK]: 2}
    del graph.output[:]
    for head, name in names.items():
        graph.node.append(helper.make_node("Identity", [name], [f"head_{head}"]))
        sizes = [None] * num_axes[name]
        graph.output.append(helper.make_tensor_value_info(f"head_{head}", TensorProto.FLOAT, sizes))

    front = [
        helper.make_node("Cast", [INPUT_NAME], ["photos_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["photos_float"], ["photos_nchw"], perm=[0, 3, 1, 2]),
    ]
    last = "photos_nchw"

    def append(
        op: str, constant: np.ndarray[tuple[int, ...], np.dtype[np.generic]], **attributes: Any
    ) -> None:
        nonlocal last
        name, made = f"photos_{op.lower()}_by", f"photos_{op.lower()}"
        graph.initializer.append(numpy_helper.from_array(constant, name))
        front.append(helper.make_node(op, [last, name], [made], **attributes))
        last = made

    if family.colour == "rgb" and not _swap_in_first_conv(graph, photo.name):
        append("Gather", np.array([2, 1, 0], dtype=np.int64), axis=1)
    swapped_in_conv = family.colour == "rgb" and last == "photos_nchw"
    mean = np.array(family.mean[::-1] if swapped_in_conv else family.mean, dtype=np.float32)
    if mean.any():
        append("Sub", mean.reshape(1, 3, 1, 1))
    if family.scale != 1.0:
        append("Mul", np.array(family.scale, dtype=np.float32))

    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == photo.name:
                node.input[index] = last
    for node in reversed(front):
        graph.node.insert(0, node)
    graph.input.remove(photo)
    graph.input.insert(
        0, helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", "height", "width", 3])
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _opset(model: onnx.ModelProto) -> int:
    """The version of the model's operators; those of other makers do not count."""
    return max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1)


def _with_newer_operators(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """The model with operators of version `LEAST_OPSET`; or the same model, and False."""
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, LEAST_OPSET), True
    except Exception:
        # The converter raises whatever its C++ code throws, as for an operator that it does not know.
        return model, False


def _load(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path))
    except (OSError, DecodeError, ValueError) as error:
        raise ModelUnavailable(
            f"{path.name} cannot be read as an ONNX file ({error}). Give the path of an .onnx file."
        ) from error
    if not model.graph.node:
        raise ModelUnavailable(f"{path.name} holds no network. Give the path of an .onnx file.")
    return model


def _recognise(model: onnx.ModelProto, name: str) -> tuple[Family, dict[str, str]]:
    outputs = [
        (
            output.name,
            tuple(dim.dim_value or dim.dim_param or None for dim in output.type.tensor_type.shape.dim),
        )
        for output in model.graph.output
    ]
    found = identify(outputs)
    if found is None:
        raise ModelUnavailable(
            f"{name} belongs to no known family: its outputs are {[name for name, _ in outputs]}. "
            "Give a network of CenterFace, YuNet, SCRFD (with landmarks) or RetinaFace."
        )
    return found


def _photo_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The input of the photos; old files list their weights as inputs too."""
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelUnavailable(
            f"A detector needs a network with one input; this file has {len(inputs)}. Give another file."
        )
    for value in list(model.graph.input):
        if value.name in weights:
            model.graph.input.remove(value)
    if model.ir_version < 4:
        # Weights that are not inputs are allowed from IR version 4 on.
        model.ir_version = 4
    photo: onnx.ValueInfoProto = inputs[0]
    return photo


def _free_batch_in_reshapes(graph: onnx.GraphProto) -> None:
    """Rewrite Reshape constants [1, A, C] to [0, -1, C]: ONNX then keeps the batch and counts the anchors."""
    from onnx import numpy_helper

    constants = {initializer.name: initializer for initializer in graph.initializer}
    values = {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        tensor = constants.get(node.input[1]) or values.get(node.input[1])
        if tensor is None:
            continue
        wanted = numpy_helper.to_array(tensor)
        if wanted.shape == (3,) and wanted[0] in (0, 1) and wanted[2] > 0:
            fresh = numpy_helper.from_array(np.array([0, -1, wanted[2]], dtype=np.int64), tensor.name)
            tensor.CopyFrom(fresh)


def _swap_in_first_conv(graph: onnx.GraphProto, photo: str) -> bool:
    """Fold the BGR-to-RGB swap into the first convolution's weights; False if the graph does not allow it."""
    from onnx import numpy_helper

    users = [node for node in graph.node if photo in node.input]
    if len(users) != 1 or users[0].op_type != "Conv":
        return False
    weights = next((each for each in graph.initializer if each.name == users[0].input[1]), None)
    shared = sum(users[0].input[1] in node.input for node in graph.node) > 1
    if weights is None or shared:
        return False
    kernel = numpy_helper.to_array(weights)
    if kernel.ndim != 4 or kernel.shape[1] != 3:
        return False
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(kernel[:, ::-1]), weights.name))
    return True
