"""The ledger's tables, as numbered migrations."""

from __future__ import annotations

import sqlite3

#: What brings a ledger to each version from the one before; an older one keeps its results.
MIGRATIONS = (
    """
CREATE TABLE about (schema_version INTEGER NOT NULL, pass INTEGER NOT NULL);
CREATE TABLE photo (
    name BLOB PRIMARY KEY,       -- the source's name, as the bytes of a file name
    stamp TEXT NOT NULL,         -- size and time when it was read
    content TEXT NOT NULL,       -- SHA-256 of its bytes, empty when they could not be read
    run TEXT NOT NULL,           -- key of options, model and gallery
    pass INTEGER NOT NULL,       -- the last pass over the input that met it
    position INTEGER NOT NULL,   -- its place in that pass
    failed INTEGER NOT NULL,     -- 1: read or processed in vain, to be tried again
    vanished INTEGER NOT NULL,   -- 1: a later pass did not meet it
    record TEXT NOT NULL         -- the result as one line of JSON
) WITHOUT ROWID;
CREATE TABLE thumbnail (
    name BLOB NOT NULL,          -- of the photo
    number INTEGER NOT NULL,     -- of the face in it, from 0
    jpeg BLOB NOT NULL,
    PRIMARY KEY (name, number)
) WITHOUT ROWID;
CREATE INDEX photo_content ON photo (content, run) WHERE NOT failed;
CREATE INDEX photo_position ON photo (pass, position);
INSERT INTO about VALUES (0, 0);
""",
    """
CREATE TABLE look (
    name BLOB PRIMARY KEY,       -- of the photo
    key TEXT NOT NULL,           -- of what the first two steps depend on besides the photo
    data BLOB NOT NULL           -- faces and vectors, see looks.py
);
ALTER TABLE photo ADD COLUMN made TEXT NOT NULL DEFAULT '';  -- key of the pictures that were made of the result
""",
)
#: What a ledger may have besides: `finished`, the last pass whose output was written; `facts`, what the last pass depended on, as
#: JSON; `scrub`, when looks were deleted and the file has not been written anew since.
_STATE = "CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
#: The version that is read and written.
NEWEST = len(MIGRATIONS)


def prepare(db: sqlite3.Connection) -> int:
    """Bring a ledger, or an empty file, to the newest version, whole or not at all; return the version that it has then.

    What a newer facepipe wrote stays as it is.
    """
    db.execute("BEGIN IMMEDIATE")
    version = 0
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        (version,) = db.execute("SELECT schema_version FROM about").fetchone()
    if version not in range(NEWEST + 1):
        db.execute("ROLLBACK")
        return int(version)
    for migration in MIGRATIONS[version:]:
        for statement in migration.split(";\n"):
            db.execute(statement)
    if version < NEWEST:
        db.execute("UPDATE about SET schema_version = ?", (NEWEST,))
    db.execute(_STATE)
    db.execute("COMMIT")
    return NEWEST
