"""The catalog as a SQLite file: written by one process at a time, read by many; what SQLite reports becomes one line."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from facepipe.catalog.lock import CatalogLock
from facepipe.catalog.packing import clip_of, face_count, raw_faces, unpack
from facepipe.catalog.shards import WHOLE, Shard
from facepipe.errors import InputError, OutputError, UsageError
from facepipe.files.atomic import make_private_file
from facepipe.images import is_video
from facepipe.records import Record, dumps, readable
from facepipe.text import printable
from facepipe.types import DecideOptions, Described, Failed

SUFFIX = ".catalog"
#: The version of the tables that is written; another one comes with a migration.
VERSION = 3
#: What makes the next version of each; a catalog of an earlier version can be read as it is.
_MIGRATIONS = {
    1: "ALTER TABLE photo ADD COLUMN taken TEXT",
    2: "CREATE TABLE video (content TEXT PRIMARY KEY, key TEXT NOT NULL, data BLOB NOT NULL)",
}
#: `state` may hold `finished`, the last pass that met all of its input; `facts`, what scan and decision depended on in the last pass,
#: as JSON; `scrub`, when descriptions were deleted and the file was not written anew yet.
_TABLES = f"""
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
    unknown INTEGER NOT NULL,
    taken TEXT                   -- when it was taken, ISO 8601; NULL: it does not say
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
CREATE TABLE video (            -- a run was stopped inside these
    content TEXT PRIMARY KEY,    -- SHA-256 of the file
    key TEXT NOT NULL,           -- of the scan
    data BLOB NOT NULL           -- how far it was looked at, see videos.py
);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX photo_content ON photo (content);
CREATE INDEX photo_position ON photo (pass, position);
INSERT INTO about VALUES ({VERSION}, 0);
"""


def catalog_path(out: Path) -> Path:
    """Return where the catalog of a batch's output lies: beside it."""
    return out.with_name(out.name + SUFFIX)


_PRESENT = "pass >= ? AND NOT vanished"
_RESULT = f"{_PRESENT} AND record != ''"


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite reports about the catalog at `path` into an error that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name, reason = printable(path), printable(str(error))
        if "closed database" in reason:
            raise UsageError(f"{name}: this catalog is closed; open it again") from error
        if "locked" in reason:
            raise InputError(
                f"{name}: another process is writing to this catalog; wait for it, or choose another one"
            ) from error
        if "full" in reason or "disk I/O" in reason:
            raise OutputError(
                f"{name}: cannot be written ({reason}); free space or repair the disk, and run the same command again: "
                "it continues where it was"
            ) from error
        if "readonly" in reason or "unable to open" in reason:
            raise OutputError(
                f"{name}: cannot be written ({reason}); check the permissions of the file and its folder, or choose "
                "another --out"
            ) from error
        raise InputError(f"{name}: is not a catalog, or damaged ({reason}); {_begin_again(path)}") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open the file; one that lies where nothing can be written is read as it is."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode={mode}", uri=True, timeout=1.0, isolation_level=None)
    if mode != "ro":
        return connection
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        wal = path.with_name(path.name + "-wal")
        # To read it as others may write it takes a file beside it, which cannot be made here, so nobody writes it here.
        if "unable to open" not in str(error) or (wal.exists() and wal.stat().st_size):
            connection.close()
            raise
        connection.close()
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _begin_again(catalog: Path) -> str:
    if catalog.suffix != SUFFIX:
        return f"name the NAME{SUFFIX} that lies beside the results of `facepipe batch`"
    return f"remove it and {printable(catalog.name.removesuffix(SUFFIX))} to begin again"


