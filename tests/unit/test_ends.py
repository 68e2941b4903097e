"""The ends in the graph against the plain decode: same candidates, fewer bytes, and no lie passes unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from actors import golden
from actors.decoding import Candidates, nms
from actors.errors import DeviceLies
from actors.face_model import FaceModel
from actors.families import FAMILIES
from actors.graph import prepare_graph
from actors.graph_ends import append_ends
from actors.guard import Guard
from actors.heads import CHECK, TOP, Floats, HeadsWrong, dead_images
from actors.images import Limits, prepare
from actors.models import ReadyModel
from actors.session import OnnxSessionOpener, Tensor
from actors.settings import DetectorSettings
from tests.heads import FAMILY_NAMES, Heads, random_heads

SIZES = [(64, 64), (96, 160), (320, 256)]


class Ends:
    """The ends of one family alone: plain heads in, `top` and `check` out, by the CPU of ONNX Runtime."""

    def __init__(self, family: str, heads: Heads, opset: int = 12) -> None:
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * head.ndim)
            for name, head in heads.items()
        ]
        graph = helper.make_graph([], "ends", inputs, [])
        names = append_ends(graph, family, {name: name for name in heads}, opset)
        self._names = list(names)
        for name, num_axes in ((names[TOP], 3), (names[CHECK], 2)):
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * num_axes))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        self._session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, heads: Heads) -> dict[str, Floats]:
        return dict(zip(self._names, self._session.run(None, heads), strict=True))


@pytest.fixture
def published(centerface: ReadyModel) -> Path:
    """The default model as published; it is kept beside what was prepared from it."""
    return next((centerface.prepared.parent.parent / "weights").glob("centerface-*.onnx"))


def same(one: list[Candidates], other: list[Candidates]) -> int:
    """Assert that all numbers are equal; returns how many candidates there are."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine.scores, theirs.scores)
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)
        np.testing.assert_array_equal(mine.landmarks, theirs.landmarks)
    return sum(len(each.scores) for each in one)


@pytest.mark.parametrize("opset", [12, 13, 18])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_ends_hold_the_candidates_of_the_plain_heads(family: str, size: tuple[int, int], opset: int) -> None:
    """Every number is equal, for each image of a batch, at every size and version of the operators."""
    heads = random_heads(family, *size, batch=3)
    decode = FAMILIES[family].decode
    found = Ends(family, heads, opset)(heads)
    # Random heat maps have many peaks; see test_a_crowd_that_is_too_large_keeps_its_best.
    least = 0.7 if family == "centerface" else 0.4
    assert same(decode(heads, *size, least), decode(found, *size, least)) > 5
    assert dead_images(found, 3) == []


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_ends_are_small(family: str) -> None:
    """At 640 x 640, at most 132 KB of up to 1.5 MB leave the device for each image."""
    heads = random_heads(family, 640, 640, batch=1)
    found = Ends(family, heads)(heads)
    num_bytes = sum(head.nbytes for head in found.values())
    assert num_bytes < 132_000
    assert num_bytes < sum(head.nbytes for head in heads.values()) / 4


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_crowd_that_is_too_large_keeps_its_best(family: str) -> None:
    """More candidates than may leave the device: the best of the plain ones stay, in order."""
    size = (640, 640)
    heads = random_heads(family, *size, batch=1)
    decode = FAMILIES[family].decode
    found = decode(Ends(family, heads)(heads), *size, 0.1)[0]
    plain = decode(heads, *size, 0.1)[0]
    assert len(plain.scores) > len(found.scores) > 1000
    if family == "centerface":
        peaks = heads["heat"][0, 0]
        padded = np.pad(peaks, 1)
        around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))
        wanted = np.sort(peaks[(peaks == around) & (peaks >= 0.1)])[::-1][: len(found.scores)]
        np.testing.assert_array_equal(found.scores, wanted)
    else:
        np.testing.assert_array_equal(found.scores, plain.scores[: len(found.scores)])
        kept, all_kept = nms(found, 0.3, 50), nms(plain, 0.3, 50)
        np.testing.assert_array_equal(kept.boxes, all_kept.boxes)


