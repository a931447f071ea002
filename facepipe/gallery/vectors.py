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
from facepipe.gallery.database import Database
from facepipe.gallery.derived import DamagedError, Reader, Writer
from facepipe.gallery.lock import UnwritableError
from facepipe.gallery.rows import vector_checksum
from facepipe.gallery.snapshot import GallerySnapshot, unit_means
from facepipe.types import UNIT_TOLERANCE, Float32, Int64

VECTORS_NAME = "vectors.f32"
SMALL = 4096
_FORMAT = "facepipe vectors 2"
_CHUNK = 8192


@dataclass(slots=True)
class _Base:
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


def load_snapshot(database: Database, *, cache: bool = True) -> GallerySnapshot:
    """Return the gallery as arrays, as of now; see `Gallery.snapshot`."""
    with database.read():
        base = _load_base(database)
        behind = cache and _is_behind(database, base)
    if behind and refresh_cache(database, wait=False):
        base = None
    with database.read():
        # Between the two reads somebody may have been erased: nothing derived from before may be used then.
        if base is None or not belongs(database, base.facts, _FORMAT):
            base = _load_base(database)
        return _assemble(database, base)


def refresh_cache(database: Database, *, wait: bool) -> bool:
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


def drop_cache(database: Database) -> None:
    """Delete the derived file of vectors; it comes back when it is needed."""
    (database.folder / VECTORS_NAME).unlink(missing_ok=True)


def _is_behind(database: Database, base: _Base | None) -> bool:
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


def _open_base(database: Database) -> Reader:
    return Reader(database.folder / VECTORS_NAME, database.codec)


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


def check_cache(database: Database) -> str | None:
    """Return what is wrong with the derived file of vectors, None when it is fine or there is none."""
    with database.read():
        try:
            with _open_base(database) as reader:
                if not belongs(database, reader.facts, _FORMAT):
                    return "belongs to a different state of the gallery"
                reader.verify()
        except FileNotFoundError:
            return None
        except DamagedError as error:
            return str(error)
    return None


def base_vectors(database: Database, face_ids: list[int]) -> dict[int, Float32]:
    """Return the vectors of faces that an intact derived file holds."""
    with database.read():
        base = _load_base(database)
    if base is None:
        return {}
    rows = {face_id: row for row, face_id in enumerate(base.face_ids[: base.faces].tolist())}
    return {face_id: base.vectors[rows[face_id]].copy() for face_id in face_ids if face_id in rows}


