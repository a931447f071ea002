"""The template of a person: what step 3 compares a face with."""

from __future__ import annotations

import numpy as np

from facepipe.types import Float32, Int64


def unit_means(vectors: Float32, starts: Int64) -> Float32:
    """Return the unit mean of each group of rows, float32 (g, d).

    vectors: float32 (n, d), the groups one after the other. starts: int64 (g,), first row of each group, rising. A
    group of one keeps its vector bit for bit. A group whose mean is zero (opposite vectors) keeps its first vector.
    """
    if len(starts) == len(vectors):
        return vectors
    sums = np.add.reduceat(vectors, starts, axis=0, dtype=np.float32)
    counts = np.diff(np.append(starts, len(vectors)))
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    flat = norms[:, 0] < 1e-6
    means = np.asarray(sums / np.where(flat[:, None], 1.0, norms), np.float32)
    keep = flat | (counts == 1)
    means[keep] = vectors[starts[keep]]
    return means
