"""Writes a network as ONNX, in memory and with numpy alone, for engines that start faster than torch.

ONNX is a protocol-buffer format (onnx.proto3); of it a network needs a few message types, each a run of tagged fields.
Writing them takes milliseconds, so no converted file is ever kept, and none can be stale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facepipe.types import Float32

_IR_VERSION = 8
_OPSET = 13
_FLOAT = 1  # TensorProto.DataType


#: A message as pieces that are joined once, at the end: copying 20 MB of weights at each level costs more than the rest.
_Pieces = list[bytes | memoryview]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written in two's complement
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> _Pieces:
    return [_varint(field << 3) + _varint(value)]


def _message(field: int, *parts: _Pieces) -> _Pieces:
    inner = [piece for part in parts for piece in part]
    return [_varint(field << 3 | 2) + _varint(sum(len(piece) for piece in inner)), *inner]


def _text(field: int, value: str) -> _Pieces:
    return _message(field, [value.encode()])


def _tensor(field: int, name: str, values: Float32) -> _Pieces:
    """TensorProto: dims, data_type, name, raw_data."""
    dims = [_number(1, size) for size in values.shape]
    raw = np.ascontiguousarray(values).data.cast("B")
    return _message(field, *dims, _number(2, _FLOAT), _text(8, name), _message(9, [raw]))


def _attribute(field: int, name: str, value: int | Sequence[int]) -> _Pieces:
    """AttributeProto: name, one value, and the kind of value."""
    if isinstance(value, int):
        return _message(field, _text(1, name), _number(3, value), _number(20, 2))
    return _message(field, _text(1, name), *(_number(8, v) for v in value), _number(20, 7))


def _value(field: int, name: str, shape: Sequence[int | str]) -> _Pieces:
    """ValueInfoProto of a float tensor; a size that is a string is free."""
    dims = [_message(1, _text(2, size) if isinstance(size, str) else _number(1, size)) for size in shape]
    return _message(field, _text(1, name), _message(2, _message(1, _number(1, _FLOAT), _message(2, *dims))))


class OnnxWriter:
    """Collects the nodes of a network; values are named by the strings that its methods take and return."""

    def __init__(self, channels: int, height: int | str, width: int | str) -> None:
        """Begin a network with one input `x` (n, channels, height, width); a size that is a string is free."""
        self._input = _value(11, "x", ["n", channels, height, width])
        self._nodes: list[_Pieces] = []
        self._weights: list[_Pieces] = []
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def weight(self, values: NDArray[np.floating]) -> str:
        """Add constant numbers, as float32."""
        name = self._name()
        self._weights.append(_tensor(5, name, values.astype(np.float32)))
        return name

    def node(self, operator: str, *inputs: str, **attributes: int | Sequence[int]) -> str:
        """Add one operator with one output and return the output's name."""
        out = self._name()
        names = [_text(1, name) for name in inputs]
        given = [_attribute(5, name, value) for name, value in attributes.items()]
        self._nodes.append(_message(1, *names, _text(2, out), _text(3, out), _text(4, operator), *given))
        return out

    def conv(self, x: str, weight: Float32, bias: Float32, stride: int = 1, padding: int = 0, group: int = 1) -> str:
        """Add a convolution; weight (out, in / group, k, k), bias (out,)."""
        return self.node(
            "Conv",
            x,
            self.weight(weight),
            self.weight(bias),
            kernel_shape=weight.shape[2:],
            strides=(stride, stride),
            pads=(padding,) * 4,
            group=group,
        )

    def relu(self, x: str) -> str:
        """Add max(x, 0)."""
        return self.node("Relu", x)

    def prelu(self, x: str, slopes: Float32) -> str:
        """Add max(x, 0) + slope * min(x, 0) with one slope per channel of x (n, c, h, w)."""
        return self.node("PRelu", x, self.weight(slopes.reshape(-1, 1, 1)))

    def add(self, a: str, b: str) -> str:
        """Add a + b."""
        return self.node("Add", a, b)

    def max_pool(self, x: str, kernel: int, stride: int) -> str:
        """Add a maximum over windows; the last one may reach beyond the end (sizes rounded up)."""
        return self.node("MaxPool", x, kernel_shape=(kernel, kernel), strides=(stride, stride), ceil_mode=1)

    def linear(self, x: str, weight: Float32, bias: Float32) -> str:
        """Add x W' + b for x (n, in), weight (out, in), bias (out,)."""
        return self.node("Gemm", x, self.weight(weight), self.weight(bias), transB=1)

    def flatten(self, x: str) -> str:
        """Add (n, c, h, w) to (n, c h w)."""
        return self.node("Flatten", x, axis=1)

    def finish(self, outputs: Sequence[tuple[str, Sequence[int | str]]]) -> bytes:
        """Return the file's bytes; outputs: names and shapes."""
        ends = [_value(12, name, shape) for name, shape in outputs]
        graph = _message(7, *self._nodes, _text(2, "facepipe"), *self._weights, self._input, *ends)
        model = [*_number(1, _IR_VERSION), *_text(2, "facepipe"), *graph, *_message(8, _number(2, _OPSET))]
        return b"".join(model)