def _load_base(database: Database) -> _Base | None:
    """Map the derived file when it is there, intact and of this gallery."""
    try:
        with _open_base(database) as reader:
            if not belongs(database, reader.facts, _FORMAT):
                return None
            reader.verify()
            face_ids, faces = reader.array("face_ids")
            person_ids, people = reader.array("person_ids")
            names, length = reader.array("names")
            return _Base(
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
        writer.add("names", np.frombuffer("\0".join(_names(database, person_ids)).encode(), np.uint8))
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
        writer.commit(lineage(database, _FORMAT, database.generation()))


def _normalised(sums: Float32, counts: Int64) -> Float32:
    """Return unit rows; sums of one vector as they are."""
    norms = np.linalg.norm(sums, axis=1)
    norms[(counts == 1) | (norms < 1e-6)] = 1.0
    sums /= norms[:, None]
    return sums


def _assemble(database: Database, base: _Base | None) -> GallerySnapshot:
    connection = database.connection
    since = base.generation if base is not None else -1
    now = time.time()
    # Left to itself SQLite would walk all faces in the wanted order to find the few that changed.
    by_change = "INDEXED BY face_changed" if base is not None else ""
    chunks = list(
        read_vectors(
            database,
            f"SELECT f.id, f.person_id, v.data, v.crc FROM face f {by_change} JOIN vector v ON v.face_id = f.id"
            " WHERE f.changed > ? AND (f.expires IS NULL OR f.expires > ?) ORDER BY f.person_id, f.id",
            (since, now),
        )
    )
    dim = database.dim
    ids = _joined([chunk[0] for chunk in chunks], np.zeros(0, np.int64))
    persons = _joined([chunk[1] for chunk in chunks], np.zeros(0, np.int64))
    vectors = _joined([chunk[2] for chunk in chunks], np.zeros((0, dim), np.float32))
    del chunks
    if base is None:
        person_ids, starts = np.unique(persons, return_index=True)
        templates = vectors if len(person_ids) == len(persons) else unit_means(vectors, starts.astype(np.int64))
        names = _names(database, person_ids)
    else:
        gone = connection.execute(
            "SELECT face_id FROM gone WHERE generation > ? UNION SELECT id FROM face WHERE changed > ?"
            " UNION SELECT id FROM face WHERE expires <= ?",
            (since, since, now),
        ).fetchall()
        known = base.person_ids[: base.people].copy()  # patching works in place
        ids, persons, vectors, person_ids, templates = _patched(
            base, np.array([row[0] for row in gone], np.int64), ids, persons, vectors
        )
        names = _patched_names(database, base, known, person_ids)
    order = np.argsort(person_ids, kind="stable")
    owners = order[np.searchsorted(person_ids, persons, sorter=order)] if len(persons) else persons
    negatives, negative_owners = _negatives(database, person_ids)
    return GallerySnapshot(
        persons=tuple(names),
        templates=templates,
        vectors=vectors,
        owners=owners,
        face_ids=ids,
        person_ids=person_ids,
        negatives=negatives,
        negative_owners=negative_owners,
        generation=database.generation(),
        fingerprint=database.fingerprint,
        identity=database.identity,
    )


def _names(database: Database, person_ids: Int64) -> list[str]:
    """Return people's names."""
    opened = database.codec.open_text
    stored = dict(database.connection.execute("SELECT id, name FROM person").fetchall())
    return [opened(stored[person_id]) for person_id in person_ids.tolist()]


def _patched_names(database: Database, base: _Base, known: Int64, person_ids: Int64) -> list[str]:
    """Return people's names: from the derived file (whose people are `known`), but for those who came or were renamed."""
    changed = database.connection.execute(
        "SELECT id, name FROM person WHERE changed > ?", (base.generation,)
    ).fetchall()
    fresh = {person_id: database.codec.open_text(name) for person_id, name in changed}
    names = base.names
    if not np.array_equal(known, person_ids):
        stored = dict(zip(known.tolist(), base.names, strict=True))
        names = [stored.get(person_id, "") for person_id in person_ids.tolist()]
    if fresh:
        names = [fresh.get(person_id, name) for person_id, name in zip(person_ids.tolist(), names, strict=True)]
    return names


def _joined(parts: list[Any], empty: Any) -> Any:
    return np.concatenate(parts) if parts else empty


def _patched(
    base: _Base, gone: Int64, ids: Int64, persons: Int64, vectors: Float32
) -> tuple[Int64, Int64, Float32, Int64, Float32]:
    """Return face ids, their persons, vectors, person ids and templates: the base without `gone`, with the new rows."""
    if not len(gone) and not len(ids):
        return (
            base.face_ids[: base.faces],
            base.face_persons[: base.faces],
            base.vectors[: base.faces],
            base.person_ids[: base.people],
            base.templates[: base.people],
        )
    dead = np.isin(base.face_ids[: base.faces], gone)
    touched = np.union1d(base.face_persons[: base.faces][dead], persons)
    all_ids = _patch(base.face_ids, base.faces, dead, ids)
    all_persons = _patch(base.face_persons, base.faces, dead, persons)
    all_vectors = _patch(base.vectors, base.faces, dead, vectors)
    rows = np.flatnonzero(np.isin(all_persons, touched))
    rows = rows[np.lexsort((all_ids[rows], all_persons[rows]))]
    alive, starts = np.unique(all_persons[rows], return_index=True)
    fresh = unit_means(all_vectors[rows], starts.astype(np.int64))
    stale = np.isin(base.person_ids[: base.people], touched)
    person_ids = _patch(base.person_ids, base.people, stale, alive)
    templates = _patch(base.templates, base.people, stale, fresh)
    return all_ids, all_persons, all_vectors, person_ids, templates


def _patch(array: Any, rows: int, dead: Any, new: Any) -> Any:
    """Return the first `rows` of `array` without the dead ones (the last rows take their places), then the new rows."""
    kept = rows - int(dead.sum())
    total = kept + len(new)
    if total > len(array):
        array = np.concatenate([array[:rows], np.zeros((total - rows, *array.shape[1:]), array.dtype)])
    holes = np.flatnonzero(dead[:kept])
    array[holes] = array[kept:rows][~dead[kept:]]
    array[kept:total] = new
    return array[:total]


def _negatives(database: Database, person_ids: Int64) -> tuple[Float32, Int64]:
    position = {person: row for row, person in enumerate(person_ids.tolist())} if _has_anchors(database) else {}
    found = [
        (position[person], database.codec.open(vector))
        for person, vector in database.connection.execute("SELECT person_id, vector FROM anchor ORDER BY id")
        if person in position
    ]
    vectors = np.frombuffer(b"".join(vector for _, vector in found), np.float32).reshape(len(found), database.dim)
    return vectors, np.array([row for row, _ in found], np.int64)


def _has_anchors(database: Database) -> bool:
    return database.connection.execute("SELECT 1 FROM anchor LIMIT 1").fetchone() is not None
