"""Reads a state dict that torch saved before version 1.6 (`.pt` without zip) into numpy arrays, without torch.

MTCNN's weights inside the facenet-pytorch wheel are such files. One is a run of pickles: a magic number, a protocol
version, facts about the machine, the dict itself with its tensors as references to storages, and the storages' names;
then each storage's length as a 64-bit integer and its numbers. Pickles can call any function that they name, so this
reader knows three names and refuses all others.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.errors import ModelError
from facepipe.models.registry import get_record, read_weights
from facepipe.types import Float32

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Stands in for torch's function that puts a tensor together."""
    whole = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not isinstance(storage, _Storage) or not whole:
        raise pickle.UnpicklingError("what should be a tensor is not")
    numbers = (offset, *shape, *strides)
    if not all(isinstance(n, int) and 0 <= n < 1 << 40 for n in numbers):
        raise pickle.UnpicklingError("a tensor of impossible size")
    return _Tensor(storage, offset, shape, strides)


class _Float:
    """Stands in for the type of a storage of float32 numbers."""


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): _Float,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module_name}.{global_name}")
        return _ALLOWED[module_name, global_name]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", kind, str(key), str(), int(count), None) if kind is _Float and 0 <= count < 1 << 32:
                return _Storage(key, count)
        raise pickle.UnpicklingError("a storage that is not float32")


def read_state_file(data: bytes, name: str) -> dict[str, Float32]:
    """Return the tensors by name; ModelError when the bytes are not such a file. name: for the message."""
    stream = io.BytesIO(data)
    try:
        head = [_Unpickler(stream).load() for _ in range(3)]
        if head[:2] != [_MAGIC, _PROTOCOL]:
            raise pickle.UnpicklingError("not a state dict of torch's old format")
        state = _Unpickler(stream).load()
        keys = _Unpickler(stream).load()
        if not isinstance(state, dict) or not all(isinstance(t, _Tensor) for t in state.values()):
            raise pickle.UnpicklingError("not a dict of tensors")
        storages: dict[str, Float32] = {}
        for key in keys:
            count = int.from_bytes(stream.read(8), "little", signed=True)
            raw = stream.read(4 * count) if count >= 0 else b""
            if len(raw) != 4 * count:
                raise pickle.UnpicklingError("it is truncated")
            storages[key] = np.frombuffer(raw, "<f4").astype(np.float32)
        return {str(key): _array(tensor, storages) for key, tensor in state.items()}
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ModelError(f"{name}: not a file of weights that can be read safely ({error})") from error


def _array(tensor: _Tensor, storages: dict[str, Float32]) -> Float32:
    values = storages[tensor.storage.key]
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.shape, default=1) < 1 or last >= len(values):
        raise ValueError("a tensor reaches beyond its storage")
    steps = tuple(4 * step for step in tensor.strides)
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, steps, writeable=False)
    return np.array(view, order="C")


def read_mtcnn() -> dict[str, dict[str, Float32]]:
    """Return the weights of MTCNN's networks: `pnet`, `rnet`, `onet`, each by the names of its tensors.

    ModelError when a file is missing or not the recorded one.
    """
    record = get_record("mtcnn")
    contents = read_weights(record)
    return {
        Path(file.file).stem: read_state_file(data, file.file)
        for file, data in zip(record.files, contents, strict=True)
    }
