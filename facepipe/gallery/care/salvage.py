"""Carries what is intact in a damaged gallery into a new one, row by row, and says what is lost."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facepipe.errors import GalleryDamagedError, GalleryError
from facepipe.gallery.care.check import LOSSES, readable
from facepipe.gallery.care.leaves import leaf_rows
from facepipe.gallery.people import ensure_person, open_source, set_source
from facepipe.gallery.storage.checksums import CRC_OF_FACE, FACE_COLUMNS, vector_checksum
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.schema import migrate
from facepipe.gallery.store import GalleryStore
from facepipe.text import plural, printable


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What a salvage carried. faces: of `known`, of which anything was found. lost: what was not carried, a line each."""

    faces: int
    known: int
    people: int
    lost: list[str]


def salvage(folder: Path, into: Path) -> Salvaged:
    """Carry every intact face of a damaged gallery into a new one.

    A table that SQLite cannot read to its end is read from its pages. GalleryError when not even the table of contents
    can be read, or `into` holds a gallery.
    """
    try:
        source = Database.open(folder, accept_loss=True)
    except GalleryDamagedError as error:
        raise GalleryError(f"{error.what}, and not even its model can be read: restore a copy") from error
    secret = Secret.from_environment() if source.codec.sealed else None  # the new gallery is as closed as the old one
    reader = _Reader(source)
    try:
        with (
            GalleryStore.create(into, source.fingerprint, source.dim, secret) as target,
            target.database.write("salvage") as generation,
        ):
            found = _carry_faces(reader, target.database, generation)
            target.database.log("salvage", faces=found.faces)
            found.lost.extend(_not_carried(source))
    except sqlite3.Error as error:
        raise GalleryError(f"{folder}: nothing can be read from it ({error}): restore a copy") from error
    finally:
        reader.close()
        source.close()
    return found


def _carry_faces(reader: _Reader, target: Database, generation: int) -> Salvaged:
    source = reader.source
    lost: list[str] = []
    names = _names(reader)
    codec = source.codec
    stored = {row[0]: row[1:] for row in reader.rows("vector", "face_id, data, crc")}
    known, rowless = set(stored), set(stored)
    people: set[int] = set()
    count = 0
    for face_id, person_id, intact, *row in reader.rows("face", f"id, person_id, crc = {CRC_OF_FACE}, {FACE_COLUMNS}"):
        columns = dict(zip(FACE_COLUMNS.split(", "), row, strict=True))
        path, content = columns["source"], columns["content"]
        known.add(face_id)
        rowless.discard(face_id)
        data, crc = stored.get(face_id, (None, None))
        name = names.get(person_id, f"person {person_id}")
        if not intact or not isinstance(data, bytes) or vector_checksum(face_id, data) != crc:
            photo = readable(source, path, "face.source", face_id, person_id) or "unknown"
            lost.append(f"face {face_id} ({name}, photo {photo}): its row or its vector is damaged: {LOSSES['vector']}")
            continue
        person = ensure_person(target, name, generation)
        people.add(person)
        opened = open_source(source, path, face_id, person_id)
        vector = codec.open(data, "vector.data", face_id, person_id)
        columns["content"] = (
            None if content is None else target.codec.lookup(codec.unlookup(content, "content"), "content")
        )
        columns["source"] = None
        new_id = target.insert("face", person_id=person, changed=generation, **columns)
        if new_id is not None:
            set_source(target, opened, new_id, person)
            target.put_vector(new_id, person, vector)
            count += 1
    if rowless:
        lost.append(f"{plural(len(rowless), 'face')} whose person is lost: enrol everybody again")
    if reader.patchy:
        lost.append(
            "what lay on unreadable pages, uncounted: enrol everybody again, photos that are there are passed over"
        )
    return Salvaged(count, len(known), len(people), lost)


def _names(reader: _Reader) -> dict[int, str]:
    """Return the names of people by id."""
    names: dict[int, str] = {}
    for table, key in (("subject", "person_id"), ("person", "id")):
        for person_id, stored in reader.rows(table, f"{key}, name"):
            name = readable(reader.source, stored, f"{table}.name", person_id, person_id)
            if name is not None:
                # A name from before invisible characters were refused is carried as lists show it.
                names[person_id] = printable(name)[:200]
    return names


def _not_carried(source: Database) -> Iterator[str]:
    """Say what a salvage leaves behind although it may be intact."""
    for table, what in (("chip", "chips: enrol with --keep-chips again"), ("anchor", "faces noted by gallery not")):
        try:
            count = source.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        except sqlite3.DatabaseError:
            yield f"all {what}"
            continue
        if count:
            yield f"{count} {what}"
    try:
        calibrated = source.get_meta("calibration") is not None
    except (GalleryError, sqlite3.DatabaseError):
        calibrated = True
    if calibrated:
        yield "the calibration: measure it again with facepipe calibrate"


class _Reader:
    """Reads tables of a damaged gallery. patchy: some could not be read by SQLite, and were read from their pages."""

    def __init__(self, source: Database) -> None:
        self.source = source
        self._rebuilt: sqlite3.Connection | None = None
        self.patchy = False

    def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Return columns of all rows that can be read."""
        query = f"SELECT {columns} FROM {table} ORDER BY 1"
        try:
            return self.source.connection.execute(query).fetchall()
        except sqlite3.DatabaseError:
            if self._rebuilt is None:
                self._rebuilt, self.patchy = _rebuild(self.source), True
            return self._rebuilt.execute(query).fetchall()

    def close(self) -> None:
        if self._rebuilt is not None:
            self._rebuilt.close()


def _rebuild(source: Database) -> sqlite3.Connection:
    """Return a temporary database with the rows that lie on readable pages of a gallery."""
    with contextlib.suppress(sqlite3.Error):  # what lies in the WAL belongs to the file
        source.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = Path(source.connection.execute("PRAGMA database_list").fetchone()[2])
    try:
        # A gallery on its way to another network has vectors of both, and pages do not say which.
        moving = source.connection.execute("SELECT 1 FROM vector_next LIMIT 1").fetchone() is not None
    except sqlite3.DatabaseError:
        moving = True
    rebuilt = sqlite3.connect("", isolation_level=None)
    rebuilt.create_function("checksum", -1, source.codec.checksum, deterministic=True)
    migrate(rebuilt)
    rebuilt.execute("BEGIN")
    for row_id, values in leaf_rows(path):
        table = _table_of(values)
        if table is not None and not (moving and table == "vector"):
            marks = ", ".join("?" * len(values))
            with contextlib.suppress(sqlite3.IntegrityError, OverflowError):  # a row that is damaged
                rebuilt.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", (row_id, *values[1:]))
    rebuilt.execute("COMMIT")
    return rebuilt


def _table_of(values: tuple[Any, ...]) -> str | None:
    """Return the table that a row belongs to by its form, None for those that a salvage does not carry."""
    kinds = [type(value) for value in values]
    if len(values) == 21:
        return "face"
    if len(values) == 6 and kinds[2] is bytes:
        return "person"
    if len(values) == 3 and kinds[1] in {str, bytes} and kinds[2] is bytes:
        return "subject"
    if len(values) == 3 and kinds[1:] == [bytes, int]:
        return "vector"
    return None
