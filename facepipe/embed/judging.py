"""Part of step 2: what the embeddings say about the faces: how usable each is, and whether it is a face at all.

The detector takes a dog, a lamp or a pattern for a face now and then. The embedder was never shown such things, and its output for
them is short, as it is for a face that is blurred or covered (`facepipe.models.registry.Lengths`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from facepipe.types import Embeddings, Face

#: Log-odds of a score are those of one this far from 0 and 1.
_CLEAR = 1e-4


def judge(faces: Sequence[Face], found: Iterable[Embeddings]) -> list[Face]:
    """Return the faces with their quality, and with a lower score where the embedding hardly is one of a face.

    found: the embeddings of all faces, in their order, in parts. A score is never raised.
    """
    judged: list[Face] = []
    for part in found:
        some = faces[len(judged) : len(judged) + len(part)]
        if part.usable is not None:
            usable = part.usable.tolist()
            some = [replace(f, quality=replace(f.quality, usable=u)) for f, u in zip(some, usable, strict=True)]
        if part.evidence is not None:
            evidence = part.evidence.tolist()
            some = [
                replace(f, score=_lowered(f.score, e)) if e < 0.0 else f for f, e in zip(some, evidence, strict=True)
            ]
        judged += some
    return judged


def _lowered(score: float, evidence: float) -> float:
    inside = min(max(score, _CLEAR), 1.0 - _CLEAR)
    odds = np.log(inside / (1.0 - inside)) + evidence
    return min(score, float(1.0 / (1.0 + np.exp(-odds))))
