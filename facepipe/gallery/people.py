"""Verbs on people: list, show, rename, merge, split, remove, stats. Needs no numpy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facepipe.errors import GalleryDamagedError, UsageError
from facepipe.gallery.names import did_you_mean, new_name, normal_name
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.disk import DATABASE_NAME
from facepipe.gallery.storage.recoding import hand_over
from facepipe.text import printable


@dataclass(frozen=True, slots=True)
class Person:
    """A person in the gallery. first, last: when the first and last of the faces was enrolled, seconds since 1970."""

    id: int
    name: str
    faces: int
    first: float | None
    last: float | None


@dataclass(frozen=True, slots=True)
class FaceRecord:
    """What the gallery knows about one enrolled face, without its vector.

    box: x1 y1 x2 y2 in displayed pixels. size .. edge_density: see `facepipe.types.Quality`. None: not known.
    """

    id: int
    person_id: int
    source: str | None
    box: tuple[float, float, float, float] | None
    score: float | None
    size: float | None
    sharpness: float | None
    yaw: float | None
    pitch: float | None
    roll: float | None
    edge_density: float | None
    enrolled: float
    expires: float | None
    chip: bool


def names_by_id(database: Database, table: str = "person") -> dict[int, str]:
    """Return the names of the people who are there (`person`), or who ever were and were not erased (`subject`), by id."""
    key = "id" if table == "person" else "person_id"
    rows = database.connection.execute(f"SELECT {key}, name FROM {table}").fetchall()
    return {person_id: open_name(database, stored, person_id, table) for person_id, stored in rows}


def open_name(database: Database, stored: str | bytes, person_id: int, table: str = "person") -> str:
    """Return the name that is stored in a row of `person` or `subject`; GalleryDamagedError when it is another's."""
    return database.codec.open_text(stored, f"{table}.name", person_id, person_id)


def open_source(
    database: Database, stored: str | bytes | None, row_id: int, person_id: int, table: str = "face"
) -> str | None:
    """Return the path that is stored in a row of `face` or `anchor`, None when none is."""
    return None if stored is None else database.codec.open_text(stored, f"{table}.source", row_id, person_id)


def set_source(database: Database, source: str | None, row_id: int, person_id: int, table: str = "face") -> None:
    """Store the path of a face or an anchor, sealed for its row; within `write`, when the row is there."""
    if source is not None:
        stored = database.codec.seal_text(source, f"{table}.source", row_id, person_id)
        database.connection.execute(f"UPDATE {table} SET source = ? WHERE id = ?", (stored, row_id))


def name_key(database: Database, name: str) -> bytes:
    """Return what finds a person's name in the database's indexes."""
    return database.codec.lookup(normal_name(name).encode(), "name")


def find_person(database: Database, name: str) -> int | None:
    """Return a person's id, None when nobody has this name."""
    key = name_key(database, name)
    row = database.connection.execute("SELECT id, name FROM person WHERE name_key = ?", (key,)).fetchone()
    if row is None:
        return None
    if database.codec.sealed and name_key(database, open_name(database, row[1], row[0])) != key:
        raise GalleryDamagedError(f"{database.path}: person {row[0]} is found under another person's name")
    return int(row[0])


def require_person(database: Database, name: str) -> int:
    """Return a person's id; UsageError when nobody has this name.

    `stored_name` says what else counts as this name.
    """
    found = find_person(database, stored_name(database, name))
    if found is None:
        with database.read():
            hint = did_you_mean(name, names_by_id(database).values())
        raise UsageError(f"no person named {name!r} in {database.folder}: facepipe gallery list shows the people{hint}")
    return found


def stored_name(database: Database, name: str) -> str:
    """Return a name as it is stored: one with characters that nobody can see or type is given as lists show it.

    Such names were possible once. Any other name is returned as it is.
    """
    if "\\" not in name or find_person(database, name) is not None:
        return name
    with database.read():
        names = {**names_by_id(database, "subject"), **names_by_id(database)}
    return next((text for text in names.values() if printable(text) == name), name)


def ensure_person(database: Database, name: str, generation: int) -> int:
    """Return a person's id, adding the person when new; within `write`. UsageError for what cannot be a new name."""
    found = find_person(database, name)
    if found is not None:
        return found
    name = new_name(name)
    key = name_key(database, name)
    person_id = database.insert("person", name="", name_key=key, created=time.time(), changed=generation)
    assert person_id is not None
    _set_name(database, person_id, name)
    return person_id


