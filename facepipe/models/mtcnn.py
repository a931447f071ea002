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
from facepipe.models.cascade import CPU_PIXELS, CROP_LAYOUTS, CascadeNetworks, CropLayout, CropName
from facepipe.models.state_file import read_mtcnn
from facepipe.models.transfer import fitting, in_parts, to_device, to_host
from facepipe.types import Float32

#: Logits in half precision differ from those in float32 by less than this; the greatest difference seen was a sixth of it.
HALF_DOUBT = 0.1
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
        x = pooled(x)
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        scores = self.conv4_1(x)
        return scores[:, 1] - scores[:, 0], self.conv4_2(x)


def pooled(x: Tensor) -> Tensor:
    """Return the maxima of 2 x 2 pixels, what is left at an odd border alone. A third of the time of torch's pooling on the CPU."""
    if x.shape[2] % 2:
        x = torch.cat([x, x[:, :, -1:]], 2)
    x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    if x.shape[3] % 2:
        x = torch.cat([x, x[..., -1:]], 3)
    return torch.maximum(x[..., ::2], x[..., 1::2])


class CropNet(nn.Module):
    """RNet or ONet: refines (and finishes) what PNet proposed, over crops; see `CropLayout`."""

    def __init__(self, layout: CropLayout) -> None:
        super().__init__()
        #: The parts under the names of their weights, once more in the order in which they are run.
        self.layers: list[tuple[nn.Conv2d, nn.PReLU, nn.MaxPool2d | None]] = []
        before = 3
        for number, (channels, kernel, pool) in enumerate(layout.convolutions, 1):
            layer = nn.Conv2d(before, channels, kernel), nn.PReLU(channels)
            self.layers.append((*layer, nn.MaxPool2d(pool, 2, ceil_mode=True) if pool else None))
            self.add_module(f"conv{number}", layer[0])
            self.add_module(f"prelu{number}", layer[1])
            before = channels
        number = len(self.layers) + 1
        dense, act = nn.Linear(9 * before, layout.dense), nn.PReLU(layout.dense)
        outputs = [nn.Linear(layout.dense, count) for count in layout.outputs]
        self.head = dense, act, outputs
        self.add_module(f"dense{number}", dense)
        self.add_module(f"prelu{number}", act)
        for place, output in enumerate(outputs, 1):
            self.add_module(f"dense{number + 1}_{place}", output)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, side, side) to face probabilities (n,) and the other outputs side by side (n, 4 or 14)."""
        for conv, act, pool in self.layers:
            x = act(conv(x))
            x = x if pool is None else pool(x)
        dense, act, (logits, *others) = self.head
        x = act(dense(x.permute(0, 3, 2, 1).flatten(1)))  # from (n, c, 3, 3)
        return logits(x).float().softmax(1)[:, 1], torch.cat([output(x) for output in others], 1)


_Network = TypeVar("_Network", bound=nn.Module)


def load_network(network: _Network, name: str, device: torch.device) -> _Network:
    """Return the network with its weights, on a device, channels last.

    name: pnet, rnet or onet. ModelError when the weights are missing or not the recorded ones.
    """
    state = {key: torch.from_numpy(values) for key, values in read_mtcnn()[name].items()}
    network.load_state_dict(state)
    network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load_crop_network(name: CropName, device: torch.device) -> CropNet:
    """Return RNet or ONet as `load_network` does."""
    return load_network(CropNet(CROP_LAYOUTS[name]), name, device)


def _exact_float32() -> Callable[[], None]:
    """Keep cuDNN from rounding float32 to ten bits of mantissa, as it does by default: then nothing here would be exact."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    return partial(setattr, torch.backends.cudnn, "allow_tf32", before)


#: The context in which the networks run.
_exact = Borrowed(_exact_float32)


class TorchCascade(CascadeNetworks):
    """The networks in torch, on the CPU or on CUDA.

    With a rough number format, on CUDA float16, most of RNet's and ONet's work is done in it, and float32 decides wherever an answer
    is near a threshold or passes it. PNet stays exact: many of its windows pass, and which of them is kept hangs on their order; in
    float16 final boxes moved (IoU down to 0.91), which costs more than a pass that a graphics processor hardly notices.
    """

    def __init__(self, device: torch.device, rough: torch.dtype | None = None) -> None:
        """Load the weights; ModelError when they are missing. rough: None: float16 on CUDA, nothing but float32 on the CPU."""
        self.device = device
        if device.type == "cuda":
            rough = rough or torch.float16
        self.batch_pixels = fitting(device, _PIXEL_BYTES, CPU_PIXELS, 16_000_000)
        #: Crops in one pass.
        self.crop_batch = fitting(device, _CROP_BYTES, 512, 8192)
        self.has_rough = rough is not None
        self._pnet = load_network(PNet(), "pnet", device)
        self._exact = {name: load_crop_network(name, device) for name in CROP_LAYOUTS}
        self._rough = {name: load_crop_network(name, device).to(rough) for name in CROP_LAYOUTS if rough is not None}
        self._rough_dtype = rough

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

    def over_crops(self, name: CropName, crops: Float32, least: float | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.over_crops`."""
        exact, rough = self._exact[name], self._rough.get(name)

        @torch.inference_mode()
        def run(start: int, stop: int) -> tuple[Float32, ...]:
            x = self._tensor(crops[start:stop])
            if rough is None or least == 0.0:
                return to_host(*exact(x))
            out = [part.float() for part in rough(x.to(self._rough_dtype))]
            if least is None:
                return to_host(*out)
            rows = torch.nonzero(out[0].logit() >= np.log(least / (1 - least)) - HALF_DOUBT)[:, 0]
            if len(rows):
                for whole, part in zip(out, exact(x[rows]), strict=True):
                    whole[rows] = part
            return to_host(*out)

        with _exact:
            scores, others = zip(*in_parts(run, len(crops), self.crop_batch), strict=True)
        return np.concatenate(scores), np.concatenate(others)
