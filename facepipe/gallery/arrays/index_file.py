"""The gallery's index over its people's templates: made, stored, loaded.

The file `templates.faiss` is derived: it holds an approximate index and the people in it as of one generation. People who
came or changed since are compared exactly beside it, people who went are passed over; when they are many, it is made again.
It is read only where this user made it (see `own_mark`).
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import GalleryError, GalleryServerError, UsageError
from facepipe.gallery.arrays.derived import INDEX_NAME, UnusableError, drop_derived, read_derived, write_derived
from facepipe.gallery.arrays.milvus_index import build_milvus, check_milvus, load_milvus
from facepipe.gallery.arrays.own_mark import own_mark, require_key
from facepipe.gallery.arrays.snapshot import GallerySnapshot, load_snapshot, rows_of
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.follower import MILVUS
from facepipe.match.approximate import KINDS as APPROXIMATE
from facepipe.match.approximate import (
    MIN_RECALL,
    IndexReport,
    RefinedIndex,
    make_proposer,
    measure_recall,
    proposals,
    require_recall,
)
from facepipe.match.exact import ExactIndex
from facepipe.types import Index

KINDS = ("exact", *APPROXIMATE, MILVUS)
#: Above so many people a line advises an index: one exact probe takes longer than 0.05 s.
ADVISE_ABOVE = 250_000
#: The index is made again when more than this share of the people came or changed since.
_STALE_SHARE = 0.1
_STALE_LEAST = 2000


def build_index(
    database: Database, kind: str, min_recall: float = MIN_RECALL, *, uri: str | None = None, forget: bool = False
) -> IndexReport:
    """Make an index, measure it, store it, and let searches use it from now on; `exact` removes it.

    uri: of the Milvus server for `milvus`. forget: leave what another server holds that is gone for good.
    UsageError for an unknown kind, too few people, or a recall below `min_recall`: nothing is changed then. GalleryServerError.
    """
    if kind not in KINDS:
        raise UsageError(f"no index kind {kind!r}: choose one of {', '.join(KINDS)}")
    if (kind == MILVUS) != (uri is not None):
        raise UsageError(f"--kind {MILVUS} and --uri go together: --kind {MILVUS} --uri http://HOST:19530")
    # Connected before anything changes.
    left = None if forget or database.server() in {None, uri} else database.follower()

    def leave() -> None:
        # Before the gallery forgets where it is: what fails here can be tried again.
        if left is not None:
            left.people.destroy()

    snapshot = load_snapshot(database)
    if kind == MILVUS:
        report = build_milvus(database, str(uri), min_recall, leave)
    elif kind == "exact":
        report = IndexReport("exact", 1.0, 0, len(snapshot.persons), 0.0, 0)
        leave()
        _choose(database, report, None)
    else:
        report = _build_and_store(database, snapshot, kind, min_recall)
        leave()
        _choose(database, report, {"kind": kind, "min_recall": min_recall})
    if kind not in APPROXIMATE:
        drop_derived(database, INDEX_NAME)
    return report


def _choose(database: Database, report: IndexReport, chosen: dict[str, Any] | None) -> None:
    # A vector database that is left is not asked for a new state first.
    with database.append("index") if database.server() else database.write("index"):
        database.set_meta("index", None if chosen is None else json.dumps(chosen))
        database.log("index", kind=report.kind, recall=report.recall)


def show_index(database: Database) -> IndexReport:
    """Return what searches use: the report of when it was made. Errors: GalleryServerError for a database that is behind or away."""
    chosen = json.loads(database.get_meta("index") or '{"kind": "exact"}')
    if "uri" in chosen:
        if wrong := check_milvus(database):
            raise GalleryServerError(wrong)
        return IndexReport(**chosen["report"])
    if chosen["kind"] == "exact":
        return IndexReport("exact", 1.0, 0, len(load_snapshot(database).persons), 0.0, 0)
    with database.read():
        return IndexReport(**read_derived(database, INDEX_NAME)[0]["report"])


def _build_and_store(database: Database, snapshot: GallerySnapshot, kind: str, min_recall: float) -> IndexReport:
    import faiss

    start = time.perf_counter()
    proposer = make_proposer(kind, snapshot.templates)
    seconds = time.perf_counter() - start
    stored = faiss.serialize_index(proposer)
    people = len(snapshot.persons)
    draft = IndexReport(kind, 0.0, 0, people, seconds, len(stored))
    everybody = proposals(proposer, np.arange(people, dtype=np.int64))
    refined = RefinedIndex(everybody, snapshot.templates, np.zeros(0, np.int64), draft)
    recall, probes = measure_recall(refined, snapshot.templates)
    report = IndexReport(kind, recall, probes, people, round(seconds, 3), len(stored))
    require_recall(report, min_recall)
    arrays: dict[str, NDArray[Any]] = {"index": stored, "person_ids": snapshot.person_ids}
    require_key()
    facts = {"identity": database.identity, "report": asdict(report)}
    with database.lock("index"):
        mark = own_mark(facts, arrays)
        write_derived(database, INDEX_NAME, snapshot.generation, arrays, report=facts["report"], mark=mark)
    return report


def load_index(database: Database, snapshot: GallerySnapshot, tell: Callable[[str], object] | None = None) -> Index:
    """Return the index that this gallery's searches use: exact, unless the user chose another with `build_index`.

    A chosen index that is missing, stale or damaged is made again; where that cannot be (a read-only disk, another
    process writes, its recall is now too low), search is exact. `tell` is given a line about each such event.
    GalleryServerError when a chosen vector database does not answer: it was chosen because exact search takes too long.
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
    if database.server() is not None:
        return load_milvus(database, snapshot, json.loads(text), say)
    try:
        return _read_index(database, snapshot)
    except UnusableError as error:
        say(f"{database.folder / INDEX_NAME}: {error}: made again")
    if database.writable:
        chosen = json.loads(text)
        try:
            _build_and_store(database, snapshot, chosen["kind"], chosen["min_recall"])
            return _read_index(database, snapshot)
        except (UsageError, GalleryError) as error:
            say(f"{error}; search is exact")
    return ExactIndex(snapshot.templates)


def _read_index(database: Database, snapshot: GallerySnapshot) -> RefinedIndex:
    """Return the stored index. UnusableError says why it cannot be used."""
    import faiss

    with database.read() as connection:
        facts, arrays = read_derived(database, INDEX_NAME)
        changed = connection.execute("SELECT id FROM person WHERE changed > ?", (facts["generation"],)).fetchall()
    arrays = {name: np.array(array) for name, array in arrays.items()}  # what is marked is what is read
    mark = own_mark({"identity": facts["identity"], "report": facts["report"]}, arrays)
    if mark is None or not hmac.compare_digest(mark, str(facts.get("mark"))):
        raise UnusableError("was not made by this user on this machine")
    rows = rows_of(arrays["person_ids"], snapshot.person_ids)
    rows[np.isin(arrays["person_ids"], [row[0] for row in changed])] = -1
    fresh = np.ones(len(snapshot.persons), bool)
    fresh[rows[rows >= 0]] = False
    rest = np.flatnonzero(fresh).astype(np.int64)
    if len(rest) > max(_STALE_LEAST, _STALE_SHARE * len(snapshot.persons)):
        raise UnusableError(f"{len(rest):,} people came or changed since")
    proposer = faiss.deserialize_index(arrays["index"])
    return RefinedIndex(proposals(proposer, rows), snapshot.templates, rest, IndexReport(**facts["report"]))
