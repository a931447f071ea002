"""Step 2: aligned chips of the faces go through a deep network and come back as unit vectors."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from facepipe.embed.alignment import align
from facepipe.embed.judging import judge
from facepipe.types import Described, Detected, Embedder, Embeddings, UInt8

#: Chips that are cut before the network runs: enough to fill its batches, little enough to hold in memory.
POOL = 256


def embed(embedder: Embedder, photos: Iterable[Detected], min_score: float = 0.0) -> list[Described]:
    """Embed the faces of many photos, and judge by the embeddings how usable they are and whether they are faces at all.

    min_score: least score of a face after that; see `DetectOptions`.

    The faces of all photos share batches, since a network is several times faster on full ones, and most photos hold one
    or two faces. Photos are drawn one at a time, and their larger pixels are not kept; at most `POOL` chips more than one
    photo's are in memory at a time. NoFaceError as `align` raises it.
    """
    found: list[Embeddings] = []
    pool: list[UInt8] = []
    drawn: list[Detected] = []
    for photo in photos:
        drawn.append(Detected(photo.image, photo.faces))
        if photo.faces:
            pool.append(align(photo.larger or photo.image, photo.faces, embedder.template))
        if sum(len(chips) for chips in pool) >= POOL:
            found.append(embedder.embed(np.concatenate(pool)))
            pool.clear()
    if pool:
        found.append(embedder.embed(np.concatenate(pool)))
    empty = np.zeros((0, embedder.dim), np.float32)
    vectors = np.concatenate([empty, *(some.vectors for some in found)])
    judged = iter(judge([face for photo in drawn for face in photo.faces], found))
    described, end = [], 0
    for photo in drawn:
        start, end = end, end + len(photo.faces)
        rows = list(zip(islice(judged, end - start), range(start, end), strict=True))
        # Best score first: what the embedding says may change the order.
        rows = sorted((pair for pair in rows if pair[0].score >= min_score), key=lambda pair: -pair[0].score)
        described.append(
            Described(
                photo.image.path,
                (photo.image.width, photo.image.height),
                tuple(face for face, _ in rows),
                Embeddings(vectors[[row for _, row in rows]].reshape(-1, embedder.dim), embedder.fingerprint),
                photo.image,
            )
        )
    return described
