"""dlib's ResNet-29 for faces in torch, built from its plan (`facepipe.models.dlib_plan`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, pad, relu

from facepipe.models.dlib_plan import BlockPlan, ConvPlan, DlibPlan, plan_of
from facepipe.models.dlib_reader import DlibNetwork


def _conv(plan: ConvPlan) -> nn.Conv2d:
    channels, channels_in, kernel, _ = plan.weight.shape
    conv = nn.Conv2d(
        channels_in, channels, kernel, plan.stride, plan.padding, device="meta"
    )  # no numbers drawn in vain
    conv.weight = nn.Parameter(torch.from_numpy(plan.weight), requires_grad=False)
    conv.bias = nn.Parameter(torch.from_numpy(plan.bias), requires_grad=False)
    return conv


class Block(nn.Module):
    """Two convolutions and the input added to them; a halving block adds the input's 2x2 means."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.conv1 = _conv(plan.conv1)
        self.conv2 = _conv(plan.conv2)
        self.halving = plan.halving

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

    def __init__(self, plan: DlibPlan) -> None:
        super().__init__()
        self.stem = _conv(plan.stem)
        self.blocks = nn.Sequential(*(Block(block) for block in plan.blocks))
        dim, before = plan.head.shape
        self.fc = nn.Linear(before, dim, bias=False, device="meta")
        self.fc.weight = nn.Parameter(torch.from_numpy(plan.head), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the descriptors."""
        x = relu(self.stem(x))  # (n, 32, 72, 72)
        x = max_pool2d(x, 3, 2)  # (n, 32, 35, 35)
        x = self.blocks(x)  # (n, 256, 2, 2)
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out


def build(network: DlibNetwork) -> DlibResNet:
    """Return the torch network; ModelError when the layers are not those of dlib's face network."""
    return DlibResNet(plan_of(network)).eval()
