"""How many threads the native libraries use while facepipe's own threads run beside each other.

torch, OpenCV, FAISS and OpenMP each want all cores, and together they fight over them. Where facepipe runs several pictures at a
time, each on one thread, the same cores have nothing to wait for. The command line says so before a library loads (`cli.process`);
in somebody else's program the numbers are borrowed, and put back.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from facepipe.borrowing import Borrowed

#: How to read and to set each library's number. FAISS keeps it for each thread: there is nothing to put back in the others.
_NUMBERS: dict[str, tuple[str, str]] = {
    "torch": ("get_num_threads", "set_num_threads"),
    "cv2": ("getNumThreads", "setNumThreads"),
    "faiss": ("omp_get_max_threads", "omp_set_num_threads"),
}
#: The numbers before facepipe changed them.
_before: dict[str, int] = {}


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def limit(count: int = 1) -> None:
    """Let one operation of the libraries that are loaded use this many threads; see `borrowed`.

    OpenMP keeps the number for each calling thread, so every thread that works calls this, and again after something was loaded.
    """
    for name in _NUMBERS:
        if (functions := _functions(name)) is not None:
            read, write = functions
            _before.setdefault(name, read())
            write(count)


def _borrow() -> Callable[[], None]:
    _before.clear()
    for name in _NUMBERS:
        if (functions := _functions(name)) is not None:
            _before[name] = functions[0]()
    return _put_back


def _put_back() -> None:
    for name, count in _before.items():
        if name != "faiss" and (functions := _functions(name)) is not None:
            functions[1](count)


#: The context in which threads of facepipe's own may call `limit`.
borrowed = Borrowed(_borrow)


def _functions(name: str) -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Return how to read and set the number of a library that is loaded; one that is being loaded at this moment is waited for."""
    if name not in sys.modules:
        return None
    library = importlib.import_module(name)
    read, write = _NUMBERS[name]
    return getattr(library, read), getattr(library, write)
