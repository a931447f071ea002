"""Erasing without a trace, and forgetting in time.

An erase deletes the rows, then scrubs: derived files are deleted, VACUUM writes the database anew without free pages,
and the WAL is emptied. The wish to scrub is stored in the same transaction as the deletion, so that a process that dies
in between leaves a note, and the next write or `compact` ends what it began.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from facepipe.errors import GalleryLockedError, UsageError
from facepipe.gallery.arrays.derived import drop_derived
from facepipe.gallery.names import normal_name
from facepipe.gallery.people import (
    drop_faces,
    face_ids_of,
    find_person,
    name_key,
    open_name,
    open_source,
    stored_name,
    touch,
)
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.disk import leftovers, sqlite_errors


def erase(database: Database, name: str) -> int:
    """Erase a person: faces, vectors, chips, sources, anchors, the name, also where the person was removed before.

    So are the names of people who became this one by `merge` or by a `split` that left nobody behind. Paths of other
    people's photos that mention one of the names are blanked. Returns how many faces went. UsageError when the
    gallery knows nobody of this name; GalleryLockedError when another process still reads an older state.
    """
    with database.lock("erase"):
        with database.write("erase") as generation:
            ids = known_as(database, name)
            name = stored_name(database, name)
            ids |= _predecessors(database, ids)
            names = {normal_name(name), *_names_of(database, ids)}
            count = sum(_erase_person(database, person_id, generation) for person_id in sorted(ids))
            for gone in names:
                if find_person(database, gone) is None:  # else the name is somebody's who came later
                    _blank_mentions(database, gone, generation)
            database.set_meta("gone_since", str(generation))  # nothing derived from before may come back
            database.set_meta("scrub", "erase")
        scrub(database)
    return count


def known_as(database: Database, name: str) -> set[int]:
    """Return the ids of everybody who has this name, or had it when removed; UsageError when nobody has."""
    key = name_key(database, stored_name(database, name))
    with database.read() as connection:
        ids = {row[0] for row in connection.execute("SELECT id FROM person WHERE name_key = ?", (key,))}
        ids |= {row[0] for row in connection.execute("SELECT person_id FROM subject WHERE name_key = ?", (key,))}
    if not ids:
        raise UsageError(f"no person named {name!r} is or was in {database.folder}: check the spelling")
    return ids


def _predecessors(database: Database, person_ids: Iterable[int]) -> set[int]:
    """Return who became one of these people, directly or in turn; of them only their names are left."""
    became: dict[int, set[int]] = {}
    rows = database.connection.execute(
        "SELECT person_id, action, details FROM journal WHERE action IN ('merge', 'split') AND person_id IS NOT NULL"
    )
    for person_id, action, text in rows:
        details = json.loads(text)
        if action == "merge" or details.get("emptied"):
            became.setdefault(details["into"], set()).add(person_id)
    found: set[int] = set()
    pending = list(person_ids)
    while pending:
        fresh = became.get(pending.pop(), set()) - found
        found |= fresh
        pending += fresh
    return found


def _names_of(database: Database, person_ids: Iterable[int]) -> Iterator[str]:
    """Yield the names that are known of people, who may be gone."""
    for person_id in person_ids:
        for table, key in (("person", "id"), ("subject", "person_id")):
            for (stored,) in database.connection.execute(f"SELECT name FROM {table} WHERE {key} = ?", (person_id,)):
                yield open_name(database, stored, person_id, table)


def _erase_person(database: Database, person_id: int, generation: int) -> int:
    faces = face_ids_of(database, person_id)
    drop_faces(database, faces, generation)
    _drop_people(database, {person_id})
    database.log("erase", person_id, faces=len(faces))
    return len(faces)


def _drop_people(database: Database, person_ids: set[int]) -> None:
    """Delete people without faces, and their names."""
    for query in ("DELETE FROM person WHERE id = ?", "DELETE FROM subject WHERE person_id = ?"):
        database.connection.executemany(query, [(person_id,) for person_id in person_ids])


def _blank_mentions(database: Database, name: str, generation: int) -> None:
    """Blank the paths in which the name stands as a word of its own."""
    pattern = re.compile(rf"(?<!\w){re.escape(name.strip())}(?!\w)", re.IGNORECASE)
    for table, values in (("face", f"source = NULL, changed = {generation}"), ("anchor", "source = NULL")):
        rows = database.connection.execute(f"SELECT id, person_id, source FROM {table} WHERE source IS NOT NULL")
        for row_id, person_id, stored in rows.fetchall():
            source = open_source(database, stored, row_id, person_id, table)
            if source is not None and pattern.search(source):
                database.connection.execute(f"UPDATE {table} SET {values} WHERE id = ?", (row_id,))


def scrub(database: Database, *, vacuum: bool = True) -> None:
    """Leave no byte of what was deleted: in derived files, free pages, and the WAL. The writer's lock is held.

    GalleryLockedError when another process reads an older state, which keeps the WAL from being emptied.
    """
    drop_derived(database)
    for path in leftovers(database.folder):
        path.unlink(missing_ok=True)
    with sqlite_errors(database.folder):
        if vacuum:
            # A copy of a large gallery does not belong in memory.
            for statement in ("PRAGMA temp_store = FILE", "VACUUM", "PRAGMA temp_store = MEMORY"):
                database.connection.execute(statement)
        _empty_wal(database)
        follower = database.follower()
        if follower is not None:
            follower.people.compact()
        if database.get_meta("scrub") is not None:
            with database.write("scrub"):
                database.set_meta("scrub", None)
            _empty_wal(database)


def _empty_wal(database: Database) -> None:
    """Move the WAL into the database file and cut it to nothing; GalleryLockedError when a reader holds it."""
    busy = database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise GalleryLockedError(
            f"{database.folder}: it is gone from the gallery, but another process still reads an older state of the "
            "file: end that process and run facepipe gallery compact"
        )


def forget_expired(database: Database) -> int:
    """Delete expired faces, and people without any face left; return how many faces were deleted."""
    query = "SELECT id, person_id FROM face WHERE expires <= ?"
    now = time.time()
    if not database.writable or not database.connection.execute(query, (now,)).fetchone():
        return 0
    with database.lock("forget"):
        with database.write("forget") as generation:
            rows = database.connection.execute(query, (now,)).fetchall()
            drop_faces(database, [row[0] for row in rows], generation)
            for person_id in sorted({row[1] for row in rows}):
                touch(database, [person_id], generation)
                database.log("expire", person_id, faces=sum(row[1] == person_id for row in rows))
                if not face_ids_of(database, person_id):
                    _drop_people(database, {person_id, *_predecessors(database, [person_id])})
            database.set_meta("gone_since", str(generation))
            database.set_meta("scrub", "forget")
        scrub(database, vacuum=False)
    return len(rows)


def compact(database: Database) -> tuple[int, int]:
    """Forget what expired, drop bookkeeping and free pages; return the database's size before and after, in bytes."""
    before = _size(database)
    with database.lock("compact"):
        forget_expired(database)
        with database.write("compact") as generation:
            database.set_meta("gone_since", str(generation))
            database.connection.execute("DELETE FROM gone")
            # The one before is kept: a vector database has that state until this write has ended.
            database.connection.execute("DELETE FROM stamp WHERE generation < ?", (generation - 1,))
            database.set_meta("scrub", "compact")
        scrub(database)
    return before, _size(database)


def finish_scrub(database: Database) -> bool:
    """End a scrub that a process began and did not live to end; return whether there was one."""
    if not database.writable or database.get_meta("scrub") is None:
        return False
    with database.lock("scrub"):
        scrub(database)
    return True


def _size(database: Database) -> int:
    paths = [Path(f"{database.path}{suffix}") for suffix in ("", "-wal")]
    return sum(path.stat().st_size for path in paths if path.exists())
