"""`mini`, the embedder that facepipe ships: a small residual network for 112x112 chips.

BatchNorm is folded into the convolutions, so each has a bias and the network is the same in training and in use.
The shipped one (`early` of the recipe) has 4.57 million parameters; its successors may be wider, deeper or
built of other blocks. Which, stands in the shapes of their weights (`architecture_of`), so a file of weights needs no second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

SIZE = 112
DIM = 256
#: Kernel of the stem for each of its strides.
_STEM_KERNELS = {2: 3, 4: 7}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a network of this family is built of.

    stem: channels after the first convolution.
    stem_stride: 2 (3x3) or 4 (7x7).
    groups: (blocks, channels) of each; the first block of a group halves height and width.
    expand: 0 for blocks of two 3x3 convolutions, else depthwise blocks that are this many times as wide inside.
    neck: channels that are flattened.
    dim: length of a vector.
    """

    stem: int = 32
    stem_stride: int = 2
    groups: tuple[tuple[int, int], ...] = ((3, 64), (4, 128), (2, 256))
    expand: int = 0
    neck: int = 128
    dim: int = DIM

    def __post_init__(self) -> None:
        if self.stem_stride not in _STEM_KERNELS:
            raise ValueError(f"stem_stride: expected 2 or 4, got {self.stem_stride}")
        if not self.groups or min(self.stem, self.neck, self.dim, *(n for group in self.groups for n in group)) < 1:
            raise ValueError(f"expected at least one group and sizes of at least 1, got {self}")

    @property
    def side(self) -> int:
        """Height and width of what is flattened."""
        side = SIZE // self.stem_stride
        for _ in self.groups:
            side = -(-side // 2)
        return side


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


class DepthwiseBlock(nn.Module):
    """Widens with 1x1, looks around with 3x3 in each channel alone, narrows with 1x1, and adds the input."""

    def __init__(self, channels_in: int, channels: int, stride: int, expand: int) -> None:
        super().__init__()
        inside = channels * expand
        self.conv1 = nn.Conv2d(channels_in, inside, 1)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, padding=1, groups=inside)
        self.conv3 = nn.Conv2d(inside, channels, 1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels_in, h, w) to (n, channels, h / stride, w / stride)."""
        direct = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.conv3(relu(self.conv2(relu(self.conv1(x)))))
        return out + direct


class Mini(nn.Module):
    """Chips (n, 3, 112, 112), RGB, (x - 127.5) / 128, to vectors (n, dim) of any length."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = chosen = architecture or Architecture()
        kernel = _STEM_KERNELS[chosen.stem_stride]
        self.stem = nn.Conv2d(3, chosen.stem, kernel, chosen.stem_stride, padding=kernel // 2)
        blocks: list[nn.Module] = []
        before = chosen.stem
        for count, channels in chosen.groups:
            for i in range(count):
                stride = 2 if i == 0 else 1
                if chosen.expand:
                    blocks.append(DepthwiseBlock(before, channels, stride, chosen.expand))
                else:
                    blocks.append(Block(before, channels, stride))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.neck = nn.Conv2d(before, chosen.neck, 1)
        self.fc = nn.Linear(chosen.neck * chosen.side**2, chosen.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings before they are scaled to unit length (shapes: those of the shipped network)."""
        x = relu(self.stem(x))  # (n, 32, 56, 56)
        x = self.blocks(x)  # (n, 256, 7, 7)
        x = self.neck(x)  # (n, 128, 7, 7)
        out: Tensor = self.fc(torch.flatten(x, 1))  # channel-major, whatever the memory format is
        return out


def architecture_of(weights: Mapping[str, Tensor]) -> Architecture:
    """Read the architecture off the shapes of the weights; ValueError when they are not those of this family."""
    try:
        stem, _, kernel, _ = weights["stem.weight"].shape
        stem_stride = next(stride for stride, k in _STEM_KERNELS.items() if k == kernel)
        expand = 0
        groups: list[list[int]] = []
        count = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        for i in range(count):
            last = weights.get(f"blocks.{i}.conv3.weight", weights[f"blocks.{i}.conv2.weight"])
            if f"blocks.{i}.conv3.weight" in weights:
                expand = last.shape[1] // last.shape[0]
            if f"blocks.{i}.shortcut.weight" in weights:
                groups.append([0, last.shape[0]])
            groups[-1][0] += 1
        neck, dim = weights["neck.weight"].shape[0], weights["fc.weight"].shape[0]
        return Architecture(stem, stem_stride, tuple((n, c) for n, c in groups), expand, neck, dim)
    except (KeyError, IndexError, StopIteration, ValueError) as error:
        raise ValueError(f"these are not the weights of a network of mini's family ({error!r})") from error


def build(weights: Mapping[str, Tensor]) -> Mini:
    """Return the network with these weights (any float type; kept as float32).

    ValueError or RuntimeError when they are not the weights of a network of this family.
    """
    architecture = architecture_of(weights)
    with torch.device("meta"):  # no time spent on random numbers that the weights replace
        network = Mini(architecture)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return network.eval().requires_grad_(False)
