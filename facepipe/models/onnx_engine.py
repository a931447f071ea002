"""Runs ONNX networks with onnxruntime (extra `facepipe[onnx]`), which is imported only here and only when needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
        if names_other_files(data):
            raise ModelError(
                f"model {name!r}: its weights lie in other files (ONNX external data), which its hash does not cover; save it as "
                "one file: onnx.save(onnx.load(FILE), ONE_FILE)"
            )
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


#: Where tensors can be in an ONNX file: message -> field number -> message in it (onnx.proto).
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def names_other_files(data: bytes) -> bool:
    """Say whether an ONNX file keeps tensors in other files, which onnxruntime would look for in the current folder.

    Asked before onnxruntime sees the file, so that the answer holds for each of its versions. A file that is not ONNX has none.
    """
    pending = [("model", memoryview(data))]
    while pending:
        kind, message = pending.pop()
        for field, value in _fields(message):
            if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
                return True
            if field in _MESSAGES[kind] and isinstance(value, memoryview):
                pending.append((_MESSAGES[kind][field], value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the field numbers and values of a protobuf message, up to where it can be read; fixed-size values as 0.

    Source: the wire format in the documentation of Protocol Buffers.
    """
    place = 0
    try:
        while place < len(message):
            key, place = _varint(message, place)
            wire = key & 7
            value: int | memoryview = 0
            if wire == 0:
                value, place = _varint(message, place)
            elif wire == 2:
                length, place = _varint(message, place)
                value = message[place : place + length]
                place += length
            elif wire in _FIXED:
                place += _FIXED[wire]
            else:
                return
            yield key >> 3, value
    except IndexError:  # it ends within a number: no parser reads on
        return


#: Wire type -> bytes of a value of fixed size.
_FIXED = {1: 8, 5: 4}


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number that begins at `place`, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = message[place]
        place += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, place


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
