"""MTCNN's three networks (Zhang et al., 2016) over the weights inside the facenet-pytorch wheel.

The package itself is never imported: its `__init__` pulls in torchvision and costs seconds. Its weights are plain tensors and are
read by our own reader (`facepipe.models.state_file`), which knows no code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facepipe.borrowing import Borrowed
from facepipe.models.state_file import read_mtcnn
from facepipe.models.transfer import fitting, in_parts, to_device, to_host
from facepipe.types import Float32

#: Logits in half precision differ from those in float32 by less than this; the greatest difference seen was a sixth of it.
HALF_DOUBT = 0.1
#: Pixels of pyramid in one pass of PNet on a CPU: the activations stay in the cache of a core.
CPU_PIXELS = 150_000
#: Memory of a pass in float32 at its widest place, two copies of it and what the convolution itself needs, from above: a pixel
#: of pyramid in PNet, a crop in ONet.
_PIXEL_BYTES, _CROP_BYTES = 256, 2 << 20
#: Outside the picture, before pooling: below anything that a convolution gives, so that the maximum ignores it.
_OUTSIDE = -1e4


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

    def forward(self, x: Tensor, places: NDArray[np.int64] | None = None) -> tuple[Tensor, Tensor]:
        """(n, 3, h, w) to face logits (n, h', w') and box offsets (n, 4, h', w'); places: see `CascadeNetworks.propose`."""
        x = self.prelu1(self.conv1(x))  # (n, 10, h-2, w-2)
        # The pooling rounds up: at an odd border it must see the level's last row alone, not what lies beyond.
        for picture, y1, x1, y2, x2 in [] if places is None else places.tolist():
            if y2 % 2:
                x[picture, :, y2 - 2, x1:x2] = _OUTSIDE
            if x2 % 2:
                x[picture, :, y1:y2, x2 - 2] = _OUTSIDE
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
        return self.dense5_1(x).float().softmax(1)[:, 1], self.dense5_2(x)


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
        return self.dense6_1(x).float().softmax(1)[:, 1], self.dense6_2(x), self.dense6_3(x)


_Network = TypeVar("_Network", bound=nn.Module)


def load_network(network: _Network, name: str, device: torch.device) -> _Network:
    """Return the network with its weights, on a device, channels last.

    name: pnet, rnet or onet. ModelError when the weights are missing or not the recorded ones.
    """
    state = {key: torch.from_numpy(values) for key, values in read_mtcnn()[name].items()}
    network.load_state_dict(state)
    network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _exact_float32() -> Callable[[], None]:
    """Keep cuDNN from rounding float32 to ten bits of mantissa, as it does by default: then nothing here would be exact."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    return partial(setattr, torch.backends.cudnn, "allow_tf32", before)


#: The context in which the networks run.
_exact = Borrowed(_exact_float32)


class TorchCascade:
    """`CascadeNetworks` in torch, on the CPU or on CUDA.

    With a rough number format, on CUDA float16, most of RNet's and ONet's work is done in it, and float32 decides wherever an answer
    is near a threshold or passes it. PNet stays exact: many of its windows pass, and which of them is kept hangs on their order; in
    float16 final boxes moved (IoU down to 0.91), which costs more than a pass that a graphics processor hardly notices.
    """

    mixes_sizes = True

    def __init__(self, device: torch.device, rough: torch.dtype | None = None) -> None:
        """Load the weights; ModelError when they are missing. rough: None: float16 on CUDA, nothing but float32 on the CPU."""
        self.device = device
        if device.type == "cuda":
            rough = rough or torch.float16
        self.batch_pixels = fitting(device, _PIXEL_BYTES, CPU_PIXELS, 16_000_000)
        #: Crops in one pass.
        self.crop_batch = fitting(device, _CROP_BYTES, 512, 8192)
        self._rough = rough
        self._pnet = load_network(PNet(), "pnet", device)
        self._rnet, self._rough_rnet = self._both(RNet, "rnet")
        self._onet, self._rough_onet = self._both(ONet, "onet")

    def _both(self, kind: type[_Network], name: str) -> tuple[_Network, _Network | None]:
        """Return a network in float32, and in the rough format when there is one."""
        exact = load_network(kind(), name, self.device)
        return exact, None if self._rough is None else load_network(kind(), name, self.device).to(self._rough)

    def _tensor(self, pictures: Float32) -> Tensor:
        # (n, h, w, 3) in memory is (n, 3, h, w) channels-last: no copy.
        return to_device(pictures, self.device).permute(0, 3, 1, 2)

    def propose(self, pictures: Float32, places: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.propose`."""

        @torch.inference_mode()
        def run(start: int, stop: int) -> tuple[Float32, Float32]:
            some = None
            if places is not None:
                some = places[(places[:, 0] >= start) & (places[:, 0] < stop)] - np.array([start, 0, 0, 0, 0])
            return to_host(*self._pnet(self._tensor(pictures[start:stop]), some))  # type: ignore[return-value]

        at_once = max(1, self.batch_pixels // (pictures.shape[1] * pictures.shape[2]))
        with _exact:
            logits, offsets = zip(*in_parts(run, len(pictures), at_once), strict=True)
        return np.concatenate(logits), np.concatenate(offsets)

    def _over_crops(
        self, exact: nn.Module, rough: nn.Module | None, crops: Float32, least: float | None
    ) -> tuple[Float32, ...]:
        """Run RNet or ONet; exact where the probability reaches `least`, None: nowhere."""

        @torch.inference_mode()
        def run(start: int, stop: int) -> tuple[Float32, ...]:
            x = self._tensor(crops[start:stop])
            if rough is None or least == 0.0:
                return to_host(*exact(x))
            out = [part.float() for part in rough(x.to(self._rough))]
            if least is None:
                return to_host(*out)
            rows = torch.nonzero(out[0].logit() >= np.log(least / (1 - least)) - HALF_DOUBT)[:, 0]
            if len(rows):
                for whole, part in zip(out, exact(x[rows]), strict=True):
                    whole[rows] = part
            return to_host(*out)

        with _exact:
            parts = in_parts(run, len(crops), self.crop_batch)
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def refine(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.refine`."""
        scores, offsets = self._over_crops(self._rnet, self._rough_rnet, crops, least)
        return scores, offsets

    def finish(self, crops: Float32, least: float) -> tuple[Float32, Float32, Float32]:
        """See `CascadeNetworks.finish`."""
        scores, offsets, points = self._over_crops(self._onet, self._rough_onet, crops, least)
        return scores, offsets, points.reshape(-1, 2, 5).transpose(0, 2, 1)

    def finish_roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """See `CascadeNetworks.finish_roughly`."""
        if self._rough_onet is None:
            return None
        scores, offsets, _ = self._over_crops(self._onet, self._rough_onet, crops, None)
        return scores, offsets