class Store:
    """An open catalog file, as those see it who only read: faces and vectors, results, failures."""

    #: The photos that this pass met are in the catalog.
    _pass: int

    def __init__(self, path: Path, *, write: bool) -> None:
        """Open the file; see `facepipe.catalog.catalog.Catalog`."""
        self.path = path
        self._lock: CatalogLock | None = None
        if write:
            make_private_file(path)
            self._lock = CatalogLock(path)
        elif not path.is_file():
            raise InputError(
                f"{printable(path)}: no such catalog; `facepipe scan` makes one, and `facepipe batch`: NAME{SUFFIX} beside --out"
            )
        try:
            with _sqlite_errors(path):
                self._db = _connect(path, "rwc" if write else "ro")
        except BaseException:
            self._unlock()
            raise
        try:
            with _sqlite_errors(path):
                self.schema = self._open_to_write() if write else self._version()
            if not 1 <= self.schema <= VERSION:
                raise InputError(
                    f"{printable(path)}: is not a catalog of this facepipe (schema {self.schema}, it reads {VERSION}); "
                    f"{_begin_again(path)}"
                )
        except BaseException:
            self._db.close()
            self._unlock()
            raise

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _open_to_write(self) -> int:
        if self._lock is None or not self._lock.held:
            # Held until the process ends, however it ends: a second run would not see what the first is doing.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        # A power cut may lose the last photos, which are then done again; it never damages the file.
        self._db.execute("PRAGMA synchronous=NORMAL")
        # What is deleted or replaced is overwritten: vectors of faces are personal data.
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.execute("BEGIN IMMEDIATE")
        if not (version := self._version()):
            for statement in _TABLES.split(";\n"):
                self._db.execute(statement)
        elif version in _MIGRATIONS:
            for number in range(version, VERSION):
                self._db.execute(_MIGRATIONS[number])
            self._db.execute("UPDATE about SET schema_version = ?", (VERSION,))
            version = VERSION
        self._db.execute("COMMIT")
        return version or VERSION

    def _version(self) -> int:
        """Return the version of the tables, 0 in an empty file."""
        if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return 0
        return int(self._db.execute("SELECT schema_version FROM about").fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Do what is in the block whole or not at all."""
        with _sqlite_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that a query finds."""
        with _sqlite_errors(self.path):
            # `yield from` would close the cursor of a reader that gave up, after the catalog itself.
            for row in self._db.execute(query, values):  # noqa: UP028
                yield row

    def _first(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row that a query finds, None when there is none."""
        with _sqlite_errors(self.path):
            row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        return row

    def _state(self, name: str) -> str | None:
        row = self._first("SELECT value FROM state WHERE name = ?", name)
        return None if row is None else str(row[0])

    def _rewrite(self) -> bool:
        """Write the file anew; return whether nothing of what was deleted is left. Somebody who reads meanwhile may still see it."""
        with _sqlite_errors(self.path):
            self._db.execute("VACUUM")
            (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    # ---- what is in it ----

    @property
    def model(self) -> str:
        """Fingerprint of the embedder that made the vectors."""
        return str(self._facts().get("model", ""))

    @property
    def gallery(self) -> str:
        """Folder of the gallery that the results were decided with; empty for none."""
        return str(self._facts().get("gallery", ""))

    @property
    def options(self) -> DecideOptions:
        """What the batch that decided last was asked for; what is out of range, in a file from somebody else, was not."""
        facts = self._facts().get("options")
        given = facts if isinstance(facts, dict) else {}

        def number(name: str, low: float, high: float) -> float | None:
            value = given.get(name)
            return float(value) if isinstance(value, (int, float)) and low <= value <= high else None

        return DecideOptions(number("threshold", -1.0, 1.0), number("margin", 0.0, 2.0), given.get("repeat") is True)

    @property
    def shard(self) -> Shard:
        """The part of its input that was scanned last."""
        try:
            return Shard.parse(self._state("shard") or str(WHOLE))
        except UsageError as error:
            raise InputError(f"{printable(self.path)}: is damaged (its shard); {_begin_again(self.path)}") from error

    def is_stopped(self) -> bool:
        """Say whether the last scan did not come to its end."""
        (begun,) = self._first("SELECT pass FROM about") or (0,)
        return bool(begun > self._finished())

    def __len__(self) -> int:
        """Return the number of photos that the last scan met."""
        return int(self._first(f"SELECT count(*) FROM photo WHERE {_PRESENT}", self._pass)[0])  # type: ignore[index]

    def photos(self) -> Iterator[Described | Failed]:
        """Yield the photos that the last scan met, in the order of the input, without their pixels.

        Errors: InputError when vectors were not kept, or are damaged.
        """
        model = self.model
        query = f"""
            SELECT name, reason, data FROM photo LEFT JOIN description USING (content) WHERE {_PRESENT} ORDER BY position"""
        for name, reason, data in self._rows(query, self._pass):
            path = os.fsdecode(name)
            photo = Failed(path, reason) if reason is not None else unpack(data, path, model)
            if photo is None:
                why = "was scanned with --no-keep-embeddings" if data is None else "is damaged in it"
                raise InputError(
                    f"{printable(self.path)}: {printable(path)} {why}; run the batch again with --keep-embeddings"
                )
            yield photo

    def contents(self) -> Iterator[tuple[str, str, str | None, bytes | None]]:
        """Yield SHA-256, path, date and packed faces of the photos that can be used, in the order of the input, equal ones once.

        The date is None where the photo has none, the faces where they were not kept.
        """
        taken = "taken" if self.schema > 1 else "NULL"
        query = f"""
            SELECT photo.content, name, {taken}, data, min(position) FROM photo LEFT JOIN description USING (content)
            WHERE {_PRESENT} AND reason IS NULL GROUP BY photo.content ORDER BY min(position)"""
        for content, name, date, data, _ in self._rows(query, self._pass):
            yield content, os.fsdecode(name), date, data

    def count_faces(self) -> int:
        """Return how many faces are known of the photos that can be used, equal photos once."""
        return sum(face_count(data) for _, _, _, data in self.contents())

    def thumbnail(self, content: str, number: int) -> bytes | None:
        """Return a face as JPEG, None when none was kept. content: SHA-256 of the photo's bytes. number: of the face, from 0."""
        row = self._first("SELECT jpeg FROM thumbnail WHERE content = ? AND number = ?", content, number)
        return None if row is None else bytes(row[0])

    def size_of(self, content: str) -> tuple[int, int] | None:
        """Return the width and height of a photo as displayed, None when its faces were not kept."""
        row = self._first("SELECT data FROM description WHERE content = ?", content)
        raw = raw_faces(row[0]) if row is not None else None
        return None if raw is None else raw[0]

    def counted(self) -> tuple[int, int]:
        """Return how many photos were scanned so far, and how many of them cannot be used."""
        query = f"SELECT count(*), count(reason) FROM photo WHERE {_PRESENT}"
        photos, failed = self._first(query, self._pass)  # type: ignore[misc]
        return int(photos), int(failed)

    def paths_of(self, content: str) -> list[str]:
        """Return the photos with these bytes that the last scan met, in the order of the input."""
        query = f"SELECT name FROM photo WHERE content = ? AND {_PRESENT} ORDER BY position"
        return [os.fsdecode(name) for (name,) in self._rows(query, content, self._pass)]

    def named(self) -> Iterator[tuple[str, Record]]:
        """Yield SHA-256 and record of the photos in whose results somebody is known, equal ones once."""
        query = f"SELECT content, min(record) FROM photo WHERE {_RESULT} AND known > 0 GROUP BY content"
        for content, record in self._rows(query, self._pass):
            yield content, json.loads(record)

    def records(self) -> Iterator[Record]:
        """Yield the results in the order of the input, then those of photos that vanished since they were scanned, marked."""
        return map(json.loads, self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the records, each as one line of JSON."""
        for (record,) in self._rows(f"SELECT record FROM photo WHERE {_RESULT} ORDER BY position", self._pass):
            yield record
        query = "SELECT record FROM photo WHERE vanished AND record != '' ORDER BY pass, position"
        for (record,) in self._rows(query):
            fields = json.loads(record)
            fields["error"] = f"{fields['path']}: vanished: an earlier run found it, and it does not exist now"
            yield dumps(fields)

    def records_with_thumbnails(self) -> Iterator[tuple[Record, list[bytes]]]:
        """Yield the records in the order of the input, each with the thumbnails of its faces, if they were kept."""
        query = f"SELECT content, record FROM photo WHERE {_RESULT} ORDER BY position"
        for content, record in self._rows(query, self._pass):
            rows = self._rows("SELECT jpeg FROM thumbnail WHERE content = ? ORDER BY number", content)
            yield json.loads(record), [jpeg for (jpeg,) in rows]

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield (path, reason) of the photos that cannot be used, in the order of the input."""
        query = f"SELECT name, reason FROM photo WHERE {_PRESENT} AND reason IS NOT NULL ORDER BY position"
        for name, reason in self._rows(query, self._pass):
            yield readable(os.fsdecode(name)), readable(reason)

    def damages(self) -> Iterator[tuple[str, str]]:
        """Yield (path, what is damaged) of the videos of which not all could be read, in the order of the input."""
        for (name,) in list(self._rows(f"SELECT name FROM photo WHERE {_PRESENT} ORDER BY position", self._pass)):
            path = os.fsdecode(name)
            if not is_video(path):
                continue
            query = "SELECT data, record FROM photo LEFT JOIN description USING (content) WHERE name = ?"
            data, record = self._first(query, name) or (None, "")
            clip = clip_of(data)[0] if raw_faces(data) is not None else None
            damage = clip.damage if clip is not None else json.loads(record or "{}").get("damage")
            if damage is not None:
                yield readable(path), readable(f"{printable(path)}: {damage}; the results hold what could be read")

    def decided(self, name: str) -> tuple[str, Record] | None:
        """Return content and record of a photo that the pass met and that is decided."""
        row = self._first(
            f"SELECT content, record FROM photo WHERE name = ? AND {_RESULT}", os.fsencode(name), self._pass
        )
        return None if row is None else (row[0], json.loads(row[1]))

    def earlier(self) -> int:
        """Return how many photos the last whole pass met, and a run that was stopped since; vanished ones are not counted."""
        query = "SELECT count(*) FROM photo WHERE NOT vanished AND stamp != '' AND pass >= ?"
        return int(self._first(query, self._finished())[0])  # type: ignore[index]

    def earlier_has(self, name: str) -> bool:
        """Say whether the photo of this name is one of these, or of those that had vanished."""
        query = "SELECT 1 FROM photo WHERE name = ? AND stamp != '' AND (vanished OR pass >= ?)"
        return self._first(query, os.fsencode(name), self._finished()) is not None

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._state("facts") or "{}")
        return facts

    def _finished(self) -> int:
        return int(self._state("finished") or 0)

    # ---- closing ----

    def close(self) -> None:
        """Close it; what was recorded stays."""
        self._db.close()
        self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
