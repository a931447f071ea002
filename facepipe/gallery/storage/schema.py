"""The database's tables, as numbered migrations: each runs once, in a transaction with the record that it ran.

person ──< face ─── vector            what is enrolled; a face's vector lies in its own table, so that listing
   │         └───── chip              people does not read through gigabytes of vectors
   └────< anchor                      "this face is NOT that person"
stamp, gone                           what changed since a derived file was written
journal, subject                      who did what to whom, append-only; names apart, so that an erase takes only them
meta                                  fingerprint, dimension, calibration, key record

`changed` holds the generation of the write transaction that last touched a row, `crc` the CRC-32 of its content
(SQLite finds damage to its own structure, not to what it stores). In a sealed gallery names, sources, vectors and
chips are blobs of ciphertext, and so are `name_key` and `content`.
"""

from __future__ import annotations

import sqlite3
import time

from facepipe.errors import GalleryError

#: In the header of the file: "FPIP".
APPLICATION_ID = 0x46504950

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE stamp (generation INTEGER PRIMARY KEY, token INTEGER NOT NULL, at REAL NOT NULL);
CREATE TABLE person (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name NOT NULL,
    name_key BLOB NOT NULL UNIQUE,
    created REAL NOT NULL,
    changed INTEGER NOT NULL,
    crc INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX person_changed ON person (changed);
CREATE TABLE face (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person (id),
    source,
    content BLOB,
    ordinal INTEGER NOT NULL,
    x1 REAL, y1 REAL, x2 REAL, y2 REAL,
    score REAL,
    landmarks BLOB,
    size REAL, sharpness REAL, yaw REAL, pitch REAL, roll REAL, edge_density REAL,
    enrolled REAL NOT NULL,
    expires REAL,
    changed INTEGER NOT NULL,
    crc INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX face_person ON face (person_id);
CREATE INDEX face_changed ON face (changed);
CREATE UNIQUE INDEX face_content ON face (content, person_id, ordinal) WHERE content IS NOT NULL;
CREATE INDEX face_expires ON face (expires) WHERE expires IS NOT NULL;
CREATE TABLE vector (
    face_id INTEGER PRIMARY KEY REFERENCES face (id) ON DELETE CASCADE,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE chip (
    face_id INTEGER PRIMARY KEY REFERENCES face (id) ON DELETE CASCADE,
    data BLOB NOT NULL,
    x REAL NOT NULL, y REAL NOT NULL, scale REAL NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE gone (face_id INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE INDEX gone_generation ON gone (generation);
CREATE TABLE subject (person_id INTEGER PRIMARY KEY, name NOT NULL, name_key BLOB NOT NULL);
CREATE INDEX subject_key ON subject (name_key);
CREATE TABLE journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    person_id INTEGER,
    details TEXT NOT NULL,
    digest BLOB NOT NULL
);
CREATE TRIGGER journal_is_append_only_1 BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_append_only_2 BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
"""

_ANCHORS = """
CREATE TABLE anchor (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person (id) ON DELETE CASCADE,
    source,
    content BLOB,
    x1 REAL, y1 REAL, x2 REAL, y2 REAL,
    landmarks BLOB,
    vector BLOB NOT NULL,
    created REAL NOT NULL,
    crc INTEGER NOT NULL
);
CREATE UNIQUE INDEX anchor_content ON anchor (content, person_id) WHERE content IS NOT NULL;
"""

_REEMBED = """
CREATE TABLE vector_next (
    face_id INTEGER PRIMARY KEY REFERENCES face (id) ON DELETE CASCADE,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
);
"""


#: (number, what it does, script). Numbers only rise; a migration that was released is never edited.
MIGRATIONS = (
    (1, "people, faces, vectors, journal", _FIRST),
    (2, "negative anchors", _ANCHORS),
    (3, "vectors of the next model while a gallery moves over", _REEMBED),
    (4, "sealed values are bound to their rows", ""),  # done where the key is known; older versions cannot read it
)


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration that ran, 0 in an empty file."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'").fetchone():
        return 0
    number = connection.execute("SELECT max(number) FROM migration").fetchone()[0]
    return int(number or 0)


def is_outdated(connection: sqlite3.Connection, *, writable: bool) -> bool:
    """Whether migrations must run, or the file is a newer facepipe's; one that changes no table can wait on a read-only disk."""
    done = schema_version(connection)
    waiting = [script for number, _, script in MIGRATIONS if number > done]
    return done > MIGRATIONS[-1][0] or any(waiting) or bool(waiting and writable)


def migrate(connection: sqlite3.Connection) -> None:
    """Run the migrations that have not run yet.

    GalleryError when the file was written by a newer facepipe. The caller holds the writer lock.
    """
    done, newest = schema_version(connection), MIGRATIONS[-1][0]
    if done > newest:
        raise GalleryError(
            f"the gallery has schema {done}, this facepipe knows schemas up to {newest}: install a newer facepipe"
        )
    for number, title, script in MIGRATIONS:
        if number <= done:
            continue
        try:
            connection.executescript(
                "BEGIN IMMEDIATE;"
                "CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY, title TEXT NOT NULL, at REAL NOT NULL);"
                f"{script}"
            )
            connection.execute("INSERT INTO migration VALUES (?, ?, ?)", (number, title, time.time()))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