def test_noise_does_not_push_out_the_neighbour_of_a_peak() -> None:
    """A map has thousands of tiny peaks; a cell that is none, and reaches the threshold, goes before them."""
    random = np.random.default_rng(3)
    heads = random_heads("centerface", 640, 640, batch=1)
    heat = random.random((1, 1, 160, 160), dtype=np.float32) * np.float32(0.05)
    heat[0, 0, 40, 40:42] = [0.9, 0.6]
    heads["heat"] = heat
    decode = FAMILIES["centerface"].decode
    found = decode(Ends("centerface", heads)(heads), 640, 640, 0.5)[0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_one_number_that_is_not_finite_is_noticed_anywhere(family: str, value: float) -> None:
    """I1: in any head, of any image, even where no candidate is."""
    heads = random_heads(family, 64, 64, batch=2)
    ends = Ends(family, heads)
    for name, head in heads.items():
        spoilt = head.copy()
        spoilt[1].flat[spoilt[1].size // 2] = value
        with pytest.raises(HeadsWrong):
            FAMILIES[family].decode(ends(heads | {name: spoilt}), 64, 64, 0.99)


@pytest.mark.parametrize("value", [0.0, 0.25])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_image_whose_heads_are_constant_is_dead(family: str, value: float) -> None:
    """I4: also zeros; and only that image of the batch, and only if no head lives."""
    heads = random_heads(family, 64, 64, batch=3)
    ends = Ends(family, heads)
    constant = {name: head.copy() for name, head in heads.items()}
    for name in constant:
        constant[name][1] = value
    assert dead_images(ends(constant), 3) == dead_images(constant, 3) == [1]
    # A third image may be padding.
    assert dead_images(ends(constant), 1) == dead_images(constant, 1) == []
    last = list(heads)[-1]
    constant[last][1].flat[-1] = value + 1
    assert dead_images(ends(constant), 3) == dead_images(constant, 3) == []


def test_ends_of_zeros_are_dead() -> None:
    """I4: a device that writes zeros into every output is found out, and its answer is no "no faces"."""
    heads = random_heads("centerface", 64, 64, batch=2)
    zeros = {name: np.zeros_like(head) for name, head in Ends("centerface", heads)(heads).items()}
    assert dead_images(zeros, 2) == [0, 1]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_ends_that_contradict_each_other_are_noticed(family: str) -> None:
    """I1: a device that picks the wrong candidates, or numbers its anchors wrongly, is found out."""
    heads = random_heads(family, 64, 64, batch=2)
    decode = FAMILIES[family].decode
    found = Ends(family, heads)(heads)
    for score in (0.5, np.nan):
        lost = found[TOP].copy()
        lost[1, :, 0] *= score
        with pytest.raises(HeadsWrong, match="greatest score of image 2"):
            decode(found | {TOP: lost}, 64, 64, 0.99)
    for wrong in (-1.0, 0.5, 1e6, np.nan):
        misnumbered = found[TOP].copy()
        misnumbered[1, :, 1] = wrong
        with pytest.raises(HeadsWrong, match="anchor"):
            decode(found | {TOP: misnumbered}, 64, 64, 0.1)


@pytest.mark.parametrize("long_side", [64, 96, 160, 224, 640])
def test_the_real_model_finds_the_same_at_every_size(
    centerface: ReadyModel, published: Path, photos: Path, tmp_path: Path, long_side: int
) -> None:
    """CenterFace's own weights: any multiple of 32 from 64 up, two photos in a run, all numbers equal."""
    prepare_graph(published, tmp_path / "plain.onnx", with_ends=False)
    settings = DetectorSettings(input_size=long_side)
    opener = OnnxSessionOpener("cpu")
    plain, ends = opener.open(tmp_path / "plain.onnx", None), opener.open(centerface.prepared, None)
    for shape in settings.shapes:
        tensor = np.zeros((2, *shape, 3), dtype=np.uint8)
        for slot, name in enumerate(("astronaut.jpg", "montage_faces.jpg")):
            small = prepare(photos / name, [shape], Limits(10**8, 10**8), 2.0).pixels
            tensor[slot, : small.shape[0], : small.shape[1]] = small
        found = ends.run(tensor)
        assert set(found) == {TOP, CHECK}
        decode = centerface.family.decode
        assert same(decode(plain.run(tensor), *shape, 0.3), decode(found, *shape, 0.3)) > 0


def test_dimensions_that_are_fixed_give_the_same(centerface: ReadyModel) -> None:
    """As DirectML has them: fewer cells than K, and more."""
    opener = OnnxSessionOpener("cpu")
    pixels = np.random.default_rng(1).integers(0, 255, (2, 640, 640, 3), dtype=np.uint8)
    for side in (64, 160, 640):
        tensor = np.ascontiguousarray(pixels[:, :side, :side])
        free = opener.open(centerface.prepared, None).run(tensor)
        fixed = opener.open(centerface.prepared, (2, side, side)).run(tensor)
        assert free[TOP].shape == fixed[TOP].shape == (2, min(1024, (side // 4) ** 2), 16)
        np.testing.assert_array_equal(free[TOP], fixed[TOP])
        np.testing.assert_allclose(free[CHECK], fixed[CHECK], rtol=1e-4)


@dataclass
class LyingOpener:
    """The real model, whose answers a test spoils."""

    spoil: Callable[[dict[str, Floats]], dict[str, Floats]]
    provider: str = "CPUExecutionProvider"
    fixed_shapes: bool = False

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> LyingOpener:
        """Open the real session, and stand before it."""
        self._session = OnnxSessionOpener("cpu").open(path, bucket)
        return self

    def run(self, tensor: Tensor) -> dict[str, Floats]:
        """What the real session answers, spoilt."""
        return self.spoil(self._session.run(tensor))


def _zeros(heads: dict[str, Floats]) -> dict[str, Floats]:
    return {name: np.zeros_like(head) for name, head in heads.items()}


def _constant(heads: dict[str, Floats]) -> dict[str, Floats]:
    # Heads of one number: all anchors are equal, and so are the maximum and the minimum of each head.
    check = np.full_like(heads[CHECK], 0.25)
    return {TOP: np.full_like(heads[TOP], 0.25), CHECK: check}


def _nan(heads: dict[str, Floats]) -> dict[str, Floats]:
    return {name: np.full_like(head, np.nan) for name, head in heads.items()}


def _no_candidates(heads: dict[str, Floats]) -> dict[str, Floats]:
    return heads | {TOP: np.zeros_like(heads[TOP])}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_zeros, "same number everywhere"),
        (_constant, "same number everywhere"),
        (_nan, "NaN"),
        (_no_candidates, "greatest score"),
    ],
)
def test_a_lie_about_the_ends_is_a_fault_of_the_device(
    centerface: ReadyModel, spoil: Callable[[dict[str, Floats]], dict[str, Floats]], said: str
) -> None:
    """I1, I4: never "no faces", also for a photo that shows none."""
    model = FaceModel(centerface, LyingOpener(spoil), DetectorSettings(input_size=64), Guard(1))
    with pytest.raises(DeviceLies, match=said):
        model.detect(golden.photos(2, (64, 64)))


def test_heads_without_a_batch_axis_stay_plain(tmp_path: Path) -> None:
    """SCRFD's exports for single images give [A, C]: nothing tells the images of a batch apart there."""
    nodes, outputs = [], []
    weights = [numpy_helper.from_array(np.ones((10, 3, 8, 8), dtype=np.float32), "w")]
    for number, columns in enumerate((1, 1, 1, 4, 4, 4, 10, 10, 10)):
        shape = numpy_helper.from_array(np.array([-1, columns], dtype=np.int64), f"shape_{number}")
        weights.append(shape)
        nodes.append(helper.make_node("Reshape", ["map", shape.name], [str(number)]))
        outputs.append(helper.make_tensor_value_info(str(number), TensorProto.FLOAT, [None, columns]))
    nodes.insert(0, helper.make_node("Conv", ["input", "w"], ["map"], strides=[8, 8]))
    photo = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(nodes, "scrfd", [photo], outputs, weights)
    opset = helper.make_opsetid("", 12)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=7), str(tmp_path / "scrfd.onnx"))
    prepare_graph(tmp_path / "scrfd.onnx", tmp_path / "prepared.onnx")
    session = OnnxSessionOpener("cpu").open(tmp_path / "prepared.onnx", None)
    heads = session.run(np.zeros((1, 64, 64, 3), dtype=np.uint8))
    assert heads["kps_32"].ndim == 2
    assert TOP not in heads


def test_operators_that_cannot_be_made_newer_leave_the_heads_plain(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that ran before still runs."""

    def convert(*_: object) -> None:
        raise RuntimeError("no adapter for this operator")

    monkeypatch.setattr("onnx.version_converter.convert_version", convert)
    prepare_graph(published, tmp_path / "prepared.onnx")
    session = OnnxSessionOpener("cpu").open(tmp_path / "prepared.onnx", None)
    heads = session.run(np.zeros((2, 64, 64, 3), dtype=np.uint8))
    assert set(heads) == {"heat", "scale", "offset", "landmarks"}
