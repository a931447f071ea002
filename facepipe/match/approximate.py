"""Approximate indexes, re-ranked exactly, and how often they miss somebody.

An approximate index proposes `REFINE` times more people than are asked for; their templates are then compared exactly,
so similarities are always true and only the proposal can miss somebody. How often it does is measured against exact search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from facepipe.errors import UsageError
from facepipe.match.exact import ExactIndex, no_hits
from facepipe.types import Float32, Index, Int64

KINDS = ("pq", "ivf", "hnsw")
#: People proposed for each one asked for; at least this many.
REFINE = 50
#: Least share of probes whose best person must be found for an index to be accepted.
MIN_RECALL = 0.999
_FEWEST = 1000
#: Cosine of a probe with its own template when recall is measured: what different photos of a person have.
_GENUINE = 0.63
_TRAINING = 65_536
_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class IndexReport:
    """How good an index is. recall: share of probes whose best person is the exact one, of `probes` probes."""

    kind: str
    recall: float
    probes: int
    people: int
    build_seconds: float
    bytes: int


class RefinedIndex:
    """What proposes some of the people, exact re-ranking, and exact search over those whom it does not know."""

    def __init__(
        self, propose: Callable[[Float32, int], Int64], templates: Float32, rest: Int64, report: IndexReport
    ) -> None:
        """Join a proposer with the templates that it stands for.

        propose: given vectors, float32 (n, d), and a number, returns rows of `templates`, int64 (n, about that number); -1: nobody.
        templates: float32 (p, d).
        rest: int64, rows of `templates` that are never proposed.
        """
        self._propose = propose
        self._templates = templates
        self._rest = rest
        self._rest_index = ExactIndex(templates[rest])
        self.report = report

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """See `Index.search`."""
        wanted = min(k * REFINE, len(self._templates))
        step = max(1, (64 << 20) // (4 * max(1, wanted) * max(1, vectors.shape[1])))
        parts = [
            self._search_some(np.ascontiguousarray(vectors[start : start + step]), k, wanted)
            for start in range(0, len(vectors), step)
        ]
        if not parts:
            return no_hits(0, k)
        return np.concatenate([scores for scores, _ in parts]), np.concatenate([rows for _, rows in parts])

    def _search_some(self, vectors: Float32, k: int, wanted: int) -> tuple[Float32, Int64]:
        found = self._propose(vectors, wanted)
        values = np.matmul(self._templates[found], vectors[:, :, None])[:, :, 0]  # (n, wanted)
        values[found < 0] = -1.0
        others, places = self._rest_index.search(vectors, min(k, len(self._rest)))
        values = np.concatenate([values, others], axis=1)
        found = np.concatenate([found, self._rest[places]], axis=1)
        best = np.argsort(np.where(found < 0, np.inf, -values), axis=1, kind="stable")[:, :k]
        scores, rows = no_hits(len(vectors), k)
        scores[:, : best.shape[1]] = np.take_along_axis(values, best, axis=1)
        rows[:, : best.shape[1]] = np.take_along_axis(found, best, axis=1)
        return scores, rows


def proposals(index: Any, rows: Int64) -> Callable[[Float32, int], Int64]:
    """Return what a FAISS index proposes, for `RefinedIndex`. rows: int64, row of each of its entries; -1: gone or changed."""

    def propose(vectors: Float32, wanted: int) -> Int64:
        proposed = index.search(vectors, min(wanted, len(rows)))[1]
        return np.where(proposed >= 0, rows[proposed], -1)

    return propose


def require_recall(report: IndexReport, least: float) -> None:
    """UsageError for an index that misses too many."""
    if report.recall < least:
        raise UsageError(
            f"an index of kind {report.kind} finds the right person of {report.people:,} in {report.recall:.4f} of {report.probes} "
            f"probes, less than {least}: choose another kind, or accept it with --min-recall"
        )


def make_proposer(kind: str, templates: Float32) -> Any:
    """Return a trained FAISS index of a kind of `KINDS` over templates, float32 (p, d).

    Errors: UsageError for vectors of odd length or too few people.
    """
    import faiss

    people, dim = templates.shape
    if dim % 2:
        raise UsageError(f"an index of kind {kind} needs vectors of even length, not {dim}: stay with --kind exact")
    if people < _FEWEST:
        raise UsageError(f"{people} people are too few for an index of kind {kind}: exact search needs no index")
    code = f"PQ{dim // 2}x4fs"
    cells = max(16, round(2 * people**0.5))
    spec = {"pq": code, "ivf": f"IVF{cells},{code}", "hnsw": "HNSW32,SQ8"}[kind]
    index: Any = faiss.index_factory(dim, spec, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.nprobe = max(8, cells // 8)
    if kind == "hnsw":
        index.hnsw.efConstruction = 80
        index.hnsw.efSearch = 256
    # A cell wants some dozens to be placed by.
    rows = np.random.default_rng(0).permutation(people)[: max(_TRAINING, 40 * cells) if kind == "ivf" else _TRAINING]
    index.train(templates[np.sort(rows)])
    for start in range(0, people, _BLOCK):
        index.add(templates[start : start + _BLOCK])
    return index


def measure_recall(index: Index, templates: Float32, probes: int = 1000) -> tuple[float, int]:
    """Return the share of probes whose best person equals the exact one, and how many were tried.

    A probe is a template turned away from itself in a random direction to the cosine that photos of a person have.
    """
    rng = np.random.default_rng(1)
    own = templates[rng.permutation(len(templates))[:probes]]
    noise = rng.standard_normal(own.shape).astype(np.float32)
    noise -= (noise * own).sum(axis=1, keepdims=True) * own
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = (_GENUINE * own + np.sqrt(1 - _GENUINE**2) * noise).astype(np.float32)
    exact = ExactIndex(templates).search(vectors, 1)[0][:, 0]
    approximate = index.search(vectors, 1)[0][:, 0]
    return float(np.mean(approximate >= exact - 1e-5)) if len(own) else 1.0, len(own)
