"""From rows to arrays: the derived file of vectors, and snapshots made of it and of what changed since.

`vectors.f32` holds ids, owners, vectors and templates as of one generation, sorted by person and face, with spare
rows. It is never changed, only replaced. A snapshot maps it privately, takes out rows that are gone and appends rows
that came (both lists are short and indexed in the database), so all readers of one file share its memory, and a search
needs one contiguous array and nothing else. Below `SMALL` faces there is no such file: reading the rows is as quick.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from facepipe.errors import GalleryError, GalleryFullError, GalleryLockedError
from facepipe.gallery.arrays.derived_file import DamagedError, Reader, Writer
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.lock import UnwritableError
from facepipe.types import UNIT_TOLERANCE, Float32, Int64

VECTORS_NAME = "vectors.f32"
SMALL = 4096
FORMAT = "facepipe vectors 2"
_CHUNK = 8192


@dataclass(slots=True)
class Base:
    """The derived file, mapped: arrays with spare rows, and how many rows of them count."""

    facts: dict[str, Any]
    face_ids: Int64
    face_persons: Int64
    vectors: Float32
    faces: int
    person_ids: Int64
    templates: Float32
    people: int
    names: list[str]

    @property
    def generation(self) -> int:
        """Of the database when it was derived."""
        return int(self.facts["generation"])


def refresh_vectors_file(database: Database, *, wait: bool) -> bool:
    """Write the derived file of vectors again; return whether it was.

    wait: for the writer's lock; without, nothing happens when another process writes, or the disk is full or read-only.
    """
    if not wait and not database.writable:
        return False
    patience = database.lock_timeout
    try:
        database.lock_timeout = patience if wait else 0.0
        with database.lock("write vectors"), database.read():
            _write_base(database)
        return True
    except (GalleryLockedError, GalleryFullError, UnwritableError):
        if wait:
            raise
        return False  # it is only quicker with the file: a reader must not fail for want of it
    finally:
        database.lock_timeout = patience


def drop_vectors_file(database: Database) -> None:
    """Delete the derived file of vectors; it comes back when it is needed."""
    (database.folder / VECTORS_NAME).unlink(missing_ok=True)


def is_behind(database: Database, base: Base | None) -> bool:
    """Whether a derived file is worth writing: the gallery is large, and there is none or much has changed since."""
    connection = database.connection
    if base is None:
        return bool(connection.execute("SELECT count(*) FROM vector").fetchone()[0] >= SMALL)
    since = (base.generation,)
    changed = connection.execute("SELECT count(*) FROM face WHERE changed > ?", since).fetchone()[0]
    gone = connection.execute("SELECT count(*) FROM gone WHERE generation > ?", since).fetchone()[0]
    return bool(changed + gone > _spare(base.faces) // 2)


def _spare(faces: int) -> int:
    return max(SMALL, faces // 8)


def lineage(database: Database, format_name: str, generation: int) -> dict[str, Any]:
    """Return the facts by which a derived file is recognised again."""
    return {
        "format": format_name,
        "identity": database.identity,
        "fingerprint": database.fingerprint,
        "generation": generation,
        "token": database.token(generation),
    }


def belongs(database: Database, facts: dict[str, Any], format_name: str) -> bool:
    """Whether a file was derived from a state that this database went through and can tell the changes since."""
    generation = facts.get("generation", -1)
    return (
        facts.get("token") is not None
        and all(facts.get(key) == value for key, value in lineage(database, format_name, generation).items())
        and generation >= int(database.get_meta("gone_since") or 0)
    )


def check_derived(database: Database, name: str, format_name: str, *, wanted: bool = False) -> str | None:
    """Return what is wrong with a derived file, None when it is fine, or there is none and none is `wanted`."""
    try:
        with database.read(), Reader(database.folder / name, database.codec) as reader:
            if not belongs(database, reader.facts, format_name):
                return "belongs to a different state of the gallery"
            reader.verify()
    except FileNotFoundError:
        return "is missing" if wanted else None
    except DamagedError as error:
        return str(error)
    return None


def check_vectors_file(database: Database) -> str | None:
    """Return what is wrong with the vectors file, None when it is fine or there is none."""
    return check_derived(database, VECTORS_NAME, FORMAT)


def base_vectors(database: Database, face_ids: list[int]) -> dict[int, Float32]:
    """Return the vectors of faces that an intact derived file holds."""
    with database.read():
        base = load_base(database)
    if base is None:
        return {}
    rows = {face_id: row for row, face_id in enumerate(base.face_ids[: base.faces].tolist())}
    return {face_id: base.vectors[rows[face_id]].copy() for face_id in face_ids if face_id in rows}


def load_base(database: Database) -> Base | None:
    """Map the derived file when it is there, intact and of this gallery."""
    try:
        with Reader(database.folder / VECTORS_NAME, database.codec) as reader:
            if not belongs(database, reader.facts, FORMAT):
                return None
            reader.verify()
            face_ids, faces = reader.array("face_ids")
            person_ids, people = reader.array("person_ids")
            names, length = reader.array("names")
            return Base(
                reader.facts,
                face_ids,
                reader.array("face_persons")[0],
                reader.array("vectors")[0],
                faces,
                person_ids,
                reader.array("templates")[0],
                people,
                names[:length].tobytes().decode().split("\0") if people else [],
            )
    except (FileNotFoundError, DamagedError):
        return None


def read_vectors(database: Database, query: str, parameters: tuple[Any, ...]) -> Iterator[tuple[Int64, Int64, Float32]]:
    """Yield face ids, person ids and verified vectors in chunks, for a query of (id, person_id, data, crc)."""
    dim = database.dim
    opened = database.codec.open
    cursor = database.connection.execute(query, parameters)
    while rows := cursor.fetchmany(_CHUNK):
        for face_id, _, data, crc in rows:
            if vector_checksum(face_id, data) != crc:
                raise _damaged(database, face_id)
        joined = b"".join([opened(row[2]) for row in rows] if database.codec.sealed else [row[2] for row in rows])
        ids = np.array([row[0] for row in rows], np.int64)
        if len(joined) != len(rows) * dim * 4:
            raise GalleryError(f"{database.path}: vectors of another length than {dim}: run facepipe gallery check")
        vectors = np.frombuffer(joined, np.float32).reshape(len(rows), dim)
        norms = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= UNIT_TOLERANCE))
        if len(wrong):
            raise _damaged(database, int(ids[wrong[0]]))
        yield ids, np.array([row[1] for row in rows], np.int64), vectors


def _damaged(database: Database, face_id: int) -> GalleryError:
    return GalleryError(
        f"{database.path}: the vector of face {face_id} is damaged: run facepipe gallery check --repair"
    )


def _write_base(database: Database) -> None:
    connection = database.connection
    now = time.time()
    alive = "(f.expires IS NULL OR f.expires > ?)"
    pairs = np.fromiter(
        (
            value
            for row in connection.execute(
                f"SELECT f.id, f.person_id FROM face f WHERE {alive} ORDER BY f.person_id, f.id", (now,)
            )
            for value in row
        ),
        np.int64,
    ).reshape(-1, 2)
    face_ids, face_persons = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    person_ids, counts = np.unique(face_persons, return_counts=True)
    faces, people, dim = len(face_ids), len(person_ids), database.dim
    single = people == faces
    sums = np.zeros((0 if single else people, dim), np.float32)
    with Writer(database.folder / VECTORS_NAME, database.codec) as writer:
        writer.add("face_ids", face_ids)
        writer.add("face_persons", face_persons)
        writer.add("person_ids", person_ids)
        writer.add("names", np.frombuffer("\0".join(names_of(database, person_ids)).encode(), np.uint8))
        writer.begin("vectors", np.float32, (faces, dim), faces + _spare(faces))
        query = (
            "SELECT f.id, f.person_id, v.data, v.crc FROM face f JOIN vector v ON v.face_id = f.id"
            f" WHERE {alive} ORDER BY f.person_id, f.id"
        )
        for _, persons, vectors in read_vectors(database, query, (now,)):
            writer.write(vectors)
            if not single:
                starts = np.flatnonzero(np.diff(persons, prepend=-1))
                sums[np.searchsorted(person_ids, persons[starts])] += np.add.reduceat(vectors, starts, axis=0)
        if single:
            writer.same("templates", "vectors")
        else:
            writer.add("templates", _normalised(sums, counts), people + _spare(faces))
        writer.commit(lineage(database, FORMAT, database.generation()))


def _normalised(sums: Float32, counts: Int64) -> Float32:
    """Return unit rows; sums of one vector as they are."""
    norms = np.linalg.norm(sums, axis=1)
    norms[(counts == 1) | (norms < 1e-6)] = 1.0
    sums /= norms[:, None]
    return sums


def names_of(database: Database, person_ids: Int64) -> list[str]:
    """Return people's names."""
    opened = database.codec.open_text
    stored = dict(database.connection.execute("SELECT id, name FROM person").fetchall())
    return [opened(stored[person_id]) for person_id in person_ids.tolist()]
