"""Engines: what runs a network. Each takes float32 NCHW and gives float32 arrays, whatever it computes in inside.

torch is the fastest per face (bfloat16 where the processor has it) and takes more than a second to import. OpenCV's dnn
is some ten milliseconds slower per face and is loaded already, since the pictures need OpenCV: for a few photos it is
done before torch has begun. Their answers agree to rounding.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from facepipe.errors import ModelError
from facepipe.models.devices import network_dtype, parse_device
from facepipe.types import Float32

if TYPE_CHECKING:
    import torch

#: Memory of a pass in sizes of its input, from above: the widest activations are 5 to 12 times as large as a chip, and there are
#: several of them at a time.
_PASS = 64
#: On the CPU a batch of more inputs than this is filled up to a multiple of it: oneDNN compiles its kernels for each number and
#: keeps them, which with every number from 1 to 64 took more memory over thousands of photos.
_STEP = 16
#: Signs of a graphics processor that torch may be able to use: NVIDIA's driver, AMD's, and Windows' inside WSL.
_GPU_SIGNS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


#: Inputs in one call that make the best of a network: on one core with AMX `mini` takes 4.3 ms a face alone, 1.2 ms among 64;
#: with AVX-512's bfloat16 7.5 and 4.7 ms. On CUDA `TorchEngine` makes less of it where the memory is short.
BATCH, CUDA_BATCH = 64, 256


class Engine(Protocol):
    """Runs one network."""

    @property
    def batch(self) -> int:
        """How many inputs one call of `run` should get."""
        ...

    def run(self, x: Float32) -> tuple[Float32, ...]:
        """Run a batch, float32 (n, channels, h, w), n at least 1, and return the network's outputs."""
        ...


class TorchEngine:
    """A torch module on a device, in the number format that is fastest there (`network_dtype`).

    On CUDA a batch is cut into parts that fit the memory which is free at that moment.
    """

    def __init__(self, network: torch.nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> None:
        import torch

        self._torch = torch
        self._device = device
        self.batch = CUDA_BATCH if device.type == "cuda" else BATCH
        self._dtype = dtype or network_dtype(device)
        self._network = network.eval().to(device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, x: Float32) -> tuple[Float32, ...]:
        """See `Engine.run`; an array that lies NHWC in memory is taken without a copy."""
        from facepipe.models.transfer import fitting, in_parts, to_device, to_host

        torch = self._torch

        def part(start: int, stop: int) -> tuple[Float32, ...]:
            with torch.inference_mode():
                # Converted where it is computed: the copy to the device stays one of plain memory.
                batch = to_device(x[start:stop], self._device)
                out = self._network(batch.to(self._dtype, memory_format=torch.channels_last))
                return to_host(*(one.float() for one in (out if isinstance(out, tuple) else (out,))))

        count = len(x)
        if self._device.type == "cpu" and count > _STEP and count % _STEP:
            x = np.concatenate([x, np.zeros((_STEP - count % _STEP, *x.shape[1:]), x.dtype)])
        needs = _PASS * x[0].size * self._dtype.itemsize
        parts = in_parts(part, len(x), fitting(self._device, needs, len(x), len(x)))
        return tuple(np.concatenate(same)[:count] for same in zip(*parts, strict=True))


class OpenCvEngine:
    """A network with one input and one output, given as the bytes of an ONNX file, on the CPU by OpenCV's dnn."""

    batch = BATCH

    def __init__(self, onnx: bytes) -> None:
        try:
            self._network = cv2.dnn.readNetFromONNX(np.frombuffer(onnx, np.uint8))
        except cv2.error as error:
            raise ModelError(f"OpenCV cannot read the network: {' '.join(str(error).split())[:200]}") from error
        self._one_at_a_time = Lock()  # the network keeps its input and all that comes of it

    def run(self, x: Float32) -> tuple[Float32, ...]:
        """See `Engine.run`."""
        with self._one_at_a_time:
            self._network.setInput(np.ascontiguousarray(x))
            return (np.asarray(self._network.forward(), np.float32).copy(),)


def starts_without_torch(device: str) -> bool:
    """Say whether a device (auto, cpu, cuda[:N]) means the CPU for certain, found out without torch.

    For `auto` it does when nothing on this machine looks like a graphics processor. DeviceError for any other text.
    """
    kind, _ = parse_device(device)
    return kind == "cpu" or (kind == "auto" and not any(sign.exists() for sign in _GPU_SIGNS))
