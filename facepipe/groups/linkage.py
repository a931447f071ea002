"""Average linkage of unit vectors, exact and without a matrix of similarities (Sokal and Michener 1958).

The mean cosine between the faces of two clusters is the inner product of their mean vectors. So the nearest clusters of each come
from one search through FAISS, and pairs that are each other's nearest are joined, all at once. Average linkage is reducible
(Bruynooghe 1977): a joined cluster is to a third one no nearer than its nearer part was. So the order in which such pairs are joined
does not matter; whoever has nobody within the threshold never will, and leaves the search; and all that a search did not return
stays below the least that it did, so that most of what follows needs no other search. Memory: O(n). Beyond some 150,000 faces the
first search is approximate where that is faster, with a measured recall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from facepipe.groups.neighbours import neighbours_of
from facepipe.match.matcher import inner_products
from facepipe.types import Float32, Int64

#: Neighbours that each cluster remembers.
_NEIGHBOURS = 12
#: Clusters whose neighbours are compared at a time.
_BLOCK = 4096

Tokens = Sequence[Iterable[Hashable] | None]


def link(vectors: Float32, threshold: float, tokens: Tokens = (), start: Int64 | None = None) -> Int64:
    """Return the cluster of each vector, int64 (n,): the place of the cluster's first vector.

    vectors: float32 (n, d), unit. threshold: mean cosine down to which clusters are joined, the most similar first.
    tokens: of each vector what its cluster carries: clusters that have a token in common are never joined (two faces of one photo).
    start: int64 (n,), clusters to begin with; None: each vector by itself.
    """
    owner = _first_owners(vectors, tokens, start)
    return _first_of_each(_Linkage(vectors, owner, tokens, threshold).run()[owner])


def link_down(
    vectors: Float32, limit: Callable[[int], float], tokens: Tokens = (), start: Int64 | None = None
) -> tuple[Int64, float]:
    """Return the clusters as `link`, and the threshold, which depends on how many clusters there are.

    limit: the threshold for so many clusters, not falling. It begins with that for as many as there are vectors, and goes down in
    whole steps, so that it ends at the same one when it begins with the clusters that it returned: nothing moves without news.
    """
    threshold = _step_above(limit(len(vectors)))
    labels = link(vectors, threshold, tokens, start)
    while (lower := _step_above(limit(len(np.unique(labels))))) < threshold:
        labels = link(vectors, threshold := lower, tokens, labels)
    return labels, threshold


#: A threshold that falls by less changes nothing that matters.
_STEP = 0.002


def _step_above(threshold: float) -> float:
    return round(math.ceil(round(threshold / _STEP, 6)) * _STEP, 6)


def mean_cosine(mean: Float32, size: int) -> float:
    """Return the mean cosine of two of so many unit vectors with this mean, 1 for a single one."""
    return 1.0 if size < 2 else float((size * float(mean @ mean) - 1.0) / (size - 1))


class _Linkage:
    """Clusters on the way, by number; of two that are joined the lower number lives on, and `root` says which.

    means: float32 (n, d), not unit. near: int64 (n, k), neighbours as they were found; -1: none. value: float32 (n, k), their mean
    cosines at most. bound: float32 (n,), nobody else is nearer. best, cosine: the nearest, and its mean cosine.
    """

    def __init__(self, vectors: Float32, owner: Int64, tokens: Tokens, threshold: float) -> None:
        self.threshold = threshold
        self.sizes = np.bincount(owner).astype(np.int64)
        count = len(self.sizes)
        starts = np.cumsum(self.sizes) - self.sizes
        sorted_vectors = vectors[np.argsort(owner, kind="stable")]
        sums = np.add.reduceat(sorted_vectors, starts, axis=0, dtype=np.float32) if count else sorted_vectors
        self.means = np.ascontiguousarray(sums / self.sizes[:, None].astype(np.float32), np.float32)
        self.tokens: list[set[Hashable] | None] = [None] * count
        for cluster, some in zip(owner.tolist(), tokens, strict=False):
            if some:
                self.tokens[cluster] = (self.tokens[cluster] or set()) | set(some)
        self.root = np.arange(count, dtype=np.int64)
        self.near = np.full((count, _NEIGHBOURS), -1, np.int64)
        self.value = np.full((count, _NEIGHBOURS), -np.inf, np.float32)
        self.bound = np.full(count, np.inf, np.float32)
        self.best = self.root.copy()
        self.cosine = np.full(count, -np.inf, np.float32)

    def run(self) -> Int64:
        """Join until nothing is near enough; return which cluster each lives on in."""
        active = stale = self.root.copy()
        while len(active) > 1:
            self._find(stale, active)
            active = active[self.cosine[active] >= self.threshold]
            first = self._mutual(active)
            if not len(first):
                break
            second = self.best[first]
            self._join(first, second)
            touched = np.zeros(len(self.root), bool)
            touched[first] = touched[second] = True
            active = active[self.root[active] == active]
            stale = active[touched[active] | touched[self.best[active]]]
        return self.root

    def _find(self, stale: Int64, active: Int64) -> None:
        """Bring some clusters' nearest neighbours up to date: by what they remember, or by a search where that is not enough."""
        for block in _blocks(stale):
            self._recall(block)
        wanted = _NEIGHBOURS + 1
        todo = stale[self._unsure(stale)]
        if not len(todo):
            return
        index = neighbours_of(np.ascontiguousarray(self.means[active]), len(todo))
        while len(todo):
            wanted = min(wanted, len(active))
            for block in _blocks(todo):
                found = index.search(self.means[block], wanted)[1]
                near = np.where(found < 0, -1, active[found])
                rest = np.full(len(block), -2.0, np.float32)
                self._keep(block, near, rest if wanted == len(active) else None)
            todo, wanted = todo[self._unsure(todo)], wanted * 4

    def _unsure(self, some: Int64) -> NDArray[np.bool_]:
        """Say which may have somebody within the threshold who is nearer than the nearest that is known."""
        return np.asarray((self.cosine[some] < self.bound[some]) & (self.bound[some] >= self.threshold), np.bool_)

    def _recall(self, some: Int64) -> None:
        """Compare again with the neighbours that are remembered."""
        near = np.where(self.near[some] < 0, -1, self.root[self.near[some]])
        self._keep(some, near, self.bound[some])

    def _keep(self, some: Int64, near: Int64, bound: Float32 | None) -> None:
        """Compare with clusters, and remember the nearest who may be joined. bound: of all others; None: the least of these."""
        value = inner_products(self.means[near], self.means[some, None])
        least = value.min(axis=1) if bound is None else bound
        value[(near < 0) | (near == some[:, None])] = -np.inf
        order = np.lexsort((near, -value))
        near, value = np.take_along_axis(near, order, axis=1), np.take_along_axis(value, order, axis=1)
        for row, me in enumerate(some.tolist()):
            if mine := self.tokens[me]:
                for place, other in enumerate(near[row].tolist()):
                    others = self.tokens[other]
                    if value[row, place] < self.threshold or not others or mine.isdisjoint(others):
                        break  # the nearest who may be joined; those behind are looked at when it is their turn
                    value[row, place] = -np.inf
        order = np.argsort(-value, axis=1, kind="stable")[:, : _NEIGHBOURS + 1]
        near, value = np.take_along_axis(near, order, axis=1), np.take_along_axis(value, order, axis=1)
        if value.shape[1] > _NEIGHBOURS:
            least = np.maximum(least, value[:, _NEIGHBOURS])
        kept = min(value.shape[1], _NEIGHBOURS)
        self.near[some] = -1
        self.near[some, :kept], self.value[some, :kept] = near[:, :kept], value[:, :kept]
        self.bound[some], self.cosine[some] = least, value[:, 0]
        self.best[some] = np.where(value[:, 0] > -np.inf, near[:, 0], some)

    def _mutual(self, active: Int64) -> Int64:
        """Return the lower of each two clusters that are each other's nearest; of ties without any, the most similar pair's."""
        best = self.best
        first: Int64 = active[(best[best[active]] == active) & (active < best[active])]
        if len(first) or not len(active):
            return first
        top = int(active[np.argmax(self.cosine[active])])
        low, high = sorted((top, int(best[top])))
        best[low] = high
        return np.array([low], np.int64)

    def _join(self, first: Int64, second: Int64) -> None:
        """Join each second cluster to its first."""
        sizes = self.sizes[first] + self.sizes[second]
        share = (self.sizes[second] / sizes).astype(np.float32)
        self.means[first] += share[:, None] * (self.means[second] - self.means[first])
        self.sizes[first] = sizes
        self.root[second] = first
        self.root = self.root[self.root]
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            mine, others = self.tokens[a], self.tokens[b]
            if mine and others:
                small, large = sorted((mine, others), key=len)
                large |= small
                self.tokens[a] = large
            else:
                self.tokens[a] = mine or others
            self.tokens[b] = None
        for low in range(0, len(first), _BLOCK):
            a, b, part = first[low : low + _BLOCK], second[low : low + _BLOCK], share[low : low + _BLOCK]
            near = np.concatenate([self.near[a], self.near[b]], axis=1)
            bound = self.bound[a] + part * (self.bound[b] - self.bound[a])
            self._keep(a, np.where(near < 0, -1, self.root[near]), bound)


