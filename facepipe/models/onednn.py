"""MTCNN's networks on the CPU through oneDNN's own tensor layout: the same numbers as in torch's layouts, in less time.

torch's PReLU and pooling take longer than its convolutions in networks as narrow as these; on tensors in oneDNN's blocked layout
(`Tensor.to_mkldnn`) they do not. Where the processor multiplies bfloat16 (AMX, AVX-512), a rough look in bfloat16, two to four
times as fast, rejects what is not a face, and float32 decides about the rest: the answers that count are float32's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d, linear, max_pool2d, prelu

from facepipe.models.cascade import CROP_LAYOUTS, CascadeNetworks, CropName, split_logits
from facepipe.models.devices import fast_bfloat16
from facepipe.models.mtcnn import CropNet, PNet, load_crop_network, load_network
from facepipe.types import Float32

#: Crops in one pass. Few different numbers, because oneDNN compiles its kernels for each shape that it meets; the largest
#: keeps the activations in a core's second-level cache.
_CROPS = (32, 8)
#: Logits in bfloat16 differ from those in float32 by less than this; the greatest difference seen was half of it.
ROUGHNESS = 0.3


class _CropNetwork:
    """RNet or ONet in one number format: convolutions in oneDNN's layout, then the dense layer and all outputs side by side."""

    def __init__(self, network: CropNet, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._layers = []
        for conv, act, pool in network.layers:
            weight, bias, slope = (
                values.detach().to_mkldnn(dtype)
                for values in (conv.weight, conv.bias, act.weight)
                if values is not None
            )
            self._layers.append((weight, bias, slope, pool))
        dense, act, outputs = network.head
        # The weights were trained on (w, h, c) order; reordered once here instead of the activations every time.
        weight = dense.weight.detach().view(dense.out_features, 3, 3, -1).permute(0, 3, 2, 1)
        self._weight = weight.reshape(dense.out_features, -1).to(dtype).contiguous()
        self._bias = dense.bias.detach().to(dtype)
        self._slope = act.weight.detach().to(dtype)
        self._out_weight = torch.cat([layer.weight.detach() for layer in outputs]).to(dtype)
        self._out_bias = torch.cat([layer.bias.detach() for layer in outputs]).to(dtype)

    @torch.inference_mode()
    def __call__(self, crops: Float32) -> Float32:
        """(n, h, w, 3) to the outputs (n, 2 + k), the logits first."""
        return np.concatenate([self._run(part)[:count].numpy() for count, part in _parts(crops)])

    def _run(self, x: Tensor) -> Tensor:
        y = x.to_mkldnn(self._dtype)
        for weight, bias, slope, pool in self._layers:
            y = prelu(conv2d(y, weight, bias), slope)
            if pool is not None:
                y = max_pool2d(y, pool.kernel_size, pool.stride, ceil_mode=True)
        hidden = prelu(linear(y.to_dense().flatten(1), self._weight, self._bias), self._slope)
        return linear(hidden, self._out_weight, self._out_bias).float()


def _parts(crops: Float32) -> Iterator[tuple[int, Tensor]]:
    """Yield (count, batch): batches of one of the sizes above, filled up with zeros behind their `count` crops."""
    start = 0
    while start < len(crops):
        left = len(crops) - start
        size = next((size for size in _CROPS if size <= left), _CROPS[-1])
        part = torch.from_numpy(crops[start : start + size]).permute(0, 3, 1, 2).contiguous()
        if left < size:
            part = torch.cat([part, part.new_zeros(size - left, *part.shape[1:])])
        yield min(left, size), part
        start += size


def available() -> bool:
    """Say whether this torch was built with oneDNN."""
    return bool(torch._C._has_mkldnn)


class OneDnnCascade(CascadeNetworks):
    """The networks on the CPU. PNet stays in torch's layout, in which it is as fast and the borders of its levels can be seen to."""

    def __init__(self, rough: bool | None = None) -> None:
        """Load the weights; ModelError when they are missing. rough: use bfloat16 for crops; None: where that is fast."""
        cpu = torch.device("cpu")
        self.has_rough = fast_bfloat16() if rough is None else rough
        self._pnet = load_network(PNet(), "pnet", cpu)
        networks = {name: load_crop_network(name, cpu) for name in CROP_LAYOUTS}
        self._exact = {name: _CropNetwork(network, torch.float32) for name, network in networks.items()}
        self._rough = {
            name: _CropNetwork(network, torch.bfloat16) for name, network in networks.items() if self.has_rough
        }

    def propose(self, pictures: Float32, places: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.propose`."""
        with torch.inference_mode():
            logits, offsets = self._pnet(torch.from_numpy(pictures).permute(0, 3, 1, 2), places)
            return logits.numpy(), offsets.numpy()

    def over_crops(self, name: CropName, crops: Float32, least: float | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.over_crops`."""
        if not self.has_rough or least == 0.0:
            return split_logits(self._exact[name](crops))
        out = self._rough[name](crops)
        if least is not None:
            keep = np.flatnonzero(out[:, 1] - out[:, 0] >= float(np.log(least / (1 - least))) - ROUGHNESS)
            if len(keep):
                out[keep] = self._exact[name](crops[keep])
        return split_logits(out)
