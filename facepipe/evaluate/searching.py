"""Searches of probes in a gallery, as arrays: who came first, with what score, and how far behind the second was.

Shared by the open-set protocol (`identify`) and by calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.photo_set import QUALITY
from facepipe.types import Float32, Int64

#: Ways to make one score of a person's enrolled faces. `mean` is what the gallery's templates are.
FUSIONS = ("mean", "weighted", "best")


def unit(vectors: Float64) -> Float64:
    """Scale rows to unit length; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0.0, length, 1.0), dtype=np.float64)


def quality_weight(quality: Float32) -> Float64:
    """Return a weight above 0 for each face, from its quality columns (n, 8): large, sharp and frontal weighs more.

    Each factor saturates: beyond 112 px, or sharpness 300, a face gets no better for the network.
    """
    column = {name: quality[:, i].astype(np.float64) for i, name in enumerate(QUALITY)}
    size = np.clip(column["size"] / 112.0, 0.1, 1.0)
    sharp = np.clip(column["sharpness"] / 300.0, 0.1, 1.0)
    frontal = np.clip(np.cos(np.deg2rad(column["yaw"])), 0.2, 1.0)
    return np.asarray(np.sqrt(size * sharp) * frontal * np.clip(column["score"], 0.1, 1.0), dtype=np.float64)


def fuse(vectors: Float32, owners: Int64, people: int, weights: Float64 | None = None) -> Float64:
    """Return the unit mean of each person's vectors, (people, d); zeros for a person without one.

    vectors: (n, d). owners: (n,), 0-based person. weights: (n,), all 1 when None.
    """
    total = np.zeros((people, vectors.shape[1]))
    weighted = vectors.astype(np.float64) * (1.0 if weights is None else weights[:, None])
    np.add.at(total, owners, weighted)
    return unit(total)


def person_scores(
    probes: Float32, vectors: Float32, owners: Int64, people: int, fusion: str, quality: Float32 | None = None
) -> Float64:
    """Return the score of each probe with each person, (probes, people); -inf for a person without a vector.

    quality: (n, 8), needed by the fusion "weighted".
    """
    there = np.bincount(owners, minlength=people) > 0
    if fusion == "best":
        scores = np.full((len(probes), people), -np.inf)
        single = probes.astype(np.float64) @ vectors.astype(np.float64).T
        for person in np.flatnonzero(there):
            scores[:, person] = single[:, owners == person].max(axis=1)
        return scores
    if fusion not in FUSIONS:
        raise ValueError(f"fusion: expected one of {FUSIONS}, got {fusion!r}")
    weights = quality_weight(quality) if fusion == "weighted" and quality is not None else None
    scores = probes.astype(np.float64) @ fuse(vectors, owners, people, weights).T
    scores[:, ~there] = -np.inf
    return np.asarray(scores, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Searches:
    """Searches and what came first.

    top, second: float64 (n,), scores of the first and second candidate, -inf where there is none (no face in the probe,
        an empty gallery).
    best: int64 (n,), who came first.
    right: bool (n,), that is the person.
    rank: float64 (n,), of the person, inf when it cannot be found.
    mated: bool (n,), the person is enrolled.
    unit: int64 (n,), which person searched, over the whole evaluation.
    source: int64 (n,), index into `sources`.
    trial: int64 (n,), which repetition.
    """

    top: Float64
    second: Float64
    best: Int64
    right: NDArray[np.bool_]
    rank: Float64
    mated: NDArray[np.bool_]
    unit: Int64
    source: Int64
    trial: Int64
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.top)

    def accepted_score(self, margin: float = 0.0) -> Float64:
        """Return the top score where the first leads the second by the margin, else -inf: no name is shown."""
        with np.errstate(invalid="ignore"):
            leads = ~(self.top - self.second < margin)
        return np.where(leads, self.top, -np.inf)

    def hits(self, margin: float = 0.0) -> Float64:
        """Return for searches by enrolled people the score at which their own name is shown, -inf where it never is."""
        return np.where(self.right, self.accepted_score(margin), -np.inf)[self.mated]

    def strangers(self, margin: float = 0.0) -> Float64:
        """Return for searches by strangers the score at which a name is shown; those without a face are left out."""
        return self.accepted_score(margin)[self.impostor]

    @property
    def impostor(self) -> NDArray[np.bool_]:
        """Which searches are by strangers and could be made."""
        return ~self.mated & np.isfinite(self.top)

    def take(self, chosen: NDArray[np.bool_]) -> Searches:
        """Return the chosen searches."""
        columns: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _COLUMNS}
        return replace(self, **columns)


_COLUMNS = ("top", "second", "best", "right", "rank", "mated", "unit", "source", "trial")


def rank_searches(
    scores: Float64,
    found: NDArray[np.bool_],
    mates: Int64,
    units: Int64,
    source: Int64,
    sources: Sequence[str],
    trial: int = 0,
) -> Searches:
    """Order the candidates of each probe.

    scores: (probes, people). found: (probes,), the probe has a face. mates: (probes,), column of the probe's own person,
    -1 for a stranger. units, source: as in `Searches`.
    """
    rows = np.arange(len(scores))
    usable = np.where(found[:, None], scores, -np.inf)
    padded = np.concatenate([usable, np.full((len(scores), 2), -np.inf)], axis=1)
    best = np.argmax(padded, axis=1)
    top_two = np.partition(padded, -2, axis=1)[:, -2:]
    top, second = top_two[:, 1], top_two[:, 0]
    own = np.where(mates >= 0, padded[rows, mates], -np.inf)
    # Equal scores count against the person: a tie is not a recognition.
    ahead = (padded >= own[:, None]).sum(axis=1) - 1
    rank = np.where((mates >= 0) & np.isfinite(own), ahead + 1.0, np.inf)
    return Searches(
        top,
        second,
        best.astype(np.int64),
        (best == mates) & np.isfinite(own) & (rank == 1.0),
        rank,
        mates >= 0,
        units.astype(np.int64),
        source.astype(np.int64),
        np.full(len(scores), trial, np.int64),
        tuple(sources),
    )


def join(parts: Sequence[Searches]) -> Searches:
    """Join searches of several repetitions; their sources must be the same."""
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    return replace(parts[0], **columns)
