"""What is told to ONNX Runtime, and what it may not do unnoticed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.errors import (
    DetectorFault,
    DeviceFailed,
    DeviceRemoved,
    DeviceUnavailable,
    ModelUnavailable,
    OutOfMemory,
)
from actors.session import OnnxSessionOpener

DML, CPU = "DmlExecutionProvider", "CPUExecutionProvider"


class FakeRuntime:
    """Stands in for the module onnxruntime, DirectML included, which this machine cannot have."""

    ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL="sequential")

    def __init__(self, available: list[str], used: str, error: Exception | None = None) -> None:
        self.available, self.used, self.error = available, used, error
        self.asked: dict[str, Any] = {}

    def get_available_providers(self) -> list[str]:
        return self.available

    def SessionOptions(self) -> Any:  # noqa: N802  # onnxruntime's own name
        fixed: dict[str, int] = {}
        return SimpleNamespace(
            enable_mem_pattern=True,
            fixed=fixed,
            add_session_config_entry=lambda *_: None,
            add_free_dimension_override_by_name=fixed.__setitem__,
        )

    def InferenceSession(self, path: str, options: Any, providers: Any) -> Any:  # noqa: N802  # likewise
        self.asked = {"options": options, "providers": providers}

        def run(names: Any, feed: Any) -> Any:
            raise self.error or AssertionError("not expected to run")

        return SimpleNamespace(
            get_providers=lambda: [self.used, CPU],
            get_outputs=lambda: [SimpleNamespace(name="head_heat")],
            run=run,
        )


def runtime(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> FakeRuntime:
    fake = FakeRuntime(*args, **options)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return fake


def test_directml_gets_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit adapter, no memory patterns, sequential, every dimension fixed."""
    fake = runtime(monkeypatch, [DML, CPU], DML)
    session = OnnxSessionOpener("directml", device_id=1).open(Path("m.onnx"), (4, 480, 640))
    options = fake.asked["options"]
    assert session.provider == DML
    assert fake.asked["providers"] == [(DML, {"device_id": 1})]
    assert options.enable_mem_pattern is False
    assert options.execution_mode == "sequential"
    assert options.fixed == {"batch": 4, "height": 480, "width": 640}


def test_a_silent_fall_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """I4, I5: asked for the GPU and given the CPU is an error."""
    runtime(monkeypatch, [DML, CPU], CPU)
    with pytest.raises(DeviceUnavailable, match="fell back"):
        OnnxSessionOpener("directml").open(Path("m.onnx"), (1, 640, 640))


def test_a_missing_provider_says_which_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages in one environment hide DirectML."""
    runtime(monkeypatch, [CPU], CPU)
    with pytest.raises(DeviceUnavailable, match="onnxruntime-directml"):
        OnnxSessionOpener("directml").open(Path("m.onnx"), None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("887A0005 device removed"), DeviceRemoved),
        (RuntimeError("The parameter is incorrect"), DeviceFailed),
        (RuntimeError("8007000E Not enough memory resources"), OutOfMemory),
        (MemoryError(), OutOfMemory),
    ],
)
def test_errors_of_a_run_are_sorted(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[DetectorFault]
) -> None:
    """Out of memory can be helped with a smaller batch; a lost device cannot."""
    runtime(monkeypatch, [DML, CPU], DML, error=error)
    session = OnnxSessionOpener("directml").open(Path("m.onnx"), None)
    with pytest.raises(kind, match=r"\[1, 8, 8, 3\]"):
        session.run(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_damaged_file_is_the_models_fault(tmp_path: Path) -> None:
    """With the real ONNX Runtime."""
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(ModelUnavailable, match=r"broken\.onnx"):
        OnnxSessionOpener("cpu").open(tmp_path / "broken.onnx", None)
