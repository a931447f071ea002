"""Engines: what runs a network. Each takes float32 NCHW and gives float32 arrays, whatever it computes in inside."""

from __future__ import annotations

from typing import Protocol

import torch

from facepipe.networks.devices import network_dtype
from facepipe.types import Float32


class Engine(Protocol):
    """Runs one network."""

    def run(self, x: Float32) -> tuple[Float32, ...]:
        """Run a batch, float32 (n, channels, h, w), n at least 1, and return the network's outputs."""
        ...


class TorchEngine:
    """A torch module on a device, in the number format that is fastest there (`network_dtype`)."""

    def __init__(self, network: torch.nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self._device = device
        self._dtype = dtype or network_dtype(device)
        self._network = network.eval().to(device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, x: Float32) -> tuple[Float32, ...]:
        """See `Engine.run`; an array that lies NHWC in memory is taken without a copy."""
        with torch.inference_mode():
            batch = torch.from_numpy(x).to(self._device, self._dtype, memory_format=torch.channels_last)
            out = self._network(batch)
            parts = out if isinstance(out, tuple) else (out,)
            return tuple(part.float().cpu().numpy() for part in parts)
