"""`mini`, the embedder that facepipe ships: a small residual network for 112x112 chips.

BatchNorm is folded into the convolutions, so each has a bias and the network is the same in training and in use.
5.06 million parameters, about 0.48 billion multiply-adds a face.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

#: (blocks, channels) of each group; the first block of a group halves height and width.
GROUPS = ((3, 64), (4, 128), (2, 256))
DIM = 256


class Block(nn.Module):
    """Two 3x3 convolutions and the input added to them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels_in, h, w) to (n, channels, h / stride, w / stride)."""
        direct = x if self.shortcut is None else self.shortcut(x)
        return relu(self.conv2(relu(self.conv1(x))) + direct)


class Mini(nn.Module):
    """Chips (n, 3, 112, 112), RGB, (x - 127.5) / 128, to vectors (n, 256) of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        blocks: list[nn.Module] = []
        before = 32
        for count, channels in GROUPS:
            for i in range(count):
                blocks.append(Block(before, channels, stride=2 if i == 0 else 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.neck = nn.Conv2d(before, 128, 1)
        self.fc = nn.Linear(128 * 7 * 7, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings before they are scaled to unit length."""
        x = relu(self.stem(x))  # (n, 32, 56, 56)
        x = self.blocks(x)  # (n, 256, 7, 7)
        x = self.neck(x)  # (n, 128, 7, 7)
        out: Tensor = self.fc(torch.flatten(x, 1))  # channel-major, whatever the memory format is
        return out


def build(weights: Mapping[str, Tensor]) -> Mini:
    """Return the network with these weights (any float type; kept as float32)."""
    with torch.device("meta"):  # no time spent on random numbers that the weights replace
        network = Mini()
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return network.eval().requires_grad_(False)
