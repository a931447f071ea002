"""The one place that decides how many threads the native libraries use.

torch, OpenCV, FAISS and OpenMP each want all cores, and together they fight over them. facepipe runs several pictures at a time
instead, each on one thread, which uses the same cores with nothing to wait for.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from facepipe.errors import UsageError

#: Compiled kernels that oneDNN keeps: those that recur. By default it keeps 1,024, and fills that with sizes seen once.
_KERNELS = 200
#: Read by OpenMP, OpenBLAS and MKL when they load.
_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def wanted(default: int = 1) -> int:
    """Return the threads for one operation: FACEPIPE_THREADS, else `default`; UsageError when it is not a number above 0."""
    text = os.environ.get("FACEPIPE_THREADS", "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"FACEPIPE_THREADS: expected a whole number above 0, got {text!r}")
    return int(text)


def prepare(count: int = 1) -> None:
    """Tell the native libraries that are not loaded yet; variables that the user has set stay as they are.

    Waiting threads sleep instead of spinning: on a shared machine spinning takes the cores from those who have work.
    """
    for name in _COUNTS:
        os.environ.setdefault(name, str(count))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))


def limit(count: int = 1) -> None:
    """Let one operation of the libraries that are loaded use this many threads.

    OpenMP keeps the number for each calling thread, so every thread that works calls this once.
    """
    prepare(count)
    if (torch := _loaded("torch")) is not None:
        torch.set_num_threads(count)
    if (cv2 := _loaded("cv2")) is not None:
        cv2.setNumThreads(count)
    if (faiss := _loaded("faiss")) is not None:
        faiss.omp_set_num_threads(count)


def _loaded(name: str) -> ModuleType | None:
    """Return a library that is loaded; one that another thread is loading at this moment is waited for."""
    return importlib.import_module(name) if name in sys.modules else None
