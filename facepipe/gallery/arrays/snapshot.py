"""A frozen picture of the gallery as arrays: what the matcher reads.

The derived file `vectors.f32` holds one as of some generation, sorted by person and face. It is mapped, so opening costs
what changed since, not what is enrolled, and all readers share its memory. Rows that are gone are taken out and rows that
came are put in (both lists are short and indexed in the database); when they are many, the file is written again. Below
`SMALL` faces there is no such file: reading the rows is as quick. Of vectors that are `LARGE` no copy is made in memory: what changed
is put in on the disk.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.errors import GalleryAccessError, GalleryError, GalleryFullError, GalleryLockedError
from facepipe.gallery.arrays.derived import VECTORS_NAME, UnusableError, read_derived, write_derived
from facepipe.gallery.arrays.room import LARGE, stacked
from facepipe.gallery.people import open_name
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.storage.database import Database
from facepipe.match.templates import unit_means
from facepipe.types import UNIT_TOLERANCE, Float32, Int64

SMALL = 4096
_CHUNK = 8192


@dataclass(frozen=True, slots=True, eq=False)
class GallerySnapshot:
    """The gallery at one generation. Arrays are read-only and do not change when the gallery does.

    persons: names; every one has at least one face.
    templates: float32 (p, d), the unit mean of each person's vectors (a single face's vector as it is).
    vectors: float32 (n, d), unit.
    owners: int64 (n,), index into persons.
    face_ids: int64 (n,), ids in the database.
    person_ids: int64 (p,).
    negatives: float32 (m, d), faces that are not the person in negative_owners, int64 (m,), index into persons.
    generation: of the database.
    fingerprint: of the embedder.
    identity: of the gallery.
    """

    persons: tuple[str, ...]
    templates: Float32
    vectors: Float32
    owners: Int64
    face_ids: Int64
    person_ids: Int64
    negatives: Float32
    negative_owners: Int64
    generation: int
    fingerprint: str
    identity: str

    def __post_init__(self) -> None:
        people, dim = len(self.persons), self.vectors.shape[1]
        faces = len(self.vectors)
        expected = {
            "templates": (people, dim),
            "vectors": (faces, dim),
            "owners": (faces,),
            "face_ids": (faces,),
            "person_ids": (people,),
            "negatives": (len(self.negative_owners), dim),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"GallerySnapshot.{name}: expected shape {shape}, got {array.shape}")
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        if faces and not 0 <= int(self.owners.min()) <= int(self.owners.max()) < people:
            raise ValueError(f"GallerySnapshot.owners: expected 0..{people - 1}")

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    def faces_of(self, person: int) -> Int64:
        """Return the rows of a person's vectors, int64 (k,)."""
        return np.flatnonzero(self.owners == person).astype(np.int64)


