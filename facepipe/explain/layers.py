"""What the layers of an embedder make of a face, and by gradients which pixels its vector hangs on: networks in torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from facepipe.models.networks import torch_network
from facepipe.models.registry import ModelRecord, read_weights
from facepipe.types import Float32, UInt8

#: Steps of the integral from a blurred face to the face.
_STEPS = 12
#: Spread of that blur, and of the map's: shares of the chip's side.
_BLUR, _SMOOTH = 0.09, 0.027


class Layers:
    """A network whose layers can be looked at: four of them, from the first to the last with places in the picture."""

    def __init__(self, record: ModelRecord) -> None:
        """Build the network of a record on the CPU, in float32. Errors: ModelError, also for one that torch does not run."""
        self._network = torch_network(record, read_weights(record)[0])
        self._record, self.name = record, record.name
        self._kept: dict[str, Tensor] = {}
        self.names: tuple[str, ...] = ()
        for name, module in _looked_at(self._network):
            self.names += (name,)
            module.register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, given: Any, out: Tensor) -> None:
            self._kept[name] = out

        return keep

    def _input(self, chips: UInt8 | Float32) -> Tensor:
        record = self._record
        x = torch.from_numpy(
            np.ascontiguousarray(chips, np.float32)[..., :: 1 if record.colour == "rgb" else -1].copy()
        )
        x = (x - torch.tensor(record.mean)) / torch.tensor(record.std)
        return x.permute(0, 3, 1, 2)

    def _vectors(self, x: Tensor) -> Tensor:
        out: Tensor = self._network(x)
        if self._record.centre is not None:
            out = out - torch.tensor(self._record.centre)
        unit: Tensor = out / out.norm(dim=1, keepdim=True)
        return unit

    def activations(self, chips: UInt8) -> dict[str, Float32]:
        """Return what each layer gives for chips, uint8 (n, size, size, 3): float32 (n, channels, h, w), 0 and more."""
        with torch.inference_mode():
            self._network(self._input(chips))
            return {name: relu(out).numpy().copy() for name, out in self._kept.items()}

    def gradient_map(self, chip: UInt8, direction: Float32) -> Float32:
        """Return by how much each pixel raises the inner product with a direction, float32 (size, size).

        Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017) on the way from the blurred
        face to the face, smoothed: single pixels of them are noise to the eye.
        """
        size = len(chip)
        blurred = cv2.GaussianBlur(chip, (0, 0), _BLUR * size).astype(np.float32)
        steps = (np.arange(_STEPS, dtype=np.float32) + 0.5) / _STEPS
        x = self._input(blurred + steps[:, None, None, None] * (chip - blurred)).requires_grad_(True)
        (gradient,) = torch.autograd.grad((self._vectors(x) @ torch.from_numpy(direction.copy())).sum(), x)
        change = self._input(chip[None]) - self._input(blurred[None])
        found = (gradient.mean(dim=0) * change[0]).sum(dim=0).numpy()
        return np.asarray(cv2.GaussianBlur(found, (0, 0), _SMOOTH * size), np.float32)


def _looked_at(network: nn.Module) -> list[tuple[str, nn.Module]]:
    from facepipe.models.inception import InceptionResnetV1
    from facepipe.models.mini import Mini

    if isinstance(network, Mini):
        ends = np.cumsum([count for count, _ in network.architecture.groups]).tolist()
        return [("stem", network.stem), *((f"blocks.{end - 1}", network.blocks[end - 1]) for end in ends)]
    assert isinstance(network, InceptionResnetV1)
    names = ("conv2d_1a", "conv2d_4b", "repeat_2", "repeat_3")
    return [(name, network.get_submodule(name)) for name in names]
