"""dlib's ResNet-29 for faces in torch, from the layers that `dlib_reader` reads.

The network is `anet_type` of dlib's example dnn_face_recognition_ex.cpp: a 7x7 convolution, max pooling, 14 residual
blocks in five levels (32, 64, 128, 256, 256 channels), the mean over the picture, and a linear layer to 128 numbers.
Its batch normalisation is frozen to one factor and one offset per channel, which are folded into the convolutions here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, pad, relu

from facepipe.errors import ModelError
from facepipe.networks.dlib_reader import DlibNetwork, Layer

DIM = 128
SIZE = 150
#: Channels of each block; a block whose channels differ from the one before, and the last one, halve the picture.
_BLOCKS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)
_HALVING = frozenset({3, 7, 10, 13})


class Block(nn.Module):
    """Two convolutions and the input added to them; a halving block adds the input's 2x2 means."""

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d, halving: bool) -> None:
        super().__init__()
        self.conv1 = conv1
        self.conv2 = conv2
        self.halving = halving

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c', h', w')."""
        out: Tensor = self.conv2(relu(self.conv1(x)))
        if self.halving:
            x = avg_pool2d(x, 2, 2)
            # dlib adds tensors of different sizes as if the missing channels, rows and columns were zero.
            channels, rows, columns = (max(a, b) for a, b in zip(x.shape[1:], out.shape[1:], strict=True))
            x = pad(x, (0, columns - x.shape[3], 0, rows - x.shape[2], 0, channels - x.shape[1]))
            out = pad(out, (0, columns - out.shape[3], 0, rows - out.shape[2]))
        return relu(out + x)


class DlibResNet(nn.Module):
    """Chips (n, 3, 150, 150), RGB, (x - mean) / 256, to dlib's descriptors (n, 128), which are of no fixed length."""

    def __init__(self, stem: nn.Conv2d, blocks: list[Block], fc: nn.Linear) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        """Return the descriptors."""
        x = relu(self.stem(x))  # (n, 32, 72, 72)
        x = max_pool2d(x, 3, 2)  # (n, 32, 35, 35)
        x = self.blocks(x)  # (n, 256, 2, 2)
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out


class _Layers:
    """Takes layers off the file's list, each of the kind that the architecture has next."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = list(layers)
        self._at = 0

    def take(self, kind: str, numbers: tuple[int, ...] | None = None) -> Layer:
        found = self._layers[self._at] if self._at < len(self._layers) else None
        if found is None or found.kind != kind or (numbers is not None and found.numbers != numbers):
            got = "the end" if found is None else f"{found.kind} {found.numbers}"
            raise ModelError(
                f"not dlib's face network: layer {self._at}: expected {kind} {numbers or ''}, got {got}; "
                "use dlib_face_recognition_resnet_model_v1.dat"
            )
        self._at += 1
        return found

    def conv(self, channels_in: int, channels: int, kernel: int, stride: int, padding: int) -> nn.Conv2d:
        """Take a convolution and the factors and offsets behind it, as one convolution."""
        sizes = (channels, kernel, kernel, stride, stride, padding, padding)
        weights = self.take("con_4", (*sizes, channels, channels_in, kernel, kernel)).parameters
        scale = self.take("affine_", (1, channels, 1, 1)).parameters
        count = channels * channels_in * kernel * kernel
        if len(weights) != count + channels or len(scale) != 2 * channels:
            raise ModelError(f"not dlib's face network: layer {self._at - 2} has {len(weights)} parameters")
        factor, offset = scale[:channels], scale[channels:]
        filters = weights[:count].reshape(channels, channels_in, kernel, kernel) * factor[:, None, None, None]
        conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, device="meta")  # no numbers drawn in vain
        conv.weight = nn.Parameter(torch.from_numpy(filters), requires_grad=False)
        conv.bias = nn.Parameter(torch.from_numpy(weights[count:] * factor + offset), requires_grad=False)
        return conv

    def done(self) -> None:
        if self._at != len(self._layers):
            raise ModelError(f"not dlib's face network: {len(self._layers) - self._at} layers too many")


def build(network: DlibNetwork) -> DlibResNet:
    """Return the torch network; ModelError when the layers are not those of dlib's face network."""
    if network.size != (SIZE, SIZE):
        raise ModelError(f"not dlib's face network: input {network.size}, expected {(SIZE, SIZE)}")
    layers = _Layers(network.layers)
    stem = layers.conv(3, 32, kernel=7, stride=2, padding=0)
    layers.take("relu_")
    layers.take("max_pool_2", (3, 3, 2, 2, 0, 0))
    blocks, before = [], 32
    for i, channels in enumerate(_BLOCKS):
        halving = i in _HALVING
        conv1 = (
            layers.conv(before, channels, 3, stride=2, padding=0) if halving else layers.conv(before, channels, 3, 1, 1)
        )
        layers.take("relu_")
        conv2 = layers.conv(channels, channels, 3, 1, 1)
        if halving:
            layers.take("avg_pool_2", (2, 2, 2, 2, 0, 0))
        layers.take("add_prev_")
        layers.take("relu_")
        blocks.append(Block(conv1, conv2, halving))
        before = channels
    layers.take("avg_pool_2", (0, 0, 1, 1, 0, 0))
    weights = layers.take("fc_2", (DIM, before)).parameters
    layers.done()
    if len(weights) != DIM * before:
        raise ModelError(f"not dlib's face network: its last layer has {len(weights)} parameters")
    fc = nn.Linear(before, DIM, bias=False, device="meta")
    # dlib multiplies rows by columns the other way round.
    fc.weight = nn.Parameter(
        torch.from_numpy(np.ascontiguousarray(weights.reshape(before, DIM).T)), requires_grad=False
    )
    return DlibResNet(stem, blocks, fc).eval()