def load_snapshot(database: Database, *, cache: bool = True) -> GallerySnapshot:
    """Return the gallery as arrays, as of now; see `GalleryStore.snapshot`."""
    with database.read():
        snapshot, changes = _brought_up(database, _load_base(database))
    large = snapshot.vectors.nbytes > LARGE
    if cache and database.writable and changes >= (1 if large else max(SMALL, len(snapshot.vectors) // 16)):
        _store(database, snapshot)
        if large:  # from the file that all share, instead of one of its own
            return load_snapshot(database, cache=False)
    return snapshot


def _load_base(database: Database) -> GallerySnapshot:
    """Return the gallery as the derived file has it; without an intact one, as it was before its first face."""
    fingerprint, identity, dim = database.fingerprint, database.identity, database.dim
    nobody = GallerySnapshot(
        persons=(),
        templates=np.zeros((0, dim), np.float32),
        vectors=np.zeros((0, dim), np.float32),
        owners=np.zeros(0, np.int64),
        face_ids=np.zeros(0, np.int64),
        person_ids=np.zeros(0, np.int64),
        negatives=np.zeros((0, dim), np.float32),
        negative_owners=np.zeros(0, np.int64),
        generation=-1,
        fingerprint=fingerprint,
        identity=identity,
    )
    try:
        facts, arrays = read_derived(database, VECTORS_NAME)
        names = arrays.pop("names").tobytes().decode().split("\0")
        fields: dict[str, Any] = {"templates": arrays["vectors"], **arrays}
        return replace(nobody, persons=tuple(names), generation=facts["generation"], **fields)
    except (UnusableError, KeyError, TypeError, ValueError):  # arrays that do not fit each other are forged
        return nobody


def _store(database: Database, snapshot: GallerySnapshot) -> None:
    """Write the derived file, unless another process writes or the disk takes none: it is only quicker with the file."""
    names = np.frombuffer("\0".join(snapshot.persons).encode(), np.uint8)
    arrays = {name: getattr(snapshot, name) for name in ("vectors", "owners", "face_ids", "person_ids")}
    if len(snapshot.persons) < len(snapshot.vectors):  # else the templates are the vectors
        arrays["templates"] = snapshot.templates
    with (
        contextlib.suppress(GalleryLockedError, GalleryFullError, GalleryAccessError, UnusableError),
        database.lock("write vectors", timeout=0.0),
    ):
        write_derived(database, VECTORS_NAME, snapshot.generation, {"names": names, **arrays})


def _brought_up(database: Database, base: GallerySnapshot) -> tuple[GallerySnapshot, int]:
    """Return the gallery as of now, made of an earlier state and what changed since; and how many faces came or went."""
    connection, since, now = database.connection, base.generation, time.time()
    ids, persons, vectors = _rows_since(database, since, now)
    gone = connection.execute(
        "SELECT face_id FROM gone WHERE generation > ? UNION SELECT id FROM face WHERE expires <= ?", (since, now)
    ).fetchall()
    alive = ~np.isin(base.face_ids, np.append(ids, [row[0] for row in gone]).astype(np.int64))
    people = connection.execute("SELECT id, name FROM person WHERE changed > ?", (since,)).fetchall()
    changes = len(ids) + int((~alive).sum())
    if changes or people:
        names = dict(zip(base.person_ids.tolist(), base.persons, strict=True))
        names |= {person_id: open_name(database, name, person_id) for person_id, name in people}
        ids = np.append(base.face_ids[alive], ids)
        persons = np.append(base.person_ids[base.owners[alive]], persons)
        order = np.lexsort((ids, persons))
        vectors = _merged(database, base.vectors, np.flatnonzero(alive).astype(np.int64), vectors, order)
        person_ids, starts, owners = np.unique(persons[order], return_index=True, return_inverse=True)
        base = replace(
            base,
            persons=tuple(names[person_id] for person_id in person_ids.tolist()),
            templates=_templates(database, vectors, starts),
            vectors=vectors,
            owners=owners,
            face_ids=ids[order],
            person_ids=person_ids,
        )
    negatives, negative_owners = _negatives(database, base)
    generation = database.generation()
    return replace(base, negatives=negatives, negative_owners=negative_owners, generation=generation), changes


def _merged(database: Database, old: Float32, alive: Int64, new: Float32, order: Int64) -> Float32:
    """Return the rows of `old` that are alive and those of `new` below them, put into an order."""
    if not len(alive) and (np.diff(order) == 1).all():
        return new

    def parts() -> Iterator[Float32]:
        for start in range(0, len(order), _CHUNK):
            rows = order[start : start + _CHUNK]
            part = np.empty((len(rows), old.shape[1]), np.float32)
            kept = rows < len(alive)
            part[kept] = old[alive[rows[kept]]]
            part[~kept] = new[rows[~kept] - len(alive)]
            yield part

    return stacked(_place(database), len(order), old.shape[1], parts())


def _templates(database: Database, vectors: Float32, starts: Int64) -> Float32:
    """Return the unit mean of each person's vectors; see `unit_means`."""
    if len(starts) == len(vectors):
        return vectors
    ends = np.append(starts[1:], len(vectors))
    blocks = [slice(at, at + _CHUNK) for at in range(0, len(starts), _CHUNK)]
    parts = (
        unit_means(vectors[starts[block][0] : ends[block][-1]], starts[block] - starts[block][0]) for block in blocks
    )
    return stacked(_place(database), len(starts), vectors.shape[1], parts)


def _place(database: Database) -> Path | None:
    """Return where large arrays may lie for a while."""
    if database.codec.sealed:
        return None
    return database.folder if database.writable else Path(tempfile.gettempdir())


def _rows_since(database: Database, since: int, now: float) -> tuple[Int64, Int64, Float32]:
    """Return ids, persons and verified vectors of the faces that came or changed after a generation."""
    dim = database.dim
    faces = "face f JOIN vector v ON v.face_id = f.id WHERE f.changed > ? AND (f.expires IS NULL OR f.expires > ?)"
    (count,) = database.connection.execute(f"SELECT count(*) FROM {faces}", (since, now)).fetchone()
    cursor = database.connection.execute(f"SELECT f.id, f.person_id, v.data, v.crc FROM {faces}", (since, now))
    ids, persons = np.empty(count, np.int64), np.empty(count, np.int64)

    def parts() -> Iterator[Float32]:
        """Yield the vectors in chunks, and note whose they are."""
        at = 0
        while rows := cursor.fetchmany(_CHUNK):
            for face_id, _, data, crc in rows:
                if vector_checksum(face_id, data) != crc:
                    raise _damaged(database, face_id)
            joined = b"".join([database.codec.open(row[2], "vector.data", row[0], row[1]) for row in rows])
            if len(joined) != len(rows) * dim * 4:
                raise GalleryError(f"{database.path}: vectors of another length than {dim}: run facepipe gallery check")
            vectors = np.frombuffer(joined, np.float32).reshape(len(rows), dim)
            wrong = np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) <= UNIT_TOLERANCE))
            if len(wrong):
                raise _damaged(database, rows[wrong[0]][0])
            ids[at : at + len(rows)] = [row[0] for row in rows]
            persons[at : at + len(rows)] = [row[1] for row in rows]
            at += len(rows)
            yield vectors

    vectors = stacked(_place(database), count, dim, parts())
    return ids, persons, vectors


def _damaged(database: Database, face_id: int) -> GalleryError:
    return GalleryError(
        f"{database.path}: the vector of face {face_id} is damaged: run facepipe gallery check --repair"
    )


def _negatives(database: Database, snapshot: GallerySnapshot) -> tuple[Float32, Int64]:
    rows = database.connection.execute("SELECT id, person_id, vector FROM anchor ORDER BY id").fetchall()
    joined = b"".join(database.codec.open(data, "anchor.vector", row_id, person) for row_id, person, data in rows)
    owners = rows_of(np.array([person for _, person, _ in rows], np.int64), snapshot.person_ids)
    return np.frombuffer(joined, np.float32).reshape(-1, snapshot.dim)[owners >= 0], owners[owners >= 0]


def rows_of(wanted: Int64, present: Int64) -> Int64:
    """Return where each wanted id stands among those present, which rise; -1 where it does not."""
    if not len(present):
        return np.full(wanted.shape, -1, np.int64)
    rows = np.minimum(np.searchsorted(present, wanted), len(present) - 1)
    return np.where(present[rows] == wanted, rows, -1)
