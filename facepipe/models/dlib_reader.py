"""Reads the layers of a network that dlib serialized (`dlib_face_recognition_resnet_model_v1.dat`).

The format, as far as this network needs it. An integer is a control byte (low four bits: how many bytes follow, top
bit: negative) and its magnitude in little-endian order. A floating-point number is two integers, mantissa and binary
exponent. A string is its length and its bytes. A truth value is the character 0 or 1. A tensor is an integer 2 (its
version), four sizes, and little-endian float32 numbers without further framing; an alias (a window onto a tensor) is
an integer 1 and four sizes. The network is written from the outside in: loss, then one version number for each layer,
the input, and then the layers in the order in which they compute.

The file may come from anywhere: every length is checked against the bytes that are left before anything is allocated,
and whatever does not fit is a ModelError.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ldexp, prod
from typing import NoReturn

import numpy as np

from facepipe.errors import ModelError
from facepipe.types import Float32

_LOSS = "loss_metric_2"
_INPUT = "input_rgb_image_sized"
_MAX_LAYERS = 1000
_MAX_STRING = 64


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer: dlib's name for its kind, its whole numbers (sizes, strides, padding), and its parameters (n,)."""

    kind: str
    numbers: tuple[int, ...]
    parameters: Float32


@dataclass(frozen=True, slots=True, eq=False)
class DlibNetwork:
    """What the file holds. mean: of the input's red, green and blue. size: input (rows, columns)."""

    mean: tuple[float, float, float]
    size: tuple[int, int]
    layers: tuple[Layer, ...]


class _Reader:
    """A cursor over the bytes; each method takes one value off or raises ModelError."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def fail(self, what: str) -> NoReturn:
        raise ModelError(f"not a dlib network that facepipe can read: {what} at byte {self._at}")

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> memoryview:
        if count > len(self._data) - self._at:
            self.fail(f"{count} bytes expected, {len(self._data) - self._at} left")
        part = self._data[self._at : self._at + count]
        self._at += count
        return part

    def integer(self) -> int:
        control = self.take(1)[0]
        size = control & 0x0F
        if not 1 <= size <= 8 or control & 0x70:
            self.fail(f"no integer (control byte {control:#04x})")
        magnitude = int.from_bytes(self.take(size), "little")
        return -magnitude if control & 0x80 else magnitude

    def expect(self, value: int, what: str) -> None:
        found = self.integer()
        if found != value:
            self.fail(f"{what}: expected {value}, got {found}")

    def floating(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if not -2000 <= exponent <= 1000 or abs(mantissa) >= 1 << 63:
            self.fail(f"no finite number ({mantissa} * 2^{exponent})")
        try:
            return ldexp(float(mantissa), exponent)
        except OverflowError:
            self.fail(f"number too large ({mantissa} * 2^{exponent})")

    def string(self) -> str:
        length = self.integer()
        if not 0 <= length <= _MAX_STRING:
            self.fail(f"name of {length} characters")
        return bytes(self.take(length)).decode("latin-1")

    def flags(self, count: int) -> None:
        if any(byte not in b"01" for byte in self.take(count)):
            self.fail("no truth value")

    def sizes(self) -> tuple[int, ...]:
        found = tuple(self.integer() for _ in range(4))
        if any(size < 0 for size in found):
            self.fail(f"negative size {found}")
        return found

    def tensor(self) -> Float32:
        self.expect(2, "version of a tensor")
        count = prod(self.sizes())
        values = np.frombuffer(self.take(4 * count), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            self.fail("parameters that are not finite")
        return values

    def alias(self) -> tuple[int, ...]:
        self.expect(1, "version of an alias")
        return self.sizes()


def read_network(data: bytes) -> DlibNetwork:
    """Read all layers; ModelError when the bytes are no such network, or more than one."""
    reader = _Reader(data)
    reader.expect(1, "version of the loss layer")
    if (loss := reader.string()) != _LOSS:
        reader.fail(f"loss {loss!r}, expected {_LOSS!r}")
    reader.floating()  # margin and distance threshold: of use in training only
    reader.floating()
    for _ in range(_MAX_LAYERS):  # one version number for each layer and tag, until the input's name
        version = reader.integer()
        if version == len(_INPUT):
            break
        if not 1 <= version <= 3:
            reader.fail(f"layer of version {version}")
    else:
        reader.fail(f"more than {_MAX_LAYERS} layers")
    if (name := bytes(reader.take(len(_INPUT))).decode("latin-1")) != _INPUT:
        reader.fail(f"input {name!r}, expected {_INPUT!r}")
    mean = (reader.floating(), reader.floating(), reader.floating())
    size = (reader.integer(), reader.integer())
    layers: list[Layer] = []
    while not reader.at_end():
        if len(layers) == _MAX_LAYERS:
            reader.fail(f"more than {_MAX_LAYERS} layers")
        layers.append(_layer(reader))
        if len(layers) == 1:
            reader.expect(1, "sample expansion")  # stands behind the first layer only: one chip is one sample
    return DlibNetwork(mean, size, tuple(layers))


def _layer(reader: _Reader) -> Layer:
    kind = reader.string()
    numbers: tuple[int, ...] = ()
    parameters = np.zeros(0, np.float32)
    match kind:
        case "con_4":
            parameters = reader.tensor()
            numbers = tuple(reader.integer() for _ in range(7))  # filters, rows, columns, strides y x, padding y x
            numbers += reader.alias()  # filters: out, in, rows, columns
            reader.alias()  # biases
            for _ in range(4):  # learning rates and weight decay
                reader.floating()
        case "affine_":
            parameters = reader.tensor()
            numbers = reader.alias()  # factors: 1, channels, 1, 1
            reader.alias()  # offsets
            reader.integer()  # for convolutions or for fully connected layers
        case "fc_2":
            numbers = (reader.integer(), reader.integer())  # outputs, inputs
            parameters = reader.tensor()
            reader.alias()  # weights
            reader.alias()  # biases
            reader.integer()  # with or without bias
            for _ in range(4):
                reader.floating()
        case "max_pool_2" | "avg_pool_2":
            numbers = tuple(reader.integer() for _ in range(6))  # rows, columns, strides y x, padding y x
        case "relu_" | "add_prev_":
            pass
        case _:
            reader.fail(f"layer of unknown kind {kind!r}")
    reader.flags(3)  # whether it was set up, and two that matter in training
    for _ in range(3):  # gradients and a cached output, empty in a saved network
        reader.tensor()
    return Layer(kind, numbers, parameters)
