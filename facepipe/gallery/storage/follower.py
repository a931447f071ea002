"""Brings the people's templates in a vector database up to date with the gallery, before a write is reported.

SQLite is the truth; the database has a row for everybody who has a face, and a note of which state of the gallery that is:

    note is sound, else nothing is written │ SQLite commits │ note: on the way │ rows │ note: the new state

A process that dies anywhere leaves a note from which the next write, or search, goes on: who came or changed since stands in
`person.changed`, who went in the journal; both are written in the commit itself. Applying them twice does no harm.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from facepipe.errors import GalleryServerError
from facepipe.gallery.arrays.own_mark import own_mark
from facepipe.gallery.names import gallery_command
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.match.milvus import MilvusPeople
from facepipe.match.templates import unit_means

MILVUS = "milvus"
#: In the environment: a vector database that this user's galleries may use although another user or machine chose it.
TRUSTED = "FACEPIPE_MILVUS_URI"
_FORMAT = "facepipe people 1"
_PEOPLE = 2000


class Truth(Protocol):
    """The gallery's database: see `Database`."""

    folder: Path
    connection: sqlite3.Connection

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    def generation(self) -> int: ...  # noqa: D102

    def token(self, generation: int) -> int | None: ...  # noqa: D102


def consent(identity: str, uri: str) -> str | None:
    """Return this user's mark under "templates and probes of this gallery may go to this address", None without a key."""
    return own_mark({"identity": identity, "uri": uri}, {})


class Follower:
    """The vector database of one gallery. GalleryServerError when it cannot be reached, or holds another state."""

    def __init__(self, truth: Truth, chosen: Mapping[str, Any]) -> None:
        """Connect. chosen: the gallery's setting `index`; faces go only where this user sends them, see `consent`."""
        self._truth, self.uri = truth, str(chosen["uri"])
        mark = consent(truth.identity, self.uri)
        if os.environ.get(TRUSTED) != self.uri and not (mark and hmac.compare_digest(mark, str(chosen.get("mark")))):
            raise GalleryServerError(
                f"{truth.folder}: its people lie in a vector database that another user or machine chose, {self.uri}: set "
                f"{TRUSTED} to that address if faces may go there"
            )
        self.people = MilvusPeople(self.uri, f"facepipe_{truth.identity}")

    def state(self) -> dict[str, Any]:
        """Return the note of the gallery's present state."""
        truth, generation = self._truth, self._truth.generation()
        (journal,) = truth.connection.execute("SELECT coalesce(max(id), 0) FROM journal").fetchone()
        return {
            "format": _FORMAT,
            "identity": truth.identity,
            "fingerprint": truth.fingerprint,
            "generation": generation,
            "token": truth.token(generation),
            "journal": journal,
        }

    def sound_note(self) -> dict[str, Any]:
        """Return the note, which is of a state that this gallery went through. GalleryServerError."""
        note = self.people.note() or {}
        generation, journal = note.get("generation"), note.get("journal")
        sound = (
            note.get("format") == _FORMAT
            and note.get("identity") == self._truth.identity
            and isinstance(generation, int)
            and isinstance(journal, int)
            and (generation == -1 or note.get("token") == self._truth.token(generation))
        )
        if not sound:
            raise GalleryServerError(
                f"{self.uri}: the vector database does not hold the people of {self._truth.folder} as of a state that is known: "
                f"{gallery_command(self._truth.folder, 'index', '--kind', MILVUS, '--uri', self.uri)} stores them again"
            )
        return note

    def bring_up(self) -> None:
        """Apply what was committed since the note. The writer's lock is held."""
        note, now = self.sound_note(), self.state()
        if note == now:
            return
        if note.get("fingerprint") != now["fingerprint"]:
            self.fill()
            return
        self.people.write_note({**note, "towards": now["generation"]}, self._truth.dim)
        self._apply(note["generation"], note["journal"])
        self.people.write_note(now, self._truth.dim)

    def fill(self) -> None:
        """Store everybody anew, as of now; within `read`, or with the writer's lock held."""
        now, dim = self.state(), self._truth.dim
        self.people.create(dim)
        self.people.write_note({**now, "generation": -1, "token": None, "journal": 0}, dim)
        self._apply(-1, now["journal"])
        self.people.write_note(now, dim)
        self.people.flush()

    def expected(self) -> int:
        """Return how many people have faces."""
        query = "SELECT count(*) FROM person WHERE EXISTS (SELECT 1 FROM face WHERE person_id = person.id)"
        return int(self._truth.connection.execute(query).fetchone()[0])

    def _apply(self, since: int, journal: int) -> None:
        connection = self._truth.connection
        changed = connection.execute("SELECT id FROM person WHERE changed > ?", (since,))
        while ids := [row[0] for row in islice(changed, _PEOPLE)]:
            self._put(ids)
        gone = connection.execute(
            "SELECT DISTINCT person_id FROM journal WHERE id > ? AND person_id NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM person WHERE person.id = person_id)",
            (journal,),
        )
        self.people.drop([row[0] for row in gone])

    def _put(self, ids: list[int]) -> None:
        """Store the templates of people; those who have no face left go."""
        marks = ",".join("?" * len(ids))
        rows = self._truth.connection.execute(
            "SELECT f.person_id, f.id, v.data, v.crc FROM face f JOIN vector v ON v.face_id = f.id"
            f" WHERE f.person_id IN ({marks}) ORDER BY f.person_id, f.id",
            ids,
        ).fetchall()
        # A damaged one is reported where faces are compared; here it would keep a repair from being written.
        intact = [(person, data) for person, face, data, crc in rows if vector_checksum(face, data) == crc]
        if intact:
            persons, starts = np.unique([person for person, _ in intact], return_index=True)
            vectors = np.frombuffer(b"".join(data for _, data in intact), np.float32).reshape(len(intact), -1)
            self.people.put(persons.tolist(), unit_means(vectors, starts))
        self.people.drop(sorted(set(ids) - {person for person, _ in intact}))
