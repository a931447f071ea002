"""Indexes over the people's templates: exact, and approximate ones that are re-ranked exactly.

An approximate index proposes `REFINE` times more people than are asked for; their templates are then compared exactly,
so similarities are always true and only the proposal can miss somebody. How often it does is measured against exact
search when the index is made, shown, stored, and an index that misses too often is refused.

The file `templates.faiss` is derived: it holds the index and the people in it as of one generation. People who came or
changed since are compared exactly beside it, people who went are passed over; when they are many, it is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from facepipe.errors import GalleryError, GalleryLockedError, UsageError
from facepipe.gallery.database import Database
from facepipe.gallery.derived import DamagedError, Reader, Writer
from facepipe.gallery.snapshot import GallerySnapshot
from facepipe.gallery.vectors import belongs, lineage, load_snapshot
from facepipe.types import Float32, Int64

INDEX_NAME = "templates.faiss"
KINDS = ("exact", "pq", "ivf", "hnsw")
#: People proposed for each one asked for; at least this many.
REFINE = 50
MIN_RECALL = 0.999
#: Above so many people a word is said for an index: one exact probe takes longer than 0.05 s on two cores.
ADVISE_ABOVE = 250_000
#: Cosine of a probe with its own template when recall is measured: what different photos of a person have.
_GENUINE = 0.63
_SAMPLE = 1000
_TRAINING = 65_536
_BLOCK = 65_536
_FORMAT = "facepipe index 1"
#: The index is made again when more than this share of the people came or changed since.
_STALE_SHARE = 0.1
_STALE_LEAST = 2000


class Index(Protocol):
    """What a matcher searches."""

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """Return similarities and rows, both (n, k), best first; row -1 where there are fewer than k."""
        ...


class ExactIndex:
    """Inner products with every template, on the snapshot's own array: nothing is copied.

    One matrix product for each block of templates, in NumPy's BLAS. Measured among a million of 256-d on two cores: one
    probe 46 ms against 174 ms of FAISS's flat index, a thousand at once 3.4 s against 2.2 s, and no second copy of them.
    """

    _BLOCK = 16_384

    def __init__(self, templates: Float32) -> None:
        self._templates = templates

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """Return similarities and rows, both (n, k), best first; row -1 where there are fewer than k."""
        scores = np.full((len(vectors), k), -1.0, np.float32)
        rows = np.full((len(vectors), k), -1, np.int64)
        found = min(k, len(self._templates))
        if found and len(vectors):
            scores[:, :found], rows[:, :found] = self._best(vectors, found)
        return scores, rows

    def _best(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        rows = np.full((len(vectors), k), -1, np.int64)
        for start in range(0, len(self._templates), self._BLOCK):
            products = vectors @ self._templates[start : start + self._BLOCK].T
            # After the first blocks few probes find anybody better than they have: only these are sorted.
            better = np.flatnonzero(products.max(axis=1) > scores[:, -1])
            if not len(better):
                continue
            products = products[better]
            width = min(k, products.shape[1])
            top = np.argpartition(-products, width - 1, axis=1)[:, :width]
            values = np.concatenate([scores[better], np.take_along_axis(products, top, axis=1)], axis=1)
            owners = np.concatenate([rows[better], top + start], axis=1)
            order = np.argsort(-values, axis=1, kind="stable")[:, :k]
            scores[better] = np.take_along_axis(values, order, axis=1)
            rows[better] = np.take_along_axis(owners, order, axis=1)
        return scores, rows


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
    """An approximate index over some of the people, exact re-ranking, and exact search over the others."""

    def __init__(self, proposer: Any, rows: Int64, templates: Float32, rest: Int64, report: IndexReport) -> None:
        """proposer: FAISS index. rows: int64, row of `templates` of each of its entries, -1: gone or changed. rest: rows
        that it does not know."""
        self._proposer = proposer
        self._rows = rows
        self._templates = templates
        self._rest = rest
        self._rest_templates = templates[rest]
        self.report = report

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """Return similarities and rows, both (n, k), best first; row -1 where there are fewer than k."""
        scores = np.full((len(vectors), k), -1.0, np.float32)
        rows = np.full((len(vectors), k), -1, np.int64)
        wanted = min(k * REFINE, len(self._rows))
        step = max(1, (64 << 20) // (4 * max(1, wanted) * max(1, vectors.shape[1])))
        for start in range(0, len(vectors), step):
            part = slice(start, start + step)
            self._search_some(np.ascontiguousarray(vectors[part]), k, wanted, scores[part], rows[part])
        return scores, rows

    def _search_some(self, vectors: Float32, k: int, wanted: int, scores: Float32, rows: Int64) -> None:
        proposed = self._proposer.search(vectors, wanted)[1]
        found = np.where(proposed >= 0, self._rows[proposed], -1)
        values = np.matmul(self._templates[found], vectors[:, :, None])[:, :, 0]  # (n, wanted)
        values[found < 0] = -np.inf
        if len(self._rest):
            found = np.concatenate([found, np.broadcast_to(self._rest, (len(vectors), len(self._rest)))], axis=1)
            values = np.concatenate([values, vectors @ self._rest_templates.T], axis=1)
        count = min(k, values.shape[1])
        best = np.argpartition(-values, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        top = np.take_along_axis(values, best, axis=1)
        rows[:, :count] = np.where(np.isfinite(top), np.take_along_axis(found, best, axis=1), -1)
        scores[:, :count] = np.where(np.isfinite(top), top, -1.0)


def _make(kind: str, templates: Float32) -> Any:
    """Return a trained FAISS index over all templates."""
    import faiss

    people, dim = templates.shape
    if dim % 2:
        raise UsageError(f"an index of kind {kind} needs vectors of even length, not {dim}: stay with --kind exact")
    code = f"PQ{dim // 2}x4fs"
    if people < 1000:
        raise UsageError(f"{people} people are too few for an index of kind {kind}: exact search needs no index")
    cells = max(16, round(2 * people**0.5))
    spec = {"pq": code, "ivf": f"IVF{cells},{code}", "hnsw": "HNSW32,SQ8"}[kind]
    index: Any = faiss.index_factory(dim, spec, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.nprobe = max(8, cells // 8)
    if kind == "hnsw":
        index.hnsw.efConstruction = 80
        index.hnsw.efSearch = 256
    rows = np.random.default_rng(0).permutation(people)[:_TRAINING]
    index.train(templates[np.sort(rows)])
    for start in range(0, people, _BLOCK):
        index.add(templates[start : start + _BLOCK])
    return index


def measure_recall(index: Index, templates: Float32, probes: int = _SAMPLE) -> tuple[float, int]:
    """Return the share of probes whose best person equals the exact one, and how many were tried.

    A probe is a template turned away from itself in a random direction to the cosine that photos of a person have.
    """
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(templates))[:probes]
    own = templates[rows]
    noise = rng.standard_normal(own.shape).astype(np.float32)
    noise -= (noise * own).sum(axis=1, keepdims=True) * own
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = (_GENUINE * own + np.sqrt(1 - _GENUINE**2) * noise).astype(np.float32)
    exact = ExactIndex(templates).search(vectors, 1)[0][:, 0]
    approximate = index.search(vectors, 1)[0][:, 0]
    return float(np.mean(approximate >= exact - 1e-5)), len(rows)


def build_index(database: Database, kind: str, min_recall: float = MIN_RECALL) -> IndexReport:
    """Make an index, measure it, store it, and let searches use it from now on; `exact` removes it.

    UsageError for an unknown kind, too few people, or a recall below `min_recall`: nothing is changed then.
    """
    if kind not in KINDS:
        raise UsageError(f"no index kind {kind!r}: choose one of {', '.join(KINDS)}")
    if kind == "exact":
        with database.write("index"):
            database.set_meta("index", None)
            database.log("index", kind=kind)
        drop_index(database)
        return IndexReport("exact", 1.0, 0, len(load_snapshot(database).persons), 0.0, 0)
    snapshot = load_snapshot(database)
    report = _build_and_store(database, snapshot, kind, min_recall)
    with database.write("index"):
        database.set_meta("index", json.dumps({"kind": kind, "min_recall": min_recall}))
        database.log("index", kind=kind, recall=report.recall)
    return report


def _build_and_store(database: Database, snapshot: GallerySnapshot, kind: str, min_recall: float) -> IndexReport:
    import time

    import faiss

    start = time.perf_counter()
    proposer = _make(kind, snapshot.templates)
    seconds = time.perf_counter() - start
    stored = faiss.serialize_index(proposer)
    people = len(snapshot.persons)
    draft = IndexReport(kind, 0.0, 0, people, seconds, len(stored))
    everybody = np.arange(people, dtype=np.int64)
    refined = RefinedIndex(proposer, everybody, snapshot.templates, np.zeros(0, np.int64), draft)
    recall, probes = measure_recall(refined, snapshot.templates)
    if recall < min_recall:
        raise UsageError(
            f"an index of kind {kind} finds the right person of {people:,} in {recall:.4f} of {probes} probes, less than "
            f"{min_recall}: choose another kind, or accept it with --min-recall"
        )
    report = IndexReport(kind, recall, probes, people, round(seconds, 3), len(stored))
    with database.lock("index"), database.read():
        facts = lineage(database, _FORMAT, snapshot.generation)
        if not belongs(database, facts, _FORMAT):
            raise GalleryError(f"{database.folder}: people were erased meanwhile: run facepipe gallery index again")
        with Writer(database.folder / INDEX_NAME, database.codec) as writer:
            writer.add("index", stored)
            writer.add("person_ids", snapshot.person_ids)
            writer.commit({**facts, "report": asdict(report)})
    return report


def drop_index(database: Database) -> None:
    """Delete the index file; searches are exact until it is made again."""
    (database.folder / INDEX_NAME).unlink(missing_ok=True)


def load_index(
    database: Database, snapshot: GallerySnapshot, tell: Callable[[str], None] | None = None
) -> ExactIndex | RefinedIndex:
    """Return the index that this gallery's searches use: exact, unless the user chose another with `build_index`.

    A chosen index that is missing, stale or damaged is made again; where that cannot be (a read-only disk, another
    process writes, its recall is now too low), search is exact. `tell` is given a line about each such event.
    """
    text = database.get_meta("index")
    say = tell or (lambda _: None)
    if text is None:
        if len(snapshot.persons) > ADVISE_ABOVE:
            say(
                f"{database.folder}: search is exact over {len(snapshot.persons):,} people; "
                "facepipe gallery index --kind pq makes it faster and says what it misses"
            )
        return ExactIndex(snapshot.templates)
    wish = json.loads(text)
    index, wrong = _read_index(database, snapshot)
    if index is not None:
        return index
    say(f"{database.folder / INDEX_NAME}: {wrong}: made again")
    if database.writable:
        try:
            _build_and_store(database, snapshot, wish["kind"], wish["min_recall"])
        except (UsageError, GalleryLockedError, GalleryError) as error:
            say(f"{error}; search is exact")
            return ExactIndex(snapshot.templates)
        index, wrong = _read_index(database, snapshot)
    return index or ExactIndex(snapshot.templates)


def _read_index(database: Database, snapshot: GallerySnapshot) -> tuple[RefinedIndex | None, str]:
    """Return the stored index, or why it cannot be used."""
    import faiss

    try:
        with Reader(database.folder / INDEX_NAME, database.codec) as reader, database.read() as connection:
            if not belongs(database, reader.facts, _FORMAT):
                return None, "belongs to a different state of the gallery"
            reader.verify()
            person_ids, people = reader.array("person_ids")
            changed = np.array(
                [
                    r[0]
                    for r in connection.execute(
                        "SELECT id FROM person WHERE changed > ?", (reader.facts["generation"],)
                    )
                ],
                np.int64,
            )
            rows = _rows_of(person_ids[:people], snapshot.person_ids)
            rows[np.isin(person_ids[:people], changed)] = -1
            known = np.zeros(len(snapshot.persons), bool)
            known[rows[rows >= 0]] = True
            rest = np.flatnonzero(~known).astype(np.int64)
            if len(rest) > max(_STALE_LEAST, _STALE_SHARE * len(snapshot.persons)):
                return None, f"{len(rest):,} people came or changed since"
            stored, size = reader.array("index")
            proposer = faiss.deserialize_index(np.asarray(stored[:size]))
            report = IndexReport(**reader.facts["report"])
    except FileNotFoundError:
        return None, "is missing"
    except DamagedError:
        return None, "is damaged"
    return RefinedIndex(proposer, rows, snapshot.templates, rest, report), ""


def _rows_of(wanted: Int64, present: Int64) -> Int64:
    """Return where each wanted id stands among those present, -1 where it does not."""
    if not len(present):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(present, kind="stable")
    place = np.minimum(np.searchsorted(present, wanted, sorter=order), len(present) - 1)
    rows = order[place]
    return np.where(present[rows] == wanted, rows, -1)


def check_index(database: Database) -> str | None:
    """Return what is wrong with the index file, None when it is fine or there is none."""
    path: Path = database.folder / INDEX_NAME
    try:
        with Reader(path, database.codec) as reader, database.read():
            if not belongs(database, reader.facts, _FORMAT):
                return "belongs to a different state of the gallery"
            reader.verify()
    except FileNotFoundError:
        return "is missing" if database.get_meta("index") is not None else None
    except DamagedError as error:
        return str(error)
    return None