def _set_name(database: Database, person_id: int, name: str) -> None:
    """Store a person's name, and who journal entries are about: the only place of the journal with names, emptied by an erase."""
    key = name_key(database, name)
    own, subject = (database.codec.seal_text(name, f"{t}.name", person_id, person_id) for t in ("person", "subject"))
    database.connection.execute("UPDATE person SET name = ?, name_key = ? WHERE id = ?", (own, key, person_id))
    database.connection.execute("INSERT OR REPLACE INTO subject VALUES (?, ?, ?)", (person_id, subject, key))


def people(database: Database) -> list[Person]:
    """Return everybody, sorted by name; expired faces are not counted."""
    with database.read() as connection:
        rows = connection.execute(
            "SELECT p.id, p.name, count(f.id), min(f.enrolled), max(f.enrolled) FROM person p"
            " LEFT JOIN face f ON f.person_id = p.id AND (f.expires IS NULL OR f.expires > ?) GROUP BY p.id",
            (time.time(),),
        ).fetchall()
    opened = [Person(row[0], open_name(database, row[1], row[0]), *row[2:]) for row in rows]
    return sorted(opened, key=lambda person: (person.name.casefold(), person.name))


def faces_of(database: Database, name: str) -> list[FaceRecord]:
    """Return a person's faces that have not expired, as enrolled. UsageError when nobody has this name."""
    with database.read() as connection:
        person_id = require_person(database, name)
        rows = connection.execute(
            "SELECT id, source, x1, y1, x2, y2, score, size, sharpness, yaw, pitch, roll, edge_density, enrolled, expires,"
            " EXISTS (SELECT 1 FROM chip WHERE face_id = id) FROM face"
            " WHERE person_id = ? AND (expires IS NULL OR expires > ?) ORDER BY id",
            (person_id, time.time()),
        ).fetchall()
    found = []
    for face_id, stored, x1, y1, x2, y2, *rest in rows:
        source = open_source(database, stored, face_id, person_id)
        box = None if x1 is None else (x1, y1, x2, y2)
        rest[-1] = bool(rest[-1])  # whether there is a chip
        found.append(FaceRecord(face_id, person_id, source, box, *rest))
    return found


def rename(database: Database, name: str, to: str) -> None:
    """Give a person another name. UsageError when nobody has the old one or somebody has the new one."""
    with database.write("rename") as generation:
        person_id = require_person(database, name)
        to = new_name(to)
        other = find_person(database, to)
        if other is not None and other != person_id:
            raise UsageError(f"there is already a person named {to!r}: facepipe gallery merge joins two people")
        _set_name(database, person_id, to)
        touch(database, [person_id], generation)
        database.log("rename", person_id)


def merge(database: Database, names: Sequence[str], into: str) -> int:
    """Move all faces of `names` to the person `into` (made when new); return how many moved.

    A photo that both have is kept once. UsageError when a name is unknown, or all are one person's.
    """
    with database.write("merge") as generation:
        sources = [require_person(database, name) for name in names]
        target = ensure_person(database, into, generation)
        if set(sources) == {target}:
            raise UsageError(f"{into!r} cannot be merged with the same person: name another person as well")
        moved = 0
        for source in sources:
            if source == target:
                continue
            moved += _move(database, face_ids_of(database, source), target, generation)
            _drop_person(database, source, into=target)
            database.log("merge", source, into=target)
        touch(database, [target], generation)
        return moved


def split(database: Database, name: str, face_ids: Sequence[int], into: str) -> int:
    """Move some faces of a person to another (made when new); return how many moved.

    A person without any face left is removed, as by `merge`. UsageError when a face is not this person's, or both
    names are one person's.
    """
    with database.write("split") as generation:
        source = require_person(database, name)
        _check_owner(database, name, source, face_ids)
        target = ensure_person(database, into, generation)
        if target == source:
            raise UsageError(f"{name!r} cannot be split into the same person: give another name with --into")
        moved = _move(database, face_ids, target, generation)
        emptied = not face_ids_of(database, source)
        if emptied:
            _drop_person(database, source, into=target)
        touch(database, [source, target], generation)
        database.log("split", source, into=target, faces=moved, **({"emptied": True} if emptied else {}))
        return moved


