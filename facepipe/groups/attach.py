"""Which group a face that took no part in the grouping belongs to: one that is doubtful, or taken for somebody else."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from facepipe.groups.pile import Pile
from facepipe.match.exact import ExactIndex
from facepipe.types import Float32, Int64

#: A known face stays with a group that it is so much more like than the person. Of faces that were taken for the first few people who
#: had names, though they were in a group of somebody else, 85 % stay; of those who were the person 1 %.
_MUCH = 0.2
#: Groups that a doubtful face is compared with.
_NEAR = 4


def means_of(pile: Pile, groups: Int64) -> tuple[Int64, Float32, Int64]:
    """Return the groups, their mean vectors, and how many faces each has."""
    rows = np.flatnonzero(groups != -1)
    if not len(rows):
        return np.zeros(0, np.int64), pile.vectors[:0], np.zeros(0, np.int64)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    ids, starts, sizes = np.unique(groups[rows], return_index=True, return_counts=True)
    sums = np.add.reduceat(pile.vectors[rows], starts, axis=0, dtype=np.float32)
    return ids.astype(np.int64), np.asarray(sums / sizes[:, None], np.float32), sizes.astype(np.int64)


def attach(pile: Pile, groups: Int64, waiting: Int64, barred: dict[int, set[Hashable]], threshold: float) -> None:
    """Put the faces that waited into the groups that they are most like."""
    ids, means, _ = means_of(pile, groups)
    if not len(ids) or not len(waiting):
        return
    cosines, near = ExactIndex(means).search(pile.vectors[waiting], min(_NEAR, len(ids)))
    carried: dict[int, set[Hashable]] = {}
    for row in np.flatnonzero(groups != -1).tolist():
        carried.setdefault(int(groups[row]), set()).update(barred.get(row, ()))
    order = np.argsort(-cosines, axis=None, kind="stable")
    for face, place in zip(*np.unravel_index(order, cosines.shape), strict=True):
        row, group = int(waiting[face]), int(ids[near[face, place]])
        if cosines[face, place] < threshold:
            break
        mine = barred.get(row, set())
        if groups[row] == -1 and mine.isdisjoint(carried[group]):
            groups[row] = group
            carried[group] |= mine


def stay(
    pile: Pile, groups: Int64, left: Int64, known: Float32, barred: dict[int, set[Hashable]], threshold: float
) -> None:
    """Let faces stay with groups of several that they are much more like than the person they are taken for."""
    ids, means, sizes = means_of(pile, groups)
    several = sizes > 1
    if not several.any() or not len(left):
        return
    means = means[several]
    unit = np.ascontiguousarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9))
    cosines = ExactIndex(unit).search(pile.vectors[left], 1)[0]
    much = cosines[:, 0] >= known[left] + _MUCH
    among = np.where(np.isin(groups, ids[several]), groups, -1)
    before = among.copy()
    attach(pile, among, left[much], barred, threshold)
    joined = among != before
    groups[joined] = among[joined]
