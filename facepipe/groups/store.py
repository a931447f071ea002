"""NAME.groups, beside the catalog: which face is in which group, and what the user said. It is work, so not in the catalog.

It holds no vectors: those are in the catalog alone. Everything that an answer changes is noted with what was there before and after
(`change`), so that any answer can be taken back later: a row that something else has changed since then stays as it is.
An answer that concerns the gallery as well is noted as intended first (`done` 0), and completed by whoever opens the file next when
its process was killed in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from facepipe.catalog.store import SUFFIX as CATALOG_SUFFIX
from facepipe.errors import InputError, OutputError
from facepipe.files.atomic import make_private_file
from facepipe.text import printable

SUFFIX = ".groups"
#: The version of the tables; another one comes with a migration.
VERSION = 1
#: In the header of the file: "FPGR".
_APPLICATION_ID = 0x46504752
_WAIT = 60.0
_TABLES = f"""
PRAGMA application_id = {_APPLICATION_ID};
CREATE TABLE about (schema_version INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE person (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    gallery TEXT,                -- identity of the gallery that the person was put into
    gallery_person INTEGER       -- the person's id there
);
CREATE TABLE grp (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,         -- open, named, ignored, skipped; gone: joined to another, or empty
    person INTEGER,
    round INTEGER NOT NULL,      -- when faces last came to it
    cohesion REAL NOT NULL,      -- mean cosine of two of its faces
    fixed INTEGER NOT NULL       -- the user said something of it: it is not grouped anew
);
CREATE TABLE face (
    content TEXT NOT NULL,       -- SHA-256 of the photo's bytes
    number INTEGER NOT NULL,     -- place in the photo, from 0
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
    grp INTEGER,
    status TEXT NOT NULL,        -- in, confirmed
    person INTEGER,              -- whose face it is, as the user said
    likeness REAL NOT NULL,      -- cosine with the mean of its group
    PRIMARY KEY (content, number)
) WITHOUT ROWID;
CREATE INDEX face_grp ON face (grp);
CREATE INDEX face_person ON face (person) WHERE person IS NOT NULL;
CREATE TABLE put_out (content TEXT, number INTEGER, grp INTEGER, PRIMARY KEY (content, number, grp)) WITHOUT ROWID;
CREATE TABLE denied (content TEXT, number INTEGER, person INTEGER, PRIMARY KEY (content, number, person)) WITHOUT ROWID;
CREATE TABLE apart (a INTEGER, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE alike (a INTEGER, b INTEGER, cosine REAL NOT NULL, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE cover (person INTEGER PRIMARY KEY, content TEXT, number INTEGER);
CREATE TABLE answer (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    what TEXT NOT NULL,
    details TEXT NOT NULL,       -- JSON without names
    gallery TEXT NOT NULL,       -- JSON: what it did in the gallery
    undone INTEGER,              -- the answer that took it back
    done INTEGER NOT NULL        -- 0: intended
);
CREATE TABLE change (
    id INTEGER PRIMARY KEY,
    answer INTEGER NOT NULL,
    tbl TEXT NOT NULL,
    key TEXT NOT NULL,           -- JSON
    before TEXT,                 -- JSON; NULL: there was no row
    after TEXT
);
CREATE INDEX change_answer ON change (answer);
INSERT INTO about VALUES ({VERSION}, 0);
"""
#: The columns that name a row of each table that answers change.
_KEYS = {
    "grp": ("id",),
    "face": ("content", "number"),
    "put_out": ("content", "number", "grp"),
    "denied": ("content", "number", "person"),
    "apart": ("a", "b"),
    "cover": ("person",),
}


def groups_path(catalog: Path) -> Path:
    """Return where the groups of a catalog lie: beside it."""
    return catalog.with_name(catalog.name.removesuffix(CATALOG_SUFFIX) + SUFFIX)


class GroupsFile:
    """The open file. Each call of `write` is one transaction, durable when it has ended; several processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Open it; one that is not there appears with what is written first. Errors: InputError when it is something else."""
        self.path = path
        self._stand_in = False  # nothing is there yet, and an empty one in memory stands for it
        self._connect(make=False)

    def _connect(self, *, make: bool) -> None:
        self._stand_in = not make and not self.path.exists()
        if make:
            make_private_file(self.path)
        with self._errors():
            self._db = sqlite3.connect(":memory:" if self._stand_in else self.path, timeout=_WAIT, isolation_level=None)
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._db.close()
            raise

    def _be_there(self, *, make: bool) -> None:
        """Open the file instead of what stands for it, once it is there."""
        if self._stand_in and (make or self.path.exists()) and not self._db.in_transaction:
            self._db.close()
            self._connect(make=make)

    def _open(self) -> None:
        db = self._db
        writable = self._stand_in or os.access(self.path, os.W_OK)
        if writable:
            db.execute("PRAGMA journal_mode=WAL")
            # As in the gallery: in WAL mode only FULL syncs at every commit. What is deleted is overwritten.
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA secure_delete=ON")
        db.execute("BEGIN IMMEDIATE" if writable else "BEGIN")
        try:
            if writable and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _TABLES.split(";\n"):
                    db.execute(statement)
            made = db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
            version = db.execute("SELECT schema_version FROM about").fetchone()[0] if made else 0
        finally:
            db.execute("COMMIT")
        if version != VERSION:
            raise InputError(
                f"{printable(self.path)}: is not a file of groups of this facepipe; move it away to begin anew, or install the "
                "one that wrote it"
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite reports into one line."""
        try:
            yield
        except sqlite3.Error as error:
            name, reason = printable(self.path), printable(str(error))
            if "locked" in reason or "busy" in reason:
                raise InputError(
                    f"{name}: another process has been writing to it for {_WAIT:g} s; wait for it"
                ) from error
            if any(word in reason for word in ("full", "disk I/O", "readonly", "unable to open")):
                raise OutputError(f"{name}: cannot be written ({reason}); nothing of this answer was kept") from error
            raise InputError(
                f"{name}: is not a file of groups, or damaged ({reason}); restore a copy, or move it away to begin anew"
            ) from error

    def close(self) -> None:
        """Close it."""
        self._db.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The open database, for statements within `write`."""
        return self._db

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds."""
        self._be_there(make=False)
        with self._errors():
            return self._db.execute(query, values).fetchall()

    def value(self, query: str, *values: object) -> Any:
        """Return the first value of the first row, None when there is none."""
        found = self.rows(query, *values)
        return found[0][0] if found else None

    @property
    def version(self) -> int:
        """Grows with every change."""
        return int(self.value("SELECT version FROM about"))

    def state(self, name: str) -> str | None:
        """Return what was noted under a name."""
        found = self.value("SELECT value FROM state WHERE name = ?", name)
        return None if found is None else str(found)

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """See one state of the file, whatever others write meanwhile."""
        self._be_there(make=False)
        if self._db.in_transaction:
            yield
            return
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Do what is in the block whole or not at all; it is on the disk afterwards. Errors: OutputError when it cannot be."""
        self._be_there(make=True)
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("UPDATE about SET version = version + 1")
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def scrub(self) -> None:
        """Leave nothing of what was deleted, in the file or beside it."""
        with self._errors():
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # ---- answers ----

    def intend(self, what: str, details: Mapping[str, Any], gallery: Mapping[str, Any]) -> int:
        """Note an answer that is about to be carried out; within `write`. Return its number."""
        query = "INSERT INTO answer (at, what, details, gallery, done) VALUES (?, ?, ?, ?, 0)"
        number = self._db.execute(query, (time.time(), what, json.dumps(details), json.dumps(gallery))).lastrowid
        assert number is not None
        return number

    def finish(self, answer: int, gallery: Mapping[str, Any] | None = None) -> None:
        """Note that an answer is carried out; within `write`. gallery: what it did there, None: as intended."""
        self._db.execute("UPDATE answer SET done = 1 WHERE number = ?", (answer,))
        if gallery is not None:
            self._db.execute("UPDATE answer SET gallery = ? WHERE number = ?", (json.dumps(gallery), answer))

    def get(self, table: str, **key: Any) -> dict[str, Any] | None:
        """Return a row of a table that answers change."""
        where = " AND ".join(f"{name} = ?" for name in key)
        cursor = self._db.execute(f"SELECT * FROM {table} WHERE {where}", tuple(key.values()))
        row = cursor.fetchone()
        return None if row is None else dict(zip((column[0] for column in cursor.description), row, strict=True))

    def put(self, answer: int | None, table: str, row: Mapping[str, Any]) -> None:
        """Add a row, or change those columns of one; within `write`. answer: whose change it is; None: nobody takes it back."""
        key = {name: row[name] for name in _KEYS[table]}
        before = self.get(table, **key)
        after = {**(before or {}), **row}
        if after == before:
            return
        self._set(table, key, after)
        self._note(answer, table, key, before, after)

    def drop(self, answer: int | None, table: str, **key: Any) -> None:
        """Delete a row; within `write`."""
        before = self.get(table, **key)
        if before is not None:
            self._set(table, key, None)
            self._note(answer, table, key, before, None)

    def _set(self, table: str, key: Mapping[str, Any], row: Mapping[str, Any] | None) -> None:
        if row is None:
            where = " AND ".join(f"{name} = ?" for name in key)
            self._db.execute(f"DELETE FROM {table} WHERE {where}", tuple(key.values()))
            return
        marks = ", ".join("?" * len(row))
        self._db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))

    def _note(self, answer: int | None, table: str, key: Mapping[str, Any], before: object, after: object) -> None:
        if answer is not None:
            told = (json.dumps(key), *(None if row is None else json.dumps(row) for row in (before, after)))
            self._db.execute(
                "INSERT INTO change (answer, tbl, key, before, after) VALUES (?, ?, ?, ?, ?)", (answer, table, *told)
            )

    def revert(self, answer: int, by: int) -> int:
        """Put back what an answer changed, as changes of the answer `by`; return of how many rows something else has become since.

        What is derived of a face or a group (likeness, cohesion, when it grew) does not count as a change.
        """
        kept = 0
        query = "SELECT tbl, key, before, after FROM change WHERE answer = ? ORDER BY id DESC"
        for table, *texts in self._db.execute(query, (answer,)).fetchall():
            key: dict[str, Any] = json.loads(texts[0])
            before, after = (None if text is None else json.loads(text) for text in texts[1:])
            now = self.get(table, **key)
            if _said(now) != _said(after):
                kept += 1
                continue
            if before is not None and now is not None:
                before = {**now, **(_said(before) or {})}
            self._set(table, key, before)
            self._note(by, table, key, now, before)
        self._db.execute("UPDATE answer SET undone = ? WHERE number = ?", (by, answer))
        return kept


_DERIVED = frozenset({"likeness", "cohesion", "round", "x1", "y1", "x2", "y2"})


def _said(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what a row says besides what is derived."""
    return None if row is None else {name: value for name, value in row.items() if name not in _DERIVED}
