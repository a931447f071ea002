"""Stage 2, embed: aligned chips of the faces go through a deep network and come back as unit vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facepipe.alignment import align
from facepipe.types import Embedder, Embeddings, Face, Image, UInt8

#: Chips that are cut before the network runs: enough to fill its batches, little enough to hold in memory.
POOL = 256


def embed_faces(
    embedder: Embedder, images: Sequence[Image], faces_per_image: Sequence[Sequence[Face]]
) -> list[Embeddings]:
    """Embed the faces of many pictures: one Embeddings per picture, its vectors in the order of its faces.

    The faces of all pictures share batches, since a network is several times faster on full ones, and most pictures
    hold one or two faces. At most `POOL` chips more than one picture's are in memory at a time. ValueError when there
    are not as many lists of faces as pictures; NoFaceError as `align` raises it.
    """
    if len(images) != len(faces_per_image):
        raise ValueError(f"expected a list of faces for each of {len(images)} images, got {len(faces_per_image)}")
    vectors: list[np.ndarray] = []
    pool: list[UInt8] = []
    for image, faces in zip(images, faces_per_image, strict=True):
        if faces:
            pool.append(align(image, faces, embedder.template))
        if sum(len(chips) for chips in pool) >= POOL:
            vectors.append(embedder.embed(np.concatenate(pool)).vectors)
            pool.clear()
    if pool:
        vectors.append(embedder.embed(np.concatenate(pool)).vectors)
    stacked = np.concatenate(vectors) if vectors else np.zeros((0, embedder.dim), np.float32)
    results, start = [], 0
    for faces in faces_per_image:
        results.append(Embeddings(stacked[start : start + len(faces)], embedder.fingerprint))
        start += len(faces)
    return results
