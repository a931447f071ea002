"""Nearest neighbours among very many clusters: in cells around centres where that is faster at a measured recall, else exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from facepipe.match.exact import ExactIndex
from facepipe.types import Float32, Index, Int64

#: Comparisons up to which the search is exact: 100,000 faces with each other are.
EXACT_COMPARISONS = 150_000**2
#: Share of clusters whose nearest neighbour must be found, of so many that are tried.
RECALL, _PROBES = 0.99, 500
#: Share of the cells beyond which comparing all with all is faster: a comparison in a cell takes ten times as long (200,000 faces:
#: 29 % of the cells for the recall, 21 s for 4,096 clusters; all with all 7 s).
SHARE = 0.1
#: Vectors for each cell that the centres are learned from.
_TRAINING = 40


class CellIndex:
    """An index over vectors, float32 (n, d), that looks into the cells nearest to a probe. recall: as it was measured.

    share: of the cells that are looked into at most, also where that is not enough for `RECALL`.
    """

    def __init__(self, vectors: Float32, share: float = 1.0) -> None:
        import faiss

        count, dim = vectors.shape
        cells = max(1, round(2 * count**0.5))
        self._centres = faiss.IndexFlatIP(dim)  # which the other one only refers to
        self._index: Any = faiss.IndexIVFFlat(self._centres, dim, cells, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.niter = 10
        rng = np.random.default_rng(0)
        self._index.train(vectors[np.sort(rng.permutation(count)[: _TRAINING * cells])])
        self._index.add(vectors)
        probes = vectors[rng.permutation(count)[:_PROBES]]
        wanted = ExactIndex(vectors).search(probes, 2)[0][:, -1]  # the first is the probe itself
        most = max(1, int(share * cells))
        self._index.nprobe = min(4, most)
        while True:
            found = self._index.search(probes, 2)[0][:, -1]
            self.recall = float(np.mean(found >= wanted - 1e-5))
            if self.recall >= RECALL or self._index.nprobe >= most:
                break
            self._index.nprobe = min(2 * self._index.nprobe, most)

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """See `Index.search`."""
        scores, rows = self._index.search(vectors, k)
        return scores, rows


def neighbours_of(vectors: Float32, probes: int) -> Index:
    """Return an index over vectors for so many searches."""
    if probes * len(vectors) > EXACT_COMPARISONS:
        cells = CellIndex(vectors, SHARE)
        if cells.recall >= RECALL:
            return cells
    return ExactIndex(vectors)
