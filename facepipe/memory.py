"""Arrays that live a while, apart from the C library's heap.

Photos wait in queues while the networks' temporary arrays come and go. In one heap they leave holes between them that are never
given back, and a long batch grows. An array of its own pages costs a few microseconds and leaves nothing behind.
"""

from __future__ import annotations

import mmap
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)


def apart(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return a copy of an array, of any shape and at least one element, in memory of its own."""
    copy = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
