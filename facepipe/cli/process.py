"""What the command line sets for its own process, and no library may: how many threads one operation takes.

torch, OpenCV, FAISS and OpenMP each want all cores, and together they fight over them. facepipe runs several pictures at a time
instead, each on one thread, which uses the same cores with nothing to wait for.
"""

from __future__ import annotations

import gc
import os

from facepipe.errors import UsageError

#: Compiled kernels that oneDNN keeps: those that recur. By default it keeps 1,024, and fills that with sizes seen once.
_KERNELS = 200
#: New objects after which the collector looks for circles: with Python's 700 the import of torch takes a tenth longer.
_ALLOCATED = 50_000
#: Read by OpenMP (torch, FAISS, onnxruntime here), OpenBLAS, MKL and OpenCV when they load.
_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def settle() -> None:
    """Tell the native libraries, none of which is loaded yet, to take FACEPIPE_THREADS threads for an operation, else one.

    Waiting threads sleep instead of spinning: on a shared machine spinning takes the cores from those who have work.
    Errors: UsageError when FACEPIPE_THREADS is not a whole number above 0.
    """
    text = os.environ.get("FACEPIPE_THREADS") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"FACEPIPE_THREADS: expected a whole number above 0, got {text!r}")
    os.environ.update(dict.fromkeys(_COUNTS, text))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))
    gc.set_threshold(_ALLOCATED, *gc.get_threshold()[1:])


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
