"""The gallery's index over its people's templates: made, stored, loaded.

The file `templates.faiss` is derived: it holds an approximate index and the people in it as of one generation. People who
came or changed since are compared exactly beside it, people who went are passed over; when they are many, it is made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from facepipe.errors import GalleryError, GalleryLockedError, UsageError
from facepipe.gallery.arrays.derived_file import DamagedError, Reader, Writer
from facepipe.gallery.arrays.snapshot import GallerySnapshot, load_snapshot
from facepipe.gallery.arrays.vectors_file import belongs, check_derived, lineage
from facepipe.gallery.storage.database import Database
from facepipe.match.approximate import KINDS as APPROXIMATE
from facepipe.match.approximate import MIN_RECALL, IndexReport, RefinedIndex, make_proposer, measure_recall
from facepipe.match.exact import ExactIndex
from facepipe.types import Int64

INDEX_NAME = "templates.faiss"
KINDS = ("exact", *APPROXIMATE)
#: Above so many people a line advises an index: one exact probe takes longer than 0.05 s.
ADVISE_ABOVE = 250_000
_FORMAT = "facepipe index 1"
#: The index is made again when more than this share of the people came or changed since.
_STALE_SHARE = 0.1
_STALE_LEAST = 2000


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
    import faiss

    start = time.perf_counter()
    proposer = make_proposer(kind, snapshot.templates)
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
    chosen = json.loads(text)
    index, wrong = _read_index(database, snapshot)
    if index is not None:
        return index
    say(f"{database.folder / INDEX_NAME}: {wrong}: made again")
    if database.writable:
        try:
            _build_and_store(database, snapshot, chosen["kind"], chosen["min_recall"])
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
            since = (reader.facts["generation"],)
            changed = connection.execute("SELECT id FROM person WHERE changed > ?", since).fetchall()
            rows = _rows_of(person_ids[:people], snapshot.person_ids)
            rows[np.isin(person_ids[:people], [row[0] for row in changed])] = -1
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
    """Return what is wrong with the index file, None when it is fine or none is wanted."""
    return check_derived(database, INDEX_NAME, _FORMAT, wanted=database.get_meta("index") is not None)
