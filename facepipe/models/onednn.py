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
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, max_pool2d, prelu

from facepipe.models.devices import fast_bfloat16
from facepipe.models.mtcnn import CPU_PIXELS, ONet, PNet, RNet, load_network
from facepipe.types import Float32

#: Crops in one pass. Few different numbers, because oneDNN compiles its kernels for each shape that it meets; the largest
#: keeps the activations in a core's second-level cache.
_CROPS = (32, 8)
#: Logits in bfloat16 differ from those in float32 by less than this; the greatest difference seen was half of it.
ROUGHNESS = 0.3


class _Stack:
    """The convolutional part of a network, in one number format: convolution, PReLU, and pooling where there is one."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self._layers = []
        self._dtype = dtype
        number = 1
        while (conv := getattr(network, f"conv{number}", None)) is not None:
            weight = conv.weight.detach().to_mkldnn(dtype)
            bias = conv.bias.detach().to_mkldnn(dtype)
            slope = getattr(network, f"prelu{number}").weight.detach().to_mkldnn(dtype)
            self._layers.append((weight, bias, slope, getattr(network, f"pool{number}", None)))
            number += 1

    def __call__(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) float32, contiguous, to the last activations as an ordinary tensor in this stack's number format."""
        y = x.to_mkldnn(self._dtype)
        for weight, bias, slope, pool in self._layers:
            y = prelu(conv2d(y, weight, bias), slope)
            if pool is not None:
                y = max_pool2d(y, pool.kernel_size, pool.stride, ceil_mode=True)
        return y.to_dense()


class _Head:
    """The dense part of RNet and ONet: a layer with PReLU, and the outputs side by side: two logits, box, landmarks."""

    def __init__(
        self, dense: nn.Linear, act: nn.PReLU, outputs: list[nn.Linear], side: int, dtype: torch.dtype
    ) -> None:
        # The weights were trained on (w, h, c) order; reordered once here instead of the activations every time.
        weight = dense.weight.detach().view(dense.out_features, side, side, -1).permute(0, 3, 2, 1)
        self._weight = weight.reshape(dense.out_features, -1).to(dtype).contiguous()
        self._bias = dense.bias.detach().to(dtype)
        self._slope = act.weight.detach().to(dtype)
        self._out_weight = torch.cat([layer.weight.detach() for layer in outputs]).to(dtype)
        self._out_bias = torch.cat([layer.bias.detach() for layer in outputs]).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, c, side, side) to float32 (n, outputs)."""
        hidden = prelu(linear(x.flatten(1), self._weight, self._bias), self._slope)
        return linear(hidden, self._out_weight, self._out_bias).float()


class _CropNetwork:
    """RNet or ONet: float32, and a copy in bfloat16 where that is fast."""

    def __init__(self, network: RNet | ONet, rough: bool) -> None:
        if isinstance(network, RNet):
            dense, act, outputs, side = network.dense4, network.prelu4, [network.dense5_1, network.dense5_2], 3
        else:
            outputs = [network.dense6_1, network.dense6_2, network.dense6_3]
            dense, act, side = network.dense5, network.prelu5, 3
        self._exact = _Stack(network, torch.float32), _Head(dense, act, outputs, side, torch.float32)
        self._rough = None
        if rough:
            self._rough = _Stack(network, torch.bfloat16), _Head(dense, act, outputs, side, torch.bfloat16)

    def __call__(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """(n, h, w, 3) to probabilities (n,) and the other outputs (n, k); exact where the probability reaches `least`."""
        if self._rough is None or least <= 0.0:
            return _split(_run(self._exact, crops))
        out = _run(self._rough, crops)
        wanted = float(np.log(least / (1 - least)))
        keep = np.flatnonzero(out[:, 1] - out[:, 0] >= wanted - ROUGHNESS)
        if len(keep):
            out[keep] = _run(self._exact, crops[keep])
        return _split(out)

    def roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """Like a call, with all answers in bfloat16; None where float32 is as fast."""
        return None if self._rough is None else _split(_run(self._rough, crops))


@torch.inference_mode()
def _run(network: tuple[_Stack, _Head], crops: Float32) -> Float32:
    stack, head = network
    return np.concatenate([head(stack(part))[:count].numpy() for count, part in _parts(crops)])


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


def _split(out: Float32) -> tuple[Float32, Float32]:
    """Turn the two logits into a probability."""
    return (1.0 / (1.0 + np.exp(out[:, 0] - out[:, 1]))).astype(np.float32), out[:, 2:]


def available() -> bool:
    """Say whether this torch was built with oneDNN."""
    return bool(torch._C._has_mkldnn)


class OneDnnCascade:
    """`CascadeNetworks` on the CPU."""

    #: PNet stays in torch's layout, in which it is as fast and the borders of its levels can be seen to.
    mixes_sizes = True
    batch_pixels = CPU_PIXELS

    def __init__(self, rough: bool | None = None) -> None:
        """Load the weights; ModelError when they are missing. rough: use bfloat16 for crops; None: where that is fast."""
        cpu = torch.device("cpu")
        rough = fast_bfloat16() if rough is None else rough
        self._pnet = load_network(PNet(), "pnet", cpu)
        self._rnet = _CropNetwork(load_network(RNet(), "rnet", cpu), rough)
        self._onet = _CropNetwork(load_network(ONet(), "onet", cpu), rough)

    def propose(self, pictures: Float32, places: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.propose`."""
        with torch.inference_mode():
            logits, offsets = self._pnet(torch.from_numpy(pictures).permute(0, 3, 1, 2), places)
            return logits.numpy(), offsets.numpy()

    def refine(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.refine`."""
        return self._rnet(crops, least)

    def finish(self, crops: Float32, least: float) -> tuple[Float32, Float32, Float32]:
        """See `CascadeNetworks.finish`."""
        scores, out = self._onet(crops, least)
        return scores, out[:, :4], _landmarks(out[:, 4:])

    def finish_roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """See `CascadeNetworks.finish_roughly`."""
        answer = self._onet.roughly(crops)
        return None if answer is None else (answer[0], answer[1][:, :4])


def _landmarks(out: Float32) -> Float32:
    """(n, 10), x of all five before y, to (n, 5, 2)."""
    return out.reshape(-1, 2, 5).transpose(0, 2, 1)