def _blocks(some: Int64) -> list[Int64]:
    return [some[start : start + _BLOCK] for start in range(0, len(some), _BLOCK)]


def _first_owners(vectors: Float32, tokens: Tokens, start: Int64 | None) -> Int64:
    """Return the number of the cluster that each vector begins in.

    Equal vectors begin together: nothing is nearer, and of many copies one after the other would have to be joined.
    """
    if start is None:
        start = np.arange(len(vectors), dtype=np.int64)
    owner = np.unique(start, return_inverse=True)[1].reshape(-1).astype(np.int64)
    if not len(vectors):
        return owner
    alone = np.flatnonzero(np.bincount(owner)[owner] == 1)
    rows = np.ascontiguousarray(vectors[alone])
    same = np.unique(rows.view(np.dtype((np.void, rows.strides[0]))).reshape(-1), return_inverse=True)[1].reshape(-1)
    if len(same) == same.max(initial=-1) + 1:
        return owner
    kept: dict[tuple[int, int], tuple[int, set[Hashable]]] = {}
    for place, copy in zip(alone.tolist(), same.tolist(), strict=True):
        mine, number = set(tokens[place] or ()) if len(tokens) else set(), 0
        while (copy, number) in kept and not mine.isdisjoint(kept[copy, number][1]):
            number += 1
        home, theirs = kept.setdefault((copy, number), (int(owner[place]), set()))
        theirs.update(mine)
        owner[place] = home
    return np.unique(owner, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _first_of_each(labels: Int64) -> Int64:
    """Return for each label the place where it stands first."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)].astype(np.int64)
