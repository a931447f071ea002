"""dlib's ResNet-29 for faces as a plan: its layers checked against the architecture, its normalisation folded in.

The network is `anet_type` of dlib's example dnn_face_recognition_ex.cpp: a 7x7 convolution, max pooling, 14 residual
blocks in five levels (32, 64, 128, 256, 256 channels), the mean over the picture, and a linear layer to 128 numbers.
Its batch normalisation is frozen to one factor and one offset per channel, which the convolutions take in here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facepipe.errors import ModelError
from facepipe.models.dlib_reader import DlibNetwork, Layer
from facepipe.types import Float32

DIM = 128
SIZE = 150
#: Channels of each block, and which blocks halve the picture.
_BLOCKS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)
_HALVING = frozenset({3, 7, 10, 13})


@dataclass(frozen=True, slots=True, eq=False)
class ConvPlan:
    """A convolution: weight (out, in, k, k), bias (out,)."""

    weight: Float32
    bias: Float32
    stride: int
    padding: int


@dataclass(frozen=True, slots=True, eq=False)
class BlockPlan:
    """A residual block; a halving one adds the 2x2 means of its input, as if missing channels and rows were zero."""

    conv1: ConvPlan
    conv2: ConvPlan
    halving: bool


@dataclass(frozen=True, slots=True, eq=False)
class DlibPlan:
    """The whole network; head: (128, 256), without bias."""

    stem: ConvPlan
    blocks: tuple[BlockPlan, ...]
    head: Float32


class _Layers:
    """Takes layers off the file's list, each of the kind that the architecture has next."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers
        self._at = 0

    def take(self, kind: str, numbers: tuple[int, ...] = ()) -> Layer:
        """Return the next layer; ModelError unless it is of this kind and has these numbers."""
        found = self._layers[self._at] if self._at < len(self._layers) else None
        if found is None or found.kind != kind or found.numbers != numbers:
            got = "the end" if found is None else f"{found.kind} {found.numbers}"
            raise ModelError(
                f"not dlib's face network: layer {self._at}: expected {kind} {numbers}, got {got}; "
                "use dlib_face_recognition_resnet_model_v1.dat"
            )
        self._at += 1
        return found

    def conv(self, channels_in: int, channels: int, kernel: int, stride: int, padding: int) -> ConvPlan:
        """Take a convolution and the factors and offsets behind it, as one convolution."""
        sizes = (channels, kernel, kernel, stride, stride, padding, padding)
        weights = self.take("con_4", (*sizes, channels, channels_in, kernel, kernel)).parameters
        scale = self.take("affine_", (1, channels, 1, 1)).parameters
        count = channels * channels_in * kernel * kernel
        if len(weights) != count + channels or len(scale) != 2 * channels:
            raise ModelError(f"not dlib's face network: layer {self._at - 2} has {len(weights)} parameters")
        factor, offset = scale[:channels], scale[channels:]
        filters = weights[:count].reshape(channels, channels_in, kernel, kernel) * factor[:, None, None, None]
        return ConvPlan(filters, weights[count:] * factor + offset, stride, padding)

    def done(self) -> None:
        """ModelError when layers are left."""
        if self._at != len(self._layers):
            raise ModelError(f"not dlib's face network: {len(self._layers) - self._at} layers too many")


def plan_of(network: DlibNetwork) -> DlibPlan:
    """Return the plan; ModelError when the layers are not those of dlib's face network."""
    if network.size != (SIZE, SIZE):
        raise ModelError(f"not dlib's face network: input {network.size}, expected {(SIZE, SIZE)}")
    layers = _Layers(network.layers)
    stem = layers.conv(3, 32, kernel=7, stride=2, padding=0)
    layers.take("relu_")
    layers.take("max_pool_2", (3, 3, 2, 2, 0, 0))
    blocks, before = [], 32
    for i, channels in enumerate(_BLOCKS):
        halving = i in _HALVING
        stride, padding = (2, 0) if halving else (1, 1)
        conv1 = layers.conv(before, channels, 3, stride, padding)
        layers.take("relu_")
        conv2 = layers.conv(channels, channels, 3, 1, 1)
        if halving:
            layers.take("avg_pool_2", (2, 2, 2, 2, 0, 0))
        layers.take("add_prev_")
        layers.take("relu_")
        blocks.append(BlockPlan(conv1, conv2, halving))
        before = channels
    layers.take("avg_pool_2", (0, 0, 1, 1, 0, 0))
    weights = layers.take("fc_2", (DIM, before)).parameters
    layers.done()
    if len(weights) != DIM * before:
        raise ModelError(f"not dlib's face network: its last layer has {len(weights)} parameters")
    # dlib multiplies rows by columns the other way round.
    return DlibPlan(stem, tuple(blocks), np.ascontiguousarray(weights.reshape(before, DIM).T))
