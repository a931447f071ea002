"""Runs ONNX networks with onnxruntime (extra `facepipe[onnx]`), which is imported only here and only when needed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from facepipe.errors import DeviceError, LibraryError, ModelError
from facepipe.models.devices import parse_device
from facepipe.models.engines import BATCH
from facepipe.types import Float32


class OnnxEngine:
    """An ONNX network with one picture input; serves the Engine protocol.

    Networks whose batch is fixed at one run once per chip.
    """

    batch = BATCH

    def __init__(self, data: bytes, name: str, device: str) -> None:
        """Load the network from the bytes of its file.

        Raises LibraryError without onnxruntime, ModelError when it cannot run the file, DeviceError for a CUDA device
        that onnxruntime does not have.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise LibraryError(
                f"model {name!r} needs onnxruntime, which cannot be loaded ({error}): pip install onnxruntime, or facepipe with "
                "its extra [onnx]"
            ) from error
        self._name = name
        self._errors = _errors_of(onnxruntime)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors come back as exceptions; stderr stays ours
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=_providers(onnxruntime, device))
        except self._errors as error:
            raise ModelError(f"model {name!r}: onnxruntime cannot load its file: {_one_line(error)}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise ModelError(f"model {name!r}: expected one float32 input of four dimensions, got {found or 'none'}")
        self._input = inputs[0].name
        self.input_shape: tuple[Any, ...] = tuple(inputs[0].shape)
        self._fixed = self.input_shape[0] if isinstance(self.input_shape[0], int) else None
        if self._fixed not in (None, 1):
            raise ModelError(f"model {name!r}: its batch is fixed at {self._fixed}; export it with a free batch, or 1")

    def run(self, x: Float32) -> tuple[Float32, ...]:
        """See `Engine.run`; ModelError when the network fails on this input."""
        x = np.ascontiguousarray(x)
        try:
            if self._fixed is None:
                outputs = self._session.run(None, {self._input: x})
            else:
                singles = [self._session.run(None, {self._input: x[i : i + 1]}) for i in range(len(x))]
                outputs = [np.concatenate(parts) for parts in zip(*singles, strict=True)]
        except self._errors as error:
            raise ModelError(f"model {self._name!r}: onnxruntime failed: {_one_line(error)}") from error
        return tuple(np.asarray(out, np.float32) for out in outputs)


def _providers(onnxruntime: Any, device: str) -> list[Any]:
    kind, index = parse_device(device)
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if kind == "cuda" and not has_cuda:
        raise DeviceError(f"device {device!r}: this onnxruntime runs on the CPU only; use --device cpu or auto")
    if kind != "cpu" and has_cuda:
        return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _errors_of(onnxruntime: Any) -> tuple[type[BaseException], ...]:
    """onnxruntime's own exceptions have no common base below Exception."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    return tuple(v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
