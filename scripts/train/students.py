"""Students: networks of the package's family made trainable, and folded back into what the package runs.

The package's networks have plain convolutions with a bias. To train them from nothing each convolution needs some normalisation.
Three ways, each a wrapper that takes a convolution's place and can be folded into one again:

- `bn`: BatchNorm behind each convolution. It reads and writes every activation twice more, and that is what a CPU waits for.
- `ws`: scaled weight standardisation (Brock et al., "Characterizing signal propagation to close the performance gap in unnormalized
  ResNets", 2021): the filters are normalised instead of the activations. Filters are small, so it costs next to nothing.
- `none`: nothing; for networks that are trained already.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from facepipe.errors import InputError, UsageError
from facepipe.models.mini import Architecture, Mini, build

#: `v0` is the network that facepipe shipped first; see docs/training.md for how they compare.
ARCHITECTURES: dict[str, Architecture] = {
    "v0": Architecture(),
    "early": Architecture(stem=64, stem_stride=4, groups=((3, 128), (2, 256)), neck=128),
    "wide-shallow": Architecture(stem=32, groups=((1, 64), (2, 128), (2, 288)), neck=96),
    "depthwise": Architecture(stem=32, groups=((2, 48), (4, 96), (3, 192)), expand=4, neck=128),
}

#: With inputs of unit variance, relu leaves a variance of (1 - 1/pi) / 2; this factor brings it back to 1.
_RELU_GAIN = (2.0 / (1.0 - 1.0 / torch.pi)) ** 0.5
_EPS = 1e-4


class BatchNormConv(nn.Module):
    """A convolution without bias, and BatchNorm."""

    def __init__(self, conv: nn.Conv2d, gain: float) -> None:
        super().__init__()
        self.conv = conv
        self.conv.bias = None
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        self.bn = nn.BatchNorm2d(conv.out_channels)
        nn.init.constant_(self.bn.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise."""
        out: Tensor = self.bn(self.conv(x))
        return out

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution that does the same in use."""
        assert self.bn.running_mean is not None and self.bn.running_var is not None
        factor = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        return self.conv.weight * factor[:, None, None, None], self.bn.bias - self.bn.running_mean * factor


class StandardisedConv(nn.Module):
    """A convolution whose filters have mean 0 and variance 1 / fan-in, times a learnt gain per channel."""

    def __init__(self, conv: nn.Conv2d, gain: float) -> None:
        super().__init__()
        self.weight = conv.weight
        nn.init.normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(conv.out_channels))
        self.gain = nn.Parameter(torch.full((conv.out_channels,), gain))
        self.stride, self.padding, self.groups = conv.stride, conv.padding, conv.groups

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution that this is."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        fan_in = self.weight[0].numel()
        factor = self.gain[:, None, None, None] * torch.rsqrt(variance * fan_in + _EPS)
        return (self.weight - mean) * factor, self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the standardised filters."""
        weight, bias = self.folded()
        return conv2d(x, weight, bias, self.stride, self.padding, groups=self.groups)


_WRAPPERS: dict[str, Callable[[nn.Conv2d, float], nn.Module]] = {"bn": BatchNormConv, "ws": StandardisedConv}
NORMS = ("bn", "ws", "none")


def trainable(network: Mini, norm: str) -> Mini:
    """Put the chosen wrapper in the place of each convolution, freshly initialised; the network is changed and returned.

    The last convolution of a block starts at zero, so a fresh network is shallow and grows deep as it learns. Raises ValueError
    for an unknown norm. With `none` the network keeps the weights that it has.
    """
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {', '.join(NORMS)}, got {norm!r}")
    if norm == "none":
        return network
    wrap = _WRAPPERS[norm]
    places = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    last = "conv3" if network.architecture.expand else "conv2"
    for path, conv in places:
        parent_path, _, name = path.rpartition(".")
        behind_linear_block = bool(network.architecture.expand) and name in {"conv1", "shortcut", "neck"}
        sees_relu = norm == "ws" and path != "stem" and not behind_linear_block
        gain = 0.0 if name == last else (_RELU_GAIN if sees_relu else 1.0)
        setattr(network.get_submodule(parent_path), name, wrap(conv, gain))
    nn.init.normal_(network.fc.weight, std=network.fc.in_features**-0.5)
    nn.init.zeros_(network.fc.bias)
    return network


def folded(network: Mini) -> Mini:
    """Return a new network of plain convolutions, in float32, that computes what this one computes in use."""
    state: dict[str, Tensor] = {}
    for path, module in network.named_modules():
        if isinstance(module, (BatchNormConv, StandardisedConv)):
            state[f"{path}.weight"], state[f"{path}.bias"] = module.folded()
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and not path.endswith(".conv"):
            assert module.bias is not None
            state[f"{path}.weight"], state[f"{path}.bias"] = module.weight, module.bias
    plain = Mini(network.architecture)
    plain.load_state_dict({name: tensor.detach().float().clone() for name, tensor in state.items()})
    return plain.eval()


def load_start(start: str) -> Mini:
    """Return the network of a model of mini's family, by its name or its .safetensors file."""
    import safetensors.torch
    from safetensors import SafetensorError

    if start.endswith(".safetensors"):
        try:
            return build(safetensors.torch.load_file(start))
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise InputError(f"{start}: not weights that a student can start from ({error})") from error
    from facepipe.models.registry import get_record, read_weights

    record = get_record(start)
    if record.network != "mini":
        raise UsageError(
            f"--from {start}: a student starts from `mini` or a network of its family, not {record.network}"
        )
    return build(safetensors.torch.load(read_weights(record)[0]))
