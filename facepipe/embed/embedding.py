"""Step 2: aligned chips of the faces go through a deep network and come back as unit vectors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from facepipe.embed.alignment import align
from facepipe.types import Described, Detected, Embedder, Embeddings, Float32, UInt8

#: Chips that are cut before the network runs: enough to fill its batches, little enough to hold in memory.
POOL = 256


def embed(embedder: Embedder, photos: Iterable[Detected]) -> list[Described]:
    """Embed the faces of many photos.

    The faces of all photos share batches, since a network is several times faster on full ones, and most photos hold one
    or two faces. Photos are drawn one at a time, and their larger pixels are not kept; at most `POOL` chips more than one
    photo's are in memory at a time. NoFaceError as `align` raises it.
    """
    vectors: list[Float32] = []
    pool: list[UInt8] = []
    drawn: list[Detected] = []
    for photo in photos:
        drawn.append(Detected(photo.image, photo.faces))
        if photo.faces:
            pool.append(align(photo.larger or photo.image, photo.faces, embedder.template))
        if sum(len(chips) for chips in pool) >= POOL:
            vectors.append(embedder.embed(np.concatenate(pool)).vectors)
            pool.clear()
    if pool:
        vectors.append(embedder.embed(np.concatenate(pool)).vectors)
    stacked = np.concatenate(vectors) if vectors else np.zeros((0, embedder.dim), np.float32)
    ends = np.cumsum([len(photo.faces) for photo in drawn], dtype=np.int64)
    return [
        Described(
            photo.image.path,
            (photo.image.width, photo.image.height),
            photo.faces,
            Embeddings(stacked[end - len(photo.faces) : end], embedder.fingerprint),
            photo.image,
        )
        for photo, end in zip(drawn, ends, strict=True)
    ]
