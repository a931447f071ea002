"""Search through a vector database: it proposes people, and the gallery's own templates decide.

Whatever state the database is in, the answers are those of the snapshot: people who came, changed or went since its note are
compared exactly beside it, and a note that moved while it was asked makes it be asked again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from facepipe.errors import GalleryLockedError, GalleryServerError, UsageError
from facepipe.gallery.arrays.own_mark import require_key
from facepipe.gallery.arrays.snapshot import GallerySnapshot, load_snapshot, rows_of
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.follower import MILVUS, Follower, consent
from facepipe.match.approximate import IndexReport, RefinedIndex, measure_recall, require_recall
from facepipe.match.exact import ExactIndex
from facepipe.match.milvus import require_uri
from facepipe.types import Float32, Int64

_TRIES = 3


class MilvusIndex:
    """The `Index` over a snapshot's templates whose candidates come from a vector database."""

    def __init__(self, database: Database, snapshot: GallerySnapshot, follower: Follower, report: IndexReport) -> None:
        """Take a follower of `database`, which need not stay open. GalleryServerError."""
        self._folder, self._snapshot, self._people = database.folder, snapshot, follower.people
        self._report = report
        self._prepare(database, follower)

    def _prepare(self, database: Database, follower: Follower) -> None:
        """Find out who must be compared exactly as long as the note is as it is now."""
        snapshot = self._snapshot
        note = self._note = (
            follower.sound_note()
        )  # before the gallery is read: a note is younger than the commit it is about
        fresh = np.zeros(len(snapshot.persons), bool)
        if note.get("fingerprint") != snapshot.fingerprint:
            fresh[:] = True  # it is on its way to another network
        elif "towards" in note or note["generation"] != snapshot.generation:
            since = min(note["generation"], snapshot.generation)
            with database.read() as connection:
                there = connection.execute("SELECT id FROM person WHERE changed <= ? ORDER BY id", (since,)).fetchall()
            fresh = rows_of(snapshot.person_ids, np.array([row[0] for row in there], np.int64)) < 0
        self.pending = int(fresh.sum())

        def propose(vectors: Float32, wanted: int) -> Int64:
            rows = rows_of(self._people.propose(vectors, wanted), snapshot.person_ids)
            rows[fresh[rows]] = -1  # of -1 as well: it says nobody already
            return rows

        self._refined = RefinedIndex(propose, snapshot.templates, np.flatnonzero(fresh).astype(np.int64), self._report)

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """See `Index.search`. GalleryServerError when the database does not answer."""
        for _ in range(_TRIES):
            found = self._refined.search(vectors, k)
            if self._people.note() == self._note:
                return found
            with closing(Database.open(self._folder)) as database:
                follower = database.follower()
                if follower is None:  # somebody took the database away
                    break
                self._prepare(database, follower)
        return ExactIndex(self._snapshot.templates).search(vectors, k)


def build_milvus(
    database: Database, uri: str, min_recall: float, leave: Callable[[], None] = lambda: None
) -> IndexReport:
    """Store the people's templates in a vector database, measure it, and let searches use it from now on.

    leave: takes leave of another database, before this one is chosen. One that holds the people already is brought up to date
    only. Errors: see `build_index`; GalleryServerError, LibraryError.
    """
    require_uri(uri)
    if database.codec.sealed:
        raise UsageError(
            f"{database.folder}: is sealed, and its vectors would leave the seal: stay with --kind exact or pq"
        )
    database.require_writable()
    start = time.perf_counter()
    require_key()
    chosen: dict[str, Any] = {
        "kind": MILVUS,
        "uri": uri,
        "mark": consent(database.identity, uri),
        "min_recall": min_recall,
    }
    follower = Follower(database, chosen)
    if not _is_whole(database, follower):
        with database.read():
            follower.fill()
    snapshot = load_snapshot(database)
    report = IndexReport(
        MILVUS, 0.0, 0, len(snapshot.persons), time.perf_counter() - start, 4 * snapshot.templates.size
    )
    recall, probes = measure_recall(MilvusIndex(database, snapshot, follower, report), snapshot.templates)
    report = replace(report, recall=recall, probes=probes, build_seconds=round(report.build_seconds, 3))
    try:
        require_recall(report, min_recall)
    except UsageError:
        if database.server() != uri:
            follower.people.destroy()
        raise
    leave()
    with database.lock("index"):
        with database.append("index"):
            database.set_meta("index", json.dumps({**chosen, "report": asdict(report)}))
            database.log("index", kind=MILVUS, recall=recall)
        follower.bring_up()
    return report


def _is_whole(database: Database, follower: Follower) -> bool:
    """Say whether the database holds everybody already, as of a state of this gallery; it is brought up to date then."""
    with contextlib.suppress(GalleryServerError), database.lock("index"):
        follower.bring_up()
        return follower.people.count() == follower.expected()
    return False


def load_milvus(
    database: Database, snapshot: GallerySnapshot, chosen: dict[str, Any], say: Callable[[str], object]
) -> MilvusIndex:
    """Return the index of a gallery whose setting says so. It is brought up to date first, where nobody else writes."""
    follower = Follower(database, chosen)
    if database.writable:
        with contextlib.suppress(GalleryLockedError), database.lock("index", timeout=0.0):
            follower.bring_up()
    index = MilvusIndex(database, snapshot, follower, IndexReport(**chosen["report"]))
    if index.pending:
        say(
            f"{follower.uri}: the vector database is behind the gallery: {index.pending:,} people are compared exactly "
            "until the next write brings it up to date"
        )
    return index


def check_milvus(database: Database) -> str | None:
    """Return what is wrong with the vector database that follows a gallery, None when nothing is, or there is none."""
    follower = database.follower()
    if follower is None:
        return None
    note, now = follower.sound_note(), follower.state()
    there, expected = follower.people.count(), follower.expected()
    if note["generation"] != now["generation"]:
        return f"{follower.uri}: is behind the gallery: the next write or search brings it up to date"
    return None if there == expected else f"{follower.uri}: holds {there:,} people of {expected:,}"
