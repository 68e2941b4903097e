"""Opens ONNX Runtime sessions and keeps DirectML's rules. The only user of onnxruntime.

DirectML needs no memory patterns, sequential execution, an explicit device number (without one it falls back
to the CPU with only a notice), fixed dimensions (free ones take 5 to 10 times as long: onnxruntime#14550),
and one thread at a time in `run` (two remove the device: onnxruntime#20713). `Guard` keeps the last rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.errors import (
    DetectorFault,
    DeviceFailed,
    DeviceRemoved,
    DeviceUnavailable,
    ModelUnavailable,
    OutOfMemory,
)
from actors.graph import INPUT_NAME
from actors.settings import Provider

Tensor = NDArray[np.uint8]
ProviderNames: Mapping[Provider, str] = {"cpu": "CPUExecutionProvider", "directml": "DmlExecutionProvider"}

_HEAD_PREFIX = "head_"
#: DXGI_ERROR_DEVICE_REMOVED, _HUNG, _RESET and DRIVER_INTERNAL_ERROR.
_REMOVED_WORDS = ("887a0005", "887a0006", "887a0007", "887a0020", "device_removed", "device removed")
_MEMORY_WORDS = ("8007000e", "not enough memory", "out of memory", "bad_alloc", "failed to allocate")


def available_providers() -> tuple[str, ...]:
    """The names of the providers that this installation of ONNX Runtime has."""
    import onnxruntime as ort

    return tuple(ort.get_available_providers())


class Session(Protocol):
    """An open model on a device, as a face model needs it; tests have their own."""

    @property
    def provider(self) -> str:
        """The ONNX Runtime provider that the session really uses."""
        ...

    def run(self, tensor: Tensor) -> dict[str, NDArray[np.float32]]:
        """uint8[batch, height, width, 3] BGR → heads by name.

        They are `top` and `check`, which the prepared graph gives (`graph_ends.append_ends`), or the family's
        plain heads by their canonical names. `decoding` takes both.

        Raises:
            DeviceFailed: the run raised an error.
            DeviceRemoved: the adapter is gone; no session of this process will run again.
            OutOfMemory: there was not enough memory for this batch.
        """
        ...


class SessionOpener(Protocol):
    """Opens sessions for one device."""

    @property
    def fixed_shapes(self) -> bool:
        """Whether each bucket needs a session of its own."""
        ...

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> Session:
        """Open the prepared graph; with `bucket`, its dimensions are fixed to (batch, height, width).

        Raises:
            DeviceUnavailable: the session would not use the provider that was asked for.
            ModelUnavailable: the file cannot be opened.
        """
        ...


@dataclass(frozen=True)
class OnnxSessionOpener:
    """ONNX Runtime on one device.

    Attributes:
        provider: "cpu" or "directml".
        device_id: number of the adapter, for DirectML.
        num_threads: threads of one run, for the CPU.
    """

    provider: Provider
    device_id: int = 0
    num_threads: int = 1

    @property
    def fixed_shapes(self) -> bool:
        return self.provider == "directml"

    def open(self, path: Path, bucket: tuple[int, int, int] | None) -> Session:
        import onnxruntime as ort

        wanted = ProviderNames[self.provider]
        there = available_providers()
        if wanted not in there:
            raise DeviceUnavailable(
                f"This onnxruntime has no {wanted} (it has {', '.join(there)}). "
                "On Windows install onnxruntime-directml, and remove onnxruntime, which hides it."
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = self.num_threads
        # A thread that spins while it waits would take a core from preparing photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        provider_options: dict[str, Any] = {}
        if self.provider == "directml":
            options.enable_mem_pattern = False
            provider_options = {"device_id": self.device_id}
        if bucket is not None:
            for name, size in zip(("batch", "height", "width"), bucket, strict=True):
                options.add_free_dimension_override_by_name(name, size)
        try:
            session = ort.InferenceSession(str(path), options, providers=[(wanted, provider_options)])
        except Exception as error:
            kind = DeviceUnavailable if self.provider == "directml" else ModelUnavailable
            raise kind(
                f"ONNX Runtime cannot open {path.name} on {wanted}; "
                f"check the file and the device's driver: {_first_line(error)}"
            ) from error
        used = session.get_providers()[0]
        if used != wanted:
            raise DeviceUnavailable(
                f"{wanted} was asked for, and ONNX Runtime fell back to {used} without an error. "
                f"Check the adapter (device_id={self.device_id}) and its driver."
            )
        return _OnnxSession(session, used)


class _OnnxSession:
    def __init__(self, session: Any, provider: str) -> None:
        self._session = session
        self._provider = provider
        self._outputs = [output.name for output in session.get_outputs()]

    @property
    def provider(self) -> str:
        return self._provider

    def run(self, tensor: Tensor) -> dict[str, NDArray[np.float32]]:
        try:
            values = self._session.run(self._outputs, {INPUT_NAME: tensor})
        except Exception as error:
            raise _device_fault(error, tensor.shape) from error
        return {
            name.removeprefix(_HEAD_PREFIX): value for name, value in zip(self._outputs, values, strict=True)
        }


def _device_fault(error: Exception, shape: tuple[int, ...]) -> DetectorFault:
    line = _first_line(error)
    said = str(error).lower()
    if any(word in said for word in _REMOVED_WORDS):
        return DeviceRemoved(
            f"The device was removed or reset by its driver, on a batch of {list(shape)}: {line}"
        )
    if isinstance(error, MemoryError) or any(word in said for word in _MEMORY_WORDS):
        return OutOfMemory(f"The device has no memory for a batch of {list(shape)}: {line}")
    return DeviceFailed(f"The device failed on a batch of {list(shape)}: {line}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
