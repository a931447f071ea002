"""MTCNN's three networks (Zhang et al., 2016) over the weights inside the facenet-pytorch wheel.

The package itself is never imported: its `__init__` pulls in torchvision and costs seconds. Its weights are plain tensors and are
read by our own reader (`facepipe.networks.state_file`), which knows no code.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facepipe.networks.state_file import read_mtcnn
from facepipe.types import Float32

#: Outside the picture, before pooling: below anything that a convolution gives, so that the maximum ignores it.
_OUTSIDE = -1e4


class CascadeNetworks(Protocol):
    """The three networks as functions of arrays. Pictures are float32, (x - 127.5) / 128, channels last."""

    @property
    def mixes_sizes(self) -> bool:
        """Whether `propose` takes levels of different sizes, padded, in one batch."""
        ...

    def propose(self, levels: Float32, sizes: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """PNet over pyramid levels (n, h, w, 3): face logits (n, h', w') and box offsets (n, 4, h', w').

        sizes: (n, 2) height and width of each level inside the padded batch, None when all fill it.
        """
        ...

    def refine(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """RNet over crops (n, 24, 24, 3): face probabilities (n,), box offsets (n, 4).

        least: answers that reach this probability are exact, the others may be rough.
        """
        ...

    def finish(self, crops: Float32, least: float) -> tuple[Float32, Float32, Float32]:
        """ONet over crops (n, 48, 48, 3): face probabilities (n,), box offsets (n, 4), landmarks (n, 5, 2) in box units.

        least: as in `refine`.
        """
        ...

    def finish_roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """Probabilities and box offsets as in `finish`, rough and quick; None when there is no quicker way.

        The logit of the probability is within 0.3 of the exact one.
        """
        ...


class PNet(nn.Module):
    """Proposal network, fully convolutional: 12 pixel windows at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor, sizes: NDArray[np.int64] | None = None) -> tuple[Tensor, Tensor]:
        """(n, 3, h, w) to face logits (n, h', w') and box offsets (n, 4, h', w')."""
        x = self.prelu1(self.conv1(x))  # (n, 10, h-2, w-2)
        if sizes is not None:
            # The pooling rounds up: at an odd border it must see the level's last row alone, not the padding.
            rows = torch.arange(x.shape[2], device=x.device)
            columns = torch.arange(x.shape[3], device=x.device)
            limits = torch.as_tensor(sizes, device=x.device) - 2
            below = (rows >= limits[:, :1]).to(x.dtype) * _OUTSIDE
            beyond = (columns >= limits[:, 1:]).to(x.dtype) * _OUTSIDE
            x = x + below[:, None, :, None] + beyond[:, None, None, :]
        x = self.pool1(x)
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        scores = self.conv4_1(x)
        return scores[:, 1] - scores[:, 0], self.conv4_2(x)


class RNet(nn.Module):
    """Refinement network over 24 pixel crops."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 24, 24) to face probabilities (n,) and box offsets (n, 4)."""
        x = self.pool1(self.prelu1(self.conv1(x)))  # (n, 28, 11, 11)
        x = self.pool2(self.prelu2(self.conv2(x)))  # (n, 48, 4, 4)
        x = self.prelu3(self.conv3(x))  # (n, 64, 3, 3)
        x = self.prelu4(self.dense4(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class ONet(nn.Module):
    """Output network over 48 pixel crops: score, box, five landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, 48, 48) to face probabilities (n,), box offsets (n, 4), landmarks (n, 10), x of all five before y."""
        x = self.pool1(self.prelu1(self.conv1(x)))  # (n, 32, 23, 23)
        x = self.pool2(self.prelu2(self.conv2(x)))  # (n, 64, 10, 10)
        x = self.pool3(self.prelu3(self.conv3(x)))  # (n, 64, 4, 4)
        x = self.prelu4(self.conv4(x))  # (n, 128, 3, 3)
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x), self.dense6_3(x)


_Network = TypeVar("_Network", bound=nn.Module)


def load_network(network: _Network, name: str, device: torch.device) -> _Network:
    """Return the network with its weights, on a device, channels last.

    name: pnet, rnet or onet. ModelError when the weights are missing or not the recorded ones.
    """
    state = {key: torch.from_numpy(values) for key, values in read_mtcnn()[name].items()}
    network.load_state_dict(state)
    network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class TorchCascade:
    """`CascadeNetworks` in torch, on the CPU or on CUDA."""

    #: Crops in one forward pass: bounds the memory of crowded batches.
    crop_batch = 512
    mixes_sizes = True

    def __init__(self, device: torch.device) -> None:
        """Load the weights; ModelError when they are missing."""
        self.device = device
        self._pnet = load_network(PNet(), "pnet", device)
        self._rnet = load_network(RNet(), "rnet", device)
        self._onet = load_network(ONet(), "onet", device)

    def _tensor(self, pictures: Float32) -> Tensor:
        # (n, h, w, 3) in memory is (n, 3, h, w) channels-last: no copy.
        return torch.from_numpy(pictures).to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def propose(self, levels: Float32, sizes: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.propose`."""
        logits, offsets = self._pnet(self._tensor(levels), sizes)
        return logits.cpu().numpy(), offsets.cpu().numpy()

    @torch.inference_mode()
    def refine(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.refine`."""
        parts = [self._rnet(part) for part in torch.split(self._tensor(crops), self.crop_batch)]
        return (torch.cat([p[0] for p in parts]).cpu().numpy(), torch.cat([p[1] for p in parts]).cpu().numpy())

    @torch.inference_mode()
    def finish(self, crops: Float32, least: float) -> tuple[Float32, Float32, Float32]:
        """See `CascadeNetworks.finish`."""
        parts = [self._onet(part) for part in torch.split(self._tensor(crops), self.crop_batch)]
        scores, offsets, points = (torch.cat([p[i] for p in parts]).cpu().numpy() for i in range(3))
        return scores, offsets, points.reshape(-1, 2, 5).transpose(0, 2, 1)

    def finish_roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """Return None: there is no quicker way."""
        return None


def load_cascade(device: torch.device) -> CascadeNetworks:
    """Return the networks in the form that is fastest on a device; all forms give the same answers."""
    from facepipe.networks.onednn import OneDnnCascade, available

    if device.type == "cpu" and available():
        return OneDnnCascade()
    return TorchCascade(device)
