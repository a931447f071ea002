"""What the networks share on a graphics processor: copies through pinned memory, batches that fit, half of one that does not.

On the CPU nothing is copied and the batches are those that its caches like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

_Part = TypeVar("_Part")
#: The share of free memory that one pass may take: several threads run passes at the same time.
_SHARE = 8


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device; the strides stay, on the CPU it is the same memory.

    For CUDA it goes through pinned memory, which torch keeps for the next copy, and the CPU does not wait for it.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    """Return tensors of one device as arrays; from CUDA through pinned memory, with one wait for all of them."""
    if tensors[0].device.type != "cuda":
        return tuple(tensor.numpy() for tensor in tensors)
    pinned = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
    for copy, tensor in zip(pinned, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return tuple(copy.numpy() for copy in pinned)


def fitting(device: torch.device, bytes_each: int, on_cpu: int, most: int) -> int:
    """Return how many items one pass takes: on the CPU `on_cpu`, on CUDA what fits the memory that is free now, 1 to `most`.

    bytes_each: what one item needs at the widest place of the network; an estimate, since `in_parts` mends too high ones.
    """
    if device.type != "cuda":
        return on_cpu
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(most, free // _SHARE // bytes_each))


def in_parts(run: Callable[[int, int], _Part], count: int, at_once: int) -> list[_Part]:
    """Return run(start, stop) over 0..count in parts of `at_once`; a part that the memory does not hold is halved and tried again.

    torch.OutOfMemoryError when a part of one is still too large.
    """
    parts: list[_Part] = []
    start = 0
    while start < count:
        stop = min(start + at_once, count)
        try:
            parts.append(run(start, stop))
        except torch.OutOfMemoryError:
            if stop - start == 1:
                raise
            at_once = (stop - start) // 2
        else:
            start = stop
            continue
        # Outside of the handler, whose traceback still held the tensors of the pass.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return parts
