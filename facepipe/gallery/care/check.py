"""Is everything as it was written? The database, the vectors, the checksums, the derived files, the journal's chain.

SQLite's own check finds damage to the file's structure; a flipped bit in a name or a vector is found by the row's CRC-32.
What is derived is simply made again; a damaged vector comes back from the derived file when that still holds it; for the
rest there is `salvage`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facepipe.errors import GalleryDamagedError, GalleryError, GalleryServerError, InputError
from facepipe.gallery.arrays.derived import (
    INDEX_NAME,
    TRIALS_NAME,
    VECTORS_NAME,
    DamagedError,
    UnusableError,
    drop_derived,
    read_derived,
)
from facepipe.gallery.arrays.milvus_index import check_milvus
from facepipe.gallery.people import drop_faces, touch
from facepipe.gallery.privacy.erasing import finish_scrub
from facepipe.gallery.storage.checksums import CRC_OF_FACE, CRC_OF_PERSON, journal_digest, vector_checksum
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.disk import leftovers
from facepipe.gallery.storage.soundness import fault_in_rows
from facepipe.images import content_hash, file_hash, is_video, read_bytes
from facepipe.text import plural
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
            with database.blamed():
                found += _check_rows(database)
                found += _check_vectors(database)
                found += _check_journal(connection)
                if sources:
                    found += _check_sources(database)
            if not found and (fault := fault_in_rows(connection)):
                return [Finding("structure", fault, _SALVAGE)]
            found = list(_foresee(database, found))
    except GalleryDamagedError as error:
        return [Finding("structure", error.what, _SALVAGE)]
    found += _check_derived(database)
    lost = database.lost_writes()
    if lost:
        found.append(Finding("lost", f"the last {lost} writes are missing", f"{_WITHOUT} them: {_NEWEST}"))
    found += [
        Finding("leftover", f"{path.name} was left by a killed process", _REPAIR) for path in leftovers(database.folder)
    ]
    if database.get_meta("scrub") is not None:
        found.append(Finding("scrub", "an erase was not finished: bytes may still lie in the file", _REPAIR))
    return found


def _check_derived(database: Database) -> Iterator[Finding]:
    for kind, name, wanted in (
        ("vectors", VECTORS_NAME, False),
        ("trials", TRIALS_NAME, False),
        ("index", INDEX_NAME, database.get_meta("index") if database.server() is None else None),
    ):
        path = database.folder / name
        if wanted or path.exists():
            try:
                with database.read():
                    read_derived(database, name, whole=True)
            except DamagedError:
                yield Finding(kind, f"{path}: its bytes are damaged", _REPAIR)
            except UnusableError as error:
                yield Finding(kind, str(error), _REPAIR)
    if (uri := database.server()) is not None:
        try:
            wrong = check_milvus(database)
        except GalleryServerError as error:
            yield Finding(
                "server", str(error), "start it, or facepipe gallery index --kind exact --forget goes without it"
            )
            return
        if wrong is not None:
            yield Finding("server", wrong, f"facepipe gallery index --kind milvus --uri {uri} stores them again")


def _copies(database: Database, face_ids: Sequence[int]) -> dict[int, bytes]:
    """Return the vectors of faces that an intact derived file holds."""
    if not face_ids:
        return {}
    try:
        with database.read():
            _, arrays = read_derived(database, VECTORS_NAME, whole=True)
    except UnusableError:
        return {}
    rows = np.flatnonzero(np.isin(arrays["face_ids"], face_ids))
    return {int(arrays["face_ids"][row]): arrays["vectors"][row].tobytes() for row in rows}


def _foresee(database: Database, found: list[Finding]) -> Iterator[Finding]:
    """Say what --repair cannot repair, what will be lost, and what to do then."""
    copies = _copies(database, [f.face_id for f in found if f.kind == "vector" and f.face_id])
    for finding in found:
        returns = finding.kind == "vector" and finding.face_id in copies
        if finding.face_id is not None and finding.kind in LOSSES and not returns:
            whose, advice = _whose(database, finding.kind, finding.face_id), LOSSES[finding.kind]
            yield replace(finding, text=f"{finding.text} ({whose})", advice=f"{_DROPS}: {advice}")
        else:
            yield finding


#: Kind of finding that costs something to repair -> what to do afterwards.
LOSSES = {
    "vector": "enrol that photo again",
    "chip": "keep that photo, reembed will need it",
    "anchor": "repeat facepipe gallery not",
}


def _whose(database: Database, kind: str, row_id: int) -> str:
    """Return the person and the photo of a face or an anchor, as far as they can be read."""
    table = "anchor" if kind == "anchor" else "face"
    row = database.connection.execute(
        f"SELECT p.name, t.person_id, t.source FROM {table} t LEFT JOIN person p ON p.id = t.person_id WHERE t.id = ?",
        (row_id,),
    ).fetchone()
    name, person_id, path = row or (None, 0, None)
    person = readable(database, name, "person.name", person_id, person_id)
    source = readable(database, path, f"{table}.source", row_id, person_id)
    return f"{person or 'a person whose name is lost'}, photo {source or 'unknown'}"


def readable(database: Database, stored: str | bytes | None, *place: str | int) -> str | None:
    """Return the text that is stored at a place, None when there is none or it is damaged."""
    try:
        return None if stored is None else database.codec.open_text(stored, *place)
    except (GalleryError, UnicodeDecodeError):
        return None


def _opened(database: Database, data: bytes, *place: str | int) -> bytes | None:
    """Return the bytes that are stored at a place, None when they do not open there."""
    try:
        return database.codec.open(data, *place)
    except GalleryDamagedError:
        return None


def _check_rows(database: Database) -> Iterator[Finding]:
    connection = database.connection
    for key, value, crc in connection.execute("SELECT key, value, crc FROM meta"):
        if database.checksum_of(key, value) != crc:
            yield Finding("setting", f"the setting {key!r} is damaged", _SALVAGE)
    for table, crc in (("person", CRC_OF_PERSON), ("face", CRC_OF_FACE)):
        for (row_id,) in connection.execute(f"SELECT id FROM {table} WHERE crc != {crc}"):
            face_id = row_id if table == "face" else None
            yield Finding(table, f"{table} {row_id}: its row is damaged", _SALVAGE, face_id)
    for table, key, blob in (("chip", "face_id", "data"), ("anchor", "id", "vector")):
        owner = "(SELECT person_id FROM face WHERE id = face_id)" if table == "chip" else "person_id"
        for row_id, person_id, data, crc in connection.execute(f"SELECT {key}, {owner}, {blob}, crc FROM {table}"):
            if (
                vector_checksum(row_id, data) != crc
                or _opened(database, data, f"{table}.{blob}", row_id, person_id) is None
            ):
                yield Finding(table, f"{table} {row_id} is damaged", _REPAIR, row_id)
    for table, key, column in (("subject", "person_id", "name"), ("anchor", "id", "source")):
        rows = connection.execute(f"SELECT {key}, person_id, {column} FROM {table} WHERE {column} NOT NULL")
        for row_id, person_id, stored in rows:
            if readable(database, stored, f"{table}.{column}", row_id, person_id) is None:
                yield Finding("setting", f"the {column} of {table} {row_id} is damaged", _SALVAGE)
    for (row_id,) in connection.execute(
        "SELECT id FROM face WHERE NOT EXISTS (SELECT 1 FROM vector WHERE vector.face_id = face.id)"
    ):
        yield Finding("vector", f"face {row_id} has no vector", _REPAIR, row_id)


def _check_vectors(database: Database) -> Iterator[Finding]:
    dim = database.dim
    for face_id, person_id, data, crc in database.connection.execute(
        "SELECT face_id, person_id, data, v.crc FROM vector v JOIN face f ON f.id = v.face_id"
    ):
        wrong = None
        opened = _opened(database, data, "vector.data", face_id, person_id)
        if vector_checksum(face_id, data) != crc:
            wrong = "does not match its checksum"
        elif opened is None:
            wrong = "was sealed for another face or person"
        else:
            vector = np.frombuffer(opened, np.float32)
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
        "SELECT id, person_id, source, content FROM face WHERE source NOT NULL AND content NOT NULL"
    )
    for face_id, person_id, source, content in rows:
        path = codec.open_text(source, "face.source", face_id, person_id)
        try:
            whole = file_hash(path) if is_video(path) else content_hash(read_bytes(path)[1])
            actual = bytes.fromhex(whole)[:16]
        except InputError as error:
            yield Finding("source", str(error), "enrol the photo from its new place", face_id)
            continue
        if actual != codec.unlookup(content, "content"):
            yield Finding("source", f"{path}: is not the photo that was enrolled", "enrol it again", face_id)


def check_and_repair(
    database: Database, *, sources: bool = False, mend: bool = False
) -> tuple[list[Finding], list[str], list[str]]:
    """Check and, with `mend`, repair; return what is still wrong, what was done, and what was lost."""
    findings = check(database, sources=sources)
    done, lost = repair(database, findings) if mend and findings else ([], [])
    return (check(database, sources=sources) if done or lost else findings), done, lost


def repair(database: Database, findings: list[Finding]) -> tuple[list[str], list[str]]:
    """Repair what can be repaired; return what was done and what was lost, a line each."""
    done: list[str] = []
    lost: list[str] = []
    kinds = {finding.kind for finding in findings}
    with database.lock("repair"):
        if "leftover" in kinds:
            for path in leftovers(database.folder):
                path.unlink(missing_ok=True)
                done.append(f"{path.name} deleted")
        if "vector" in kinds:
            _repair_vectors(database, [f.face_id for f in findings if f.kind == "vector" and f.face_id], done, lost)
        for table, key in (("chip", "face_id"), ("anchor", "id")):
            broken = [finding for finding in findings if finding.kind == table]
            if broken:
                lost += [f"{finding.text}: {LOSSES[table]}" for finding in broken]
                with database.write("repair"):
                    database.connection.executemany(
                        f"DELETE FROM {table} WHERE {key} = ?", [(finding.face_id,) for finding in broken]
                    )
                done.append(f"{len(broken)} damaged {table}s deleted")
        if "vectors" in kinds:
            drop_derived(database, VECTORS_NAME)
            done.append("the file of vectors deleted; it is made again when it is needed")
        if "trials" in kinds:
            drop_derived(database, TRIALS_NAME)
            done.append("the searches with the gallery's own photos deleted; they are made again when they are needed")
        if "index" in kinds:
            drop_derived(database, INDEX_NAME)
            done.append("the index deleted; facepipe gallery index makes it again")
        if "lost" in kinds:
            with database.write("repair") as generation:
                database.set_meta("gone_since", str(generation))
                database.log("repair", lost=True)
            lost.append(f"continuing without the lost writes: {_NEWEST}")
        if "scrub" in kinds and finish_scrub(database):
            done.append("the erase is finished")
    return done, lost


def _repair_vectors(database: Database, face_ids: list[int], done: list[str], lost: list[str]) -> None:
    copies = _copies(database, face_ids)
    with database.write("repair") as generation:
        for face_id in face_ids:
            (person_id,) = database.connection.execute("SELECT person_id FROM face WHERE id = ?", (face_id,)).fetchone()
            if face_id in copies:
                database.put_vector(face_id, person_id, copies[face_id])
                done.append(f"the vector of face {face_id} is back, from the derived file")
                continue
            whose = _whose(database, "vector", face_id)
            drop_faces(database, [face_id], generation)
            touch(database, [person_id], generation)
            database.log("repair", person_id, faces=1)
            lost.append(f"face {face_id} ({whose}) dropped, no copy of its vector is left: {LOSSES['vector']}")
