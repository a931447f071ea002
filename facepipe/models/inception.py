"""InceptionResnetV1 (Szegedy et al. 2016) as facenet-pytorch trained it, for its weights `vggface2`, `casia-webface`.

Our own definition with the names of their state dict. Their module is not imported: its package needs a torchvision
that matches torch exactly, costs seconds to load, and downloads weights unasked and unchecked.
"""

from __future__ import annotations

import io
import pickle

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from facepipe.errors import ModelError

DIM = 512
_Pair = int | tuple[int, int]


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: _Pair, stride: int = 1, padding: _Pair = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels_in, h, w) to (n, channels, h', w')."""
        return relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Branches side by side over the same input; their channels are stacked."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self._count = len(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c', h', w')."""
        return torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self._count)], 1)


class Residual(Branches):
    """Branches joined by a 1x1 convolution, scaled and added to the input."""

    def __init__(self, branches: list[nn.Module], joined: int, channels: int, scale: float, last: bool = False) -> None:
        super().__init__(branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.scale = scale
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (n, channels, h, w)."""
        out: Tensor = self.conv2d(super().forward(x)) * self.scale + x
        return out if self.last else relu(out)


def _reduction(*branches: nn.Module) -> Branches:
    """Branches that each halve the picture, and a 3x3 maximum."""
    return Branches([*branches, nn.MaxPool2d(3, stride=2)])


def _block35() -> Residual:
    return Residual(
        [
            Conv(256, 32, 1),
            nn.Sequential(Conv(256, 32, 1), Conv(32, 32, 3, padding=1)),
            nn.Sequential(Conv(256, 32, 1), Conv(32, 32, 3, padding=1), Conv(32, 32, 3, padding=1)),
        ],
        joined=96,
        channels=256,
        scale=0.17,
    )


def _block17() -> Residual:
    long = nn.Sequential(
        Conv(896, 128, 1), Conv(128, 128, (1, 7), padding=(0, 3)), Conv(128, 128, (7, 1), padding=(3, 0))
    )
    return Residual([Conv(896, 128, 1), long], joined=256, channels=896, scale=0.10)


def _block8(scale: float, last: bool = False) -> Residual:
    long = nn.Sequential(
        Conv(1792, 192, 1), Conv(192, 192, (1, 3), padding=(0, 1)), Conv(192, 192, (3, 1), padding=(1, 0))
    )
    return Residual([Conv(1792, 192, 1), long], joined=384, channels=1792, scale=scale, last=last)


class InceptionResnetV1(nn.Module):
    """Chips (n, 3, 160, 160), RGB, (x - 127.5) / 128, to vectors (n, 512) of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = Conv(3, 32, 3, stride=2)
        self.conv2d_2a = Conv(32, 32, 3)
        self.conv2d_2b = Conv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = Conv(64, 80, 1)
        self.conv2d_4a = Conv(80, 192, 3)
        self.conv2d_4b = Conv(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*[_block35() for _ in range(5)])
        self.mixed_6a = _reduction(
            Conv(256, 384, 3, stride=2),
            nn.Sequential(Conv(256, 192, 1), Conv(192, 192, 3, padding=1), Conv(192, 256, 3, stride=2)),
        )
        self.repeat_2 = nn.Sequential(*[_block17() for _ in range(10)])
        self.mixed_7a = _reduction(
            nn.Sequential(Conv(896, 256, 1), Conv(256, 384, 3, stride=2)),
            nn.Sequential(Conv(896, 256, 1), Conv(256, 256, 3, stride=2)),
            nn.Sequential(Conv(896, 256, 1), Conv(256, 256, 3, padding=1), Conv(256, 256, 3, stride=2)),
        )
        self.repeat_3 = nn.Sequential(*[_block8(0.20) for _ in range(5)])
        self.block8 = _block8(1.0, last=True)
        self.last_linear = nn.Linear(1792, DIM, bias=False)
        self.last_bn = nn.BatchNorm1d(DIM, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings before they are scaled to unit length."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))  # (n, 64, 77, 77)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))  # (n, 256, 17, 17)
        x = self.mixed_6a(self.repeat_1(x))  # (n, 896, 8, 8)
        x = self.mixed_7a(self.repeat_2(x))  # (n, 1792, 3, 3)
        x = self.block8(self.repeat_3(x))
        out: Tensor = self.last_bn(self.last_linear(x.mean(dim=(2, 3))))
        return out


def build(data: bytes) -> InceptionResnetV1:
    """Read facenet-pytorch's file; ModelError when it is anything but tensors that fit the network.

    Only tensors are read (`weights_only`), never code. The file's classifier (`logits`) is left aside.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            f"not a file of weights that can be read safely: {' '.join(str(error).split())[:120]}"
        ) from error
    if not isinstance(state, dict):
        raise ModelError(f"not a state dict of InceptionResnetV1 but a {type(state).__name__}")
    with torch.device("meta"):
        network = InceptionResnetV1()
    try:
        network.load_state_dict({k: v for k, v in state.items() if not str(k).startswith("logits.")}, assign=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ModelError(f"not weights of InceptionResnetV1: {' '.join(str(error).split())[:200]}") from error
    return network.float().eval().requires_grad_(False)
