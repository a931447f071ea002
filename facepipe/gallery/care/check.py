"""Is everything as it was written? The database, the vectors, the checksums, the derived files, the journal's chain.

SQLite's own check finds damage to the file's structure; a flipped bit in a name or a vector is found by the row's CRC-32.
What is derived is simply made again; a damaged vector comes back from the derived file when that still holds it; for the
rest there is `salvage`, which carries every intact row into a new gallery.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.errors import GalleryDamagedError, GalleryError, InputError
from facepipe.gallery.care.leaves import leaf_rows
from facepipe.gallery.codec import Secret
from facepipe.gallery.database import Database
from facepipe.gallery.derived import TEMPORARY, remove_leftovers
from facepipe.gallery.index_file import check_index, drop_index
from facepipe.gallery.people import drop_faces, touch
from facepipe.gallery.privacy.erasing import finish_scrub
from facepipe.gallery.rows import CRC_OF_FACE, CRC_OF_PERSON, checksum, journal_digest, vector_checksum
from facepipe.gallery.schema import migrate
from facepipe.gallery.vectors import base_vectors, check_cache, drop_cache
from facepipe.images import content_hash, read_bytes
from facepipe.text import plural, printable
from facepipe.types import UNIT_TOLERANCE


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. kind: short and fixed. face_id: when it is about one face. advice: what to do."""

    kind: str
    text: str
    advice: str
    face_id: int | None = None


_SALVAGE = GalleryDamagedError.NEXT
_REPAIR = "facepipe gallery check --repair repairs it"
_DROPS = "facepipe gallery check --repair drops it, because no copy is left"
_WITHOUT = "facepipe gallery check --repair continues without"
_NEWEST = "enrol the newest photos again"


def check(database: Database, *, sources: bool = False) -> list[Finding]:
    """Return everything that is wrong, an empty list when nothing is. sources: compare the photos' hashes as well."""
    try:
        with database.read() as connection:
            faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            if faults:
                first = faults[0].splitlines()[-1]  # below the name of the database
                return [
                    Finding("structure", f"the database is damaged ({plural(len(faults), 'fault')}: {first})", _SALVAGE)
                ]
            found: list[Finding] = []
            found += [
                Finding("structure", f"{row[0]} row {row[1]} refers to a missing {row[2]}", _SALVAGE)
                for row in connection.execute("PRAGMA foreign_key_check")
            ]
            found += _check_rows(connection)
            found += _check_vectors(database)
            found += _check_journal(connection)
            if sources:
                found += _check_sources(database)
            found = _foresee(database, found)
    except GalleryDamagedError as error:
        return [Finding("structure", error.what, _SALVAGE)]
    for name, wrong in (("vectors", check_cache(database)), ("index", check_index(database))):
        if wrong is not None:
            found.append(Finding(name, wrong, _REPAIR))
    lost = database.lost_writes()
    if lost:
        found.append(Finding("lost", f"the last {lost} writes are missing", f"{_WITHOUT} them: {_NEWEST}"))
    leftovers = [path for path in database.folder.iterdir() if path.name.endswith(TEMPORARY)]
    found += [Finding("leftover", f"{path.name} was left by a killed process", _REPAIR) for path in leftovers]
    if database.get_meta("scrub") is not None:
        found.append(Finding("scrub", "an erase was not finished: bytes may still lie in the file", _REPAIR))
    return found


def _foresee(database: Database, found: list[Finding]) -> list[Finding]:
    """Say what --repair cannot repair, what will be lost, and what to do then."""
    broken = [f.face_id for f in found if f.kind == "vector" and f.face_id is not None]
    copies = base_vectors(database, broken) if broken else {}
    foreseen = []
    for finding in found:
        if finding.face_id is not None and finding.kind in _LOSSES and finding.face_id not in copies:
            whose, advice = _whose(database, finding.kind, finding.face_id), _LOSSES[finding.kind]
            finding = replace(finding, text=f"{finding.text} ({whose})", advice=f"{_DROPS}: {advice}")
        foreseen.append(finding)
    return foreseen


#: Kind of finding that costs something to repair -> what to do afterwards.
_LOSSES = {
    "vector": "enrol that photo again",
    "chip": "keep that photo, reembed will need it",
    "anchor": "repeat facepipe gallery not",
}


def _whose(database: Database, kind: str, row_id: int) -> str:
    """Return the person and the photo of a face or an anchor, as far as they can be read."""
    table = "anchor" if kind == "anchor" else "face"
    row = database.connection.execute(
        f"SELECT p.name, t.source FROM {table} t LEFT JOIN person p ON p.id = t.person_id WHERE t.id = ?", (row_id,)
    ).fetchone()
    person, source = (_readable(database, value) for value in row or (None, None))
    return f"{person or 'a person whose name is lost'}, photo {source or 'unknown'}"


