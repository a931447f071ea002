"""Stage 2, embed: aligned chips of the faces go through a deep network and come back as unit vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from facepipe.embed.alignment import align
from facepipe.types import Embedder, Embeddings, Face, Float32, Image, UInt8

#: Chips that are cut before the network runs: enough to fill its batches, little enough to hold in memory.
POOL = 256


def embed_faces(embedder: Embedder, photos: Iterable[tuple[Image, Sequence[Face]]]) -> list[Embeddings]:
    """Embed the faces of many pictures: one Embeddings per picture, its vectors in the order of its faces.

    The faces of all pictures share batches, since a network is several times faster on full ones, and most pictures
    hold one or two faces. Pictures are drawn one at a time and not kept; at most `POOL` chips more than one picture's are in
    memory at a time. NoFaceError as `align` raises it.
    """
    vectors: list[Float32] = []
    pool: list[UInt8] = []
    counts: list[int] = []
    for image, faces in photos:
        counts.append(len(faces))
        if faces:
            pool.append(align(image, faces, embedder.template))
        if sum(len(chips) for chips in pool) >= POOL:
            vectors.append(embedder.embed(np.concatenate(pool)).vectors)
            pool.clear()
    if pool:
        vectors.append(embedder.embed(np.concatenate(pool)).vectors)
    stacked = np.concatenate(vectors) if vectors else np.zeros((0, embedder.dim), np.float32)
    ends = np.cumsum(counts, dtype=np.int64)
    return [
        Embeddings(stacked[end - count : end], embedder.fingerprint) for end, count in zip(ends, counts, strict=True)
    ]