def remove(database: Database, name: str, face_ids: Sequence[int] | None = None) -> int:
    """Remove a person, or some of the person's faces; return how many faces went.

    The name stays in the journal's list of names, and bytes may stay in derived files until `compact`; `erase` leaves
    nothing. UsageError when nobody has this name or a face is not this person's.
    """
    with database.write("remove") as generation:
        person_id = require_person(database, name)
        ids = face_ids_of(database, person_id) if face_ids is None else list(face_ids)
        _check_owner(database, name, person_id, ids)
        drop_faces(database, ids, generation)
        if face_ids is None:
            database.connection.execute("DELETE FROM person WHERE id = ?", (person_id,))
        else:
            touch(database, [person_id], generation)
        database.log("remove", person_id, faces=len(ids), whole=face_ids is None)
        return len(ids)


def face_ids_of(database: Database, person_id: int) -> list[int]:
    """Return the ids of a person's faces, expired ones as well."""
    return [row[0] for row in database.connection.execute("SELECT id FROM face WHERE person_id = ?", (person_id,))]


def _check_owner(database: Database, name: str, person_id: int, face_ids: Sequence[int]) -> None:
    own = set(face_ids_of(database, person_id))
    for face_id in face_ids:
        if face_id not in own:
            raise UsageError(f"face {face_id} is not one of {name!r}: facepipe gallery show lists the person's faces")


def _move(database: Database, face_ids: Sequence[int], target: int, generation: int) -> int:
    """Move faces to another person; a face whose photo the other has already is dropped. Return how many moved."""
    moved = 0
    for face_id in face_ids:
        twin = database.connection.execute(
            "SELECT 1 FROM face a JOIN face b ON b.content = a.content AND b.ordinal = a.ordinal"
            " WHERE a.id = ? AND b.person_id = ? AND b.id != a.id",
            (face_id, target),
        ).fetchone()
        if twin:
            drop_faces(database, [face_id], generation)
            continue
        hand_over(database.connection, database.codec, "face", [face_id], target)
        database.connection.execute("UPDATE face SET changed = ? WHERE id = ?", (generation, face_id))
        moved += 1
    return moved


def drop_faces(database: Database, face_ids: Sequence[int], generation: int) -> None:
    """Delete faces with their vectors and chips, leaving their ids in `gone`; within `write`."""
    database.connection.executemany("DELETE FROM face WHERE id = ?", [(face_id,) for face_id in face_ids])
    rows = [(face_id, generation) for face_id in face_ids]
    database.connection.executemany("INSERT OR REPLACE INTO gone VALUES (?, ?)", rows)


def _drop_person(database: Database, person_id: int, into: int) -> None:
    """Delete a person without faces; faces that are not this person are not the other one either."""
    anchors = database.connection.execute("SELECT id FROM anchor WHERE person_id = ?", (person_id,)).fetchall()
    hand_over(database.connection, database.codec, "anchor", [row[0] for row in anchors], into)
    database.connection.execute("DELETE FROM person WHERE id = ?", (person_id,))


def touch(database: Database, person_ids: Sequence[int], generation: int) -> None:
    """Note that the people's templates changed."""
    database.connection.executemany(
        "UPDATE person SET changed = ? WHERE id = ?", [(generation, person_id) for person_id in person_ids]
    )


def stats(database: Database) -> dict[str, Any]:
    """Return counts, sizes in bytes, model, seal and expiry of the gallery."""

    def count(what: str) -> int:
        return int(database.connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])

    with database.read() as connection:
        least, most = connection.execute(
            "SELECT min(n), max(n) FROM (SELECT count(*) AS n FROM face GROUP BY person_id)"
        ).fetchone()
        return {
            "people": count("person"),
            "faces": count("face"),
            "faces_per_person": None if least is None else {"min": least, "max": most},
            "expired": count(f"face WHERE expires <= {time.time()!r}"),
            "expiring": count("face WHERE expires IS NOT NULL"),
            "chips": count("chip"),
            "anchors": count("anchor"),
            "model": database.fingerprint,
            "dim": database.dim,
            "generation": database.generation(),
            "sealed": database.codec.sealed,
            "calibrated": database.get_meta("calibration") is not None,
            "bytes": {
                path.name: path.stat().st_size
                for path in sorted(database.folder.iterdir())
                if path.is_file() and (path.name.startswith(DATABASE_NAME) or path.suffix in {".f32", ".faiss"})
            },
        }
