"""What the benchmarks share: the machine in one line, the peer made importable, figures with their spread."""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> str:
    """Return processor, cores, Python and the versions that matter, in one line."""
    model = platform.processor() or "processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = lines[0] if lines else model
    packages = ("torch", "facenet-pytorch", "opencv-python", "faiss-cpu", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def limit_threads(count: int = 1) -> None:
    """Let one operation of the libraries that are loaded already use this many threads.

    OpenMP keeps the number for each calling thread, so every thread that works calls this.
    """
    for library, function in (("torch", "set_num_threads"), ("cv2", "setNumThreads"), ("faiss", "omp_set_num_threads")):
        if library in sys.modules:
            getattr(importlib.import_module(library), function)(count)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return median, least and greatest of the values, and how many there are."""
    return f"median {statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}, n = {len(values)})"


def import_facenet_pytorch() -> tuple[Any, str]:
    """Import the peer; return it and how its suppression runs.

    torchvision's compiled operators exist for the CUDA build of torch only. Where they do not load (a CPU-only build of torch)
    the one that the peer needs, non-maximum suppression, is stood in for by OpenCV's, which is at least as fast.
    """
    import torch

    register_fake = torch.library.register_fake
    torch.library.register_fake = lambda *_, **__: lambda function: function
    try:
        import torchvision
    finally:
        torch.library.register_fake = register_fake
    how = "torchvision's own NMS"
    if not torchvision.extension._has_ops():
        how = "OpenCV's NMS in place of torchvision's, whose operators do not load beside this torch"
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _nms, "CPU")
        torchvision.extension._has_ops = lambda: True
        import_facenet_pytorch.keep = library  # type: ignore[attr-defined]  # unregistered when it is collected
    import facenet_pytorch

    return facenet_pytorch, how


def _nms(boxes: Any, scores: Any, threshold: float) -> Any:
    import cv2
    import torch

    if not len(boxes):
        return torch.zeros(0, dtype=torch.long)
    rectangles = boxes.double().numpy().copy()
    rectangles[:, 2:] -= rectangles[:, :2]
    keep = cv2.dnn.NMSBoxes(rectangles, scores.numpy(), 0.0, threshold)
    return torch.as_tensor(np.asarray(keep).reshape(-1).astype(np.int64))
