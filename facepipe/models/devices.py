"""Which device and which number format the networks run on. torch is imported only when it is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from facepipe.errors import DeviceError

if TYPE_CHECKING:
    import torch


def parse_device(text: str) -> tuple[str, int]:
    """Return the kind of device (auto, cpu or cuda) and its number; DeviceError for any other text."""
    match = re.fullmatch(r"(auto|cpu|cuda)(?:(?<=cuda):(\d{1,3}))?", text)
    if match is None:
        raise DeviceError(f"no device {text!r}; choose auto, cpu, cuda or cuda:N")
    return match.group(1), int(match.group(2) or 0)


def resolve_device(text: str) -> torch.device:
    """Return the torch device that `auto`, `cpu`, `cuda` or `cuda:N` names.

    `auto` is the first CUDA device where there is one, else the CPU. DeviceError for any other text, and for a CUDA
    device that was asked for and is not there: an explicit choice is never replaced silently.
    """
    kind, index = parse_device(text)
    import torch

    if kind == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(f"device {text!r} is not available: torch sees no CUDA device; use --device cpu or auto")
    count = torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            f"device {text!r} is not available: torch sees {count} CUDA device(s), cuda:0 to cuda:{count - 1}"
        )
    return torch.device(f"cuda:{index}")


def fast_bfloat16() -> bool:
    """Say whether this processor multiplies bfloat16 natively: AMX, or AVX-512 from AMD's Zen 4 and Intel's Cooper Lake on.

    False where torch is too old to say.
    """
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def network_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies it natively (CUDA from Ampere on, see `fast_bfloat16`), else float32."""
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = fast_bfloat16()
    return torch.bfloat16 if native else torch.float32