def _readable(database: Database, stored: str | bytes | None) -> str | None:
    """Return stored text, None when there is none or it is damaged."""
    try:
        return None if stored is None else database.codec.open_text(stored)
    except (GalleryError, UnicodeDecodeError):
        return None


def _check_rows(connection: sqlite3.Connection) -> Iterator[Finding]:
    for key, value, crc in connection.execute("SELECT key, value, crc FROM meta"):
        if checksum(key, value) != crc:
            yield Finding("setting", f"the setting {key!r} is damaged", _SALVAGE)
    for table, crc in (("person", CRC_OF_PERSON), ("face", CRC_OF_FACE)):
        for (row_id,) in connection.execute(f"SELECT id FROM {table} WHERE crc != {crc}"):
            face_id = row_id if table == "face" else None
            yield Finding(table, f"{table} {row_id}: its row is damaged", _SALVAGE, face_id)
    for table, key, blob in (("chip", "face_id", "data"), ("anchor", "id", "vector")):
        for row_id, data, crc in connection.execute(f"SELECT {key}, {blob}, crc FROM {table}"):
            if vector_checksum(row_id, data) != crc:
                yield Finding(table, f"{table} {row_id} is damaged", _REPAIR, row_id)
    for (row_id,) in connection.execute(
        "SELECT id FROM face WHERE NOT EXISTS (SELECT 1 FROM vector WHERE vector.face_id = face.id)"
    ):
        yield Finding("vector", f"face {row_id} has no vector", _REPAIR, row_id)


def _check_vectors(database: Database) -> Iterator[Finding]:
    dim = database.dim
    for face_id, data, crc in database.connection.execute("SELECT face_id, data, crc FROM vector"):
        wrong = None
        if vector_checksum(face_id, data) != crc:
            wrong = "does not match its checksum"
        else:
            vector = np.frombuffer(database.codec.open(data), np.float32)
            if len(vector) != dim or not abs(float(np.linalg.norm(vector)) - 1.0) <= UNIT_TOLERANCE:
                wrong = f"does not have unit length and {dim} finite numbers"
        if wrong is not None:
            yield Finding("vector", f"the vector of face {face_id} {wrong}", _REPAIR, face_id)


def _check_journal(connection: sqlite3.Connection) -> Iterator[Finding]:
    digest = b""
    rows = connection.execute("SELECT id, at, actor, action, person_id, details, digest FROM journal ORDER BY id")
    for row_id, at, who, action, person_id, details, stored in rows:
        digest = journal_digest(digest, (at, who, action, person_id, details))
        if digest != stored:
            yield Finding("journal", f"the journal was altered at or before entry {row_id}", "compare it with a copy")
            return


def _check_sources(database: Database) -> Iterator[Finding]:
    codec = database.codec
    rows = database.connection.execute(
        "SELECT id, source, content FROM face WHERE source NOT NULL AND content NOT NULL"
    )
    for face_id, source, content in rows:
        path = codec.open_text(source)
        try:
            actual = bytes.fromhex(content_hash(read_bytes(path)[1]))[:16]
        except InputError as error:
            yield Finding("source", str(error), "enrol the photo from its new place", face_id)
            continue
        if actual != codec.unlookup(content):
            yield Finding("source", f"{path}: is not the photo that was enrolled", "enrol it again", face_id)


def repair(database: Database, findings: list[Finding]) -> tuple[list[str], list[str]]:
    """Repair what can be repaired; return what was done and what was lost, a line each."""
    done: list[str] = []
    lost: list[str] = []
    kinds = {finding.kind for finding in findings}
    with database.lock("repair"):
        if "leftover" in kinds:
            done += [f"{path.name} deleted" for path in remove_leftovers(database.folder)]
        vectors = [f.face_id for f in findings if f.kind == "vector" and f.face_id is not None]
        _repair_vectors(database, vectors, done, lost)
        for table, key in (("chip", "face_id"), ("anchor", "id")):
            broken = [f.face_id for f in findings if f.kind == table]
            if broken:
                lost += [f"{f.text}: {_LOSSES[table]}" for f in findings if f.kind == table]
                with database.write("repair"):
                    database.connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", [(i,) for i in broken])
                done.append(f"{len(broken)} damaged {table}s deleted")
        if "vectors" in kinds:
            drop_cache(database)
            done.append("the file of vectors deleted; it is made again when it is needed")
        if "index" in kinds:
            drop_index(database)
            done.append("the index deleted; facepipe gallery index makes it again")
        if "lost" in kinds:
            with database.write("repair"):
                database.set_meta("gone_since", str(database.generation()))
                database.log("repair", lost=True)
            lost.append(f"continuing without the lost writes: {_NEWEST}")
        if "scrub" in kinds and finish_scrub(database):
            done.append("the erase is finished")
    return done, lost


