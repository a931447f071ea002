"""A frozen picture of the gallery as arrays: what the matcher reads.

Built from the derived file of vectors (memory-mapped, private, copy on write) and what changed since it was written, so
opening costs what changed and not what is enrolled; see `vectors`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from facepipe.gallery.arrays.vectors_file import (
    FORMAT,
    Base,
    belongs,
    is_behind,
    load_base,
    names_of,
    read_vectors,
    refresh_vectors_file,
)
from facepipe.gallery.storage.database import Database
from facepipe.types import Float32, Int64


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


def unit_means(vectors: Float32, starts: Int64) -> Float32:
    """Return the unit mean of each group of rows, float32 (g, d).

    vectors: float32 (n, d), the groups one after the other. starts: int64 (g,), first row of each group, rising. A
    group of one keeps its vector bit for bit. A group whose mean is zero (opposite vectors) keeps its first vector.
    """
    if not len(starts):
        return np.zeros((0, vectors.shape[1]), np.float32)
    sums = np.add.reduceat(vectors, starts, axis=0, dtype=np.float32)
    counts = np.diff(np.append(starts, len(vectors)))
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    flat = norms[:, 0] < 1e-6
    means = np.asarray(sums / np.where(flat[:, None], 1.0, norms), np.float32)
    keep = flat | (counts == 1)
    means[keep] = vectors[starts[keep]]
    return means


def load_snapshot(database: Database, *, cache: bool = True) -> GallerySnapshot:
    """Return the gallery as arrays, as of now; see `GalleryStore.snapshot`."""
    with database.read():
        base = load_base(database)
        behind = cache and is_behind(database, base)
    if behind and refresh_vectors_file(database, wait=False):
        base = None
    with database.read():
        # Between the two reads somebody may have been erased: nothing derived from before may be used then.
        if base is None or not belongs(database, base.facts, FORMAT):
            base = load_base(database)
        return _assemble(database, base)


def _assemble(database: Database, base: Base | None) -> GallerySnapshot:
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
        names = names_of(database, person_ids)
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


def _patched_names(database: Database, base: Base, known: Int64, person_ids: Int64) -> list[str]:
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
    base: Base, gone: Int64, ids: Int64, persons: Int64, vectors: Float32
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
