"""Which device and which number format the networks run on."""

from __future__ import annotations

import re

import torch

from facepipe.errors import DeviceError


def resolve_device(text: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:N` names.

    `auto` is the first CUDA device where there is one, else the CPU. DeviceError for any other text, and for a CUDA
    device that was asked for and is not there: an explicit choice is never replaced silently.
    """
    if text == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", text)
    if match is None:
        raise DeviceError(f"no device {text!r}; choose auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise DeviceError(f"device {text!r} is not here: torch sees no CUDA device; use --device cpu or auto")
    index = int(match.group(1) or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise DeviceError(f"device {text!r} is not here: torch sees {count} CUDA device(s), cuda:0 to cuda:{count - 1}")
    return torch.device(f"cuda:{index}")


def network_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies it natively (CUDA from Ampere on, CPUs with AMX), else float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16", False) else torch.float32