def _repair_vectors(database: Database, face_ids: list[int], done: list[str], lost: list[str]) -> None:
    if not face_ids:
        return
    copies = base_vectors(database, face_ids)
    with database.write("repair") as generation:
        for face_id in face_ids:
            copy = copies.get(face_id)
            if copy is not None:
                data = database.codec.seal(copy.tobytes())
                database.connection.execute(
                    "INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", (face_id, data, vector_checksum(face_id, data))
                )
                done.append(f"the vector of face {face_id} is back, from the derived file")
            else:
                whose = _whose(database, "vector", face_id)
                row = database.connection.execute("SELECT person_id FROM face WHERE id = ?", (face_id,)).fetchone()
                drop_faces(database, [face_id], generation)
                touch(database, [row[0]], generation)
                database.log("repair", row[0], faces=1)
                lost.append(f"face {face_id} ({whose}) dropped, no copy of its vector is left: {_LOSSES['vector']}")


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
    from facepipe.gallery.store import Gallery

    try:
        source = Database.open(folder, accept_loss=True)
    except GalleryDamagedError as error:
        raise GalleryError(f"{error.what}, and not even its model can be read: restore a copy") from error
    secret = Secret.from_environment() if source.codec.sealed else None  # the new gallery is as closed as the old one
    reader = _Reader(source)
    try:
        with (
            Gallery.create(into, source.fingerprint, source.dim, secret) as target,
            target.database.write("salvage") as generation,
        ):
            found = _salvage_rows(reader, target.database, generation)
            target.database.log("salvage", faces=found.faces)
            found.lost.extend(_not_carried(source))
    except sqlite3.Error as error:
        raise GalleryError(f"{folder}: nothing can be read from it ({error}): restore a copy") from error
    finally:
        reader.close()
        source.close()
    return found


def _salvage_rows(reader: _Reader, target: Database, generation: int) -> Salvaged:
    from facepipe.gallery.people import ensure_person

    source = reader.source
    lost: list[str] = []
    names: dict[int, str] = {}
    for table, key in (("subject", "person_id"), ("person", "id")):
        for person_id, stored in reader.rows(table, f"{key}, name"):
            name = _readable(source, stored)
            if name is not None:
                # A name from before invisible characters were refused is carried as lists show it.
                names[person_id] = printable(name)[:200]
    columns = (
        "person_id, source, content, ordinal, x1, y1, x2, y2, score, landmarks, size, sharpness, yaw, pitch, roll,"
        " edge_density, enrolled, expires"
    )
    vectors: dict[int, bytes] = {}
    known: set[int] = set()
    for face_id, data, crc in reader.rows("vector", "face_id, data, crc"):
        known.add(face_id)
        if isinstance(data, bytes) and vector_checksum(face_id, data) == crc:
            vectors[face_id] = source.codec.open(data)
    carried: set[int] = set()
    rowless = set(known)
    count = 0
    for row in reader.rows("face", f"id, {columns}, crc = {CRC_OF_FACE}"):
        face_id, person_id, source_path, content, *rest, intact = row
        known.add(face_id)
        rowless.discard(face_id)
        if not intact or face_id not in vectors:
            whose = (
                f"{names.get(person_id, f'person {person_id}')}, photo {_readable(source, source_path) or 'unknown'}"
            )
            lost.append(f"face {face_id} ({whose}): its row or its vector is damaged: {_LOSSES['vector']}")
            continue
        person = ensure_person(target, names.get(person_id, f"person {person_id}"), generation)
        carried.add(person)
        values: list[Any] = [
            person,
            None if source_path is None else target.codec.seal_text(source.codec.open_text(source_path)),
            None if content is None else target.codec.lookup(source.codec.unlookup(content)),
            *rest,
            generation,
        ]
        marks = ", ".join("?" * len(values))
        cursor = target.connection.execute(f"INSERT INTO face ({columns}, changed) VALUES ({marks})", values)
        data = target.codec.seal(vectors[face_id])
        assert cursor.lastrowid is not None
        target.connection.execute(
            "INSERT INTO vector VALUES (?, ?, ?)",
            (cursor.lastrowid, data, vector_checksum(cursor.lastrowid, data)),
        )
        count += 1
    if rowless:
        lost.append(f"{plural(len(rowless), 'face')} whose person is lost: enrol everybody again")
    if reader.patchy:
        lost.append(
            "what lay on unreadable pages, uncounted: enrol everybody again, photos that are there are passed over"
        )
    return Salvaged(count, len(known), len(carried), lost)


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

    @property
    def patchy(self) -> bool:
        return self._rebuilt is not None

    def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Return columns of all rows that can be read."""
        query = f"SELECT {columns} FROM {table} ORDER BY 1"
        try:
            return self.source.connection.execute(query).fetchall()
        except sqlite3.DatabaseError:
            if self._rebuilt is None:
                self._rebuilt = _rebuild(self.source)
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
    rebuilt.create_function("checksum", -1, checksum, deterministic=True)
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
