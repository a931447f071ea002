"""The catalog's tables, as numbered migrations."""

from __future__ import annotations

import sqlite3

#: What brings a catalog to each version from the one before.
MIGRATIONS = (
    """
CREATE TABLE about (schema_version INTEGER NOT NULL, pass INTEGER NOT NULL);
CREATE TABLE photo (
    name BLOB PRIMARY KEY,       -- the source's name, as the bytes of a file name
    stamp TEXT NOT NULL,         -- size and time when it was read; empty: nobody knows
    content TEXT NOT NULL,       -- SHA-256 of its bytes, empty when they could not be read
    scanned TEXT NOT NULL,       -- key of the scan, empty: it is to be scanned again
    reason TEXT,                 -- why it cannot be used; NULL: it can
    pass INTEGER NOT NULL,       -- the last pass over the input that met it
    position INTEGER NOT NULL,   -- its place in that pass
    vanished INTEGER NOT NULL,   -- 1: a later pass found it to be gone
    decided TEXT NOT NULL,       -- key of the decision, empty: it is to be decided
    record TEXT NOT NULL,        -- the result as one line of JSON, empty: there is none yet
    known INTEGER NOT NULL,      -- faces in the record, by status
    ambiguous INTEGER NOT NULL,
    unknown INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE description (
    content TEXT PRIMARY KEY,    -- SHA-256 of the photos' bytes
    key TEXT NOT NULL,           -- of the scan
    data BLOB NOT NULL           -- faces and vectors, see packing.py
);
CREATE TABLE thumbnail (
    content TEXT NOT NULL,
    number INTEGER NOT NULL,     -- of the face in the photo, from 0
    jpeg BLOB NOT NULL,
    PRIMARY KEY (content, number)
) WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX photo_content ON photo (content);
CREATE INDEX photo_position ON photo (pass, position);
INSERT INTO about VALUES (0, 0);
""",
)
#: The version that is read and written. `state` may hold `finished`, the last pass that met all of its input; `facts`, what scan
#: and decision depended on in the last pass, as JSON; `scrub`, when descriptions were deleted and the file was not written anew yet.
NEWEST = len(MIGRATIONS)


def version_of(db: sqlite3.Connection) -> int:
    """Return the version of a catalog, 0 for an empty file."""
    if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    return int(db.execute("SELECT schema_version FROM about").fetchone()[0])


def prepare(db: sqlite3.Connection) -> int:
    """Bring a catalog, or an empty file, to the newest version, whole or not at all; return the version that it has then.

    What a newer facepipe wrote stays as it is.
    """
    db.execute("BEGIN IMMEDIATE")
    version = version_of(db)
    if version not in range(NEWEST):
        db.execute("ROLLBACK")
        return version
    for migration in MIGRATIONS[version:]:
        for statement in migration.split(";\n"):
            db.execute(statement)
    db.execute("UPDATE about SET schema_version = ?", (NEWEST,))
    db.execute("COMMIT")
    return NEWEST
