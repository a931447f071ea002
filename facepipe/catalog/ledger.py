"""The ledger of a batch: what was done, in SQLite beside the output, so that a run that was stopped goes on where it was.

A result is kept with the content hash of its photo and the key of the run that made it: a digest of options, model and gallery
generation. It counts as done when both are the same. The output is written from the ledger, whole, in the order of the input, so
every photo appears in it once however often the run was stopped.

Faces and vectors are kept besides, with a key of their own: the digest of the little that they depend on. A photo whose result is of
another run, say of a smaller gallery, has them still, and is compared without being looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from facepipe.catalog.looks import Earlier, Look, pack, unpack
from facepipe.catalog.schema import NEWEST, prepare
from facepipe.catalog.sources import MEMBER
from facepipe.errors import InputError, OutputError
from facepipe.files.atomic import is_gone
from facepipe.text import printable

_SUFFIX = ".ledger"


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes of one photo; see the columns above. look: its faces; None: as they are in the ledger, or there are none.

    thumbnails: of its faces, kept for a report only. same: the faces are those that the ledger has; they stay, and so do the
    thumbnails, unless there are new ones.
    """

    name: str
    stamp: str
    content: str
    position: int
    record: str
    failed: bool
    thumbnails: tuple[bytes, ...] = ()
    look: Look | None = None
    same: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """Photos of earlier passes that a pass did not meet.

    gone: not there any more, which this pass is the first to find. left: still there, in the output until now, not in the input
    any more. vanished: all that are marked as gone.
    """

    gone: int
    left: int
    vanished: int


def ledger_path(out: Path) -> Path:
    """Return where the ledger of an output lies: beside it."""
    return out.with_name(out.name + _SUFFIX)


def _file_of(name: str) -> str:
    """Return the file that a name stands for: itself, or the archive that it is a member of."""
    archive, mark, _ = name.partition(MEMBER)
    return archive if mark and os.path.lexists(archive) else name


def run_key(facts: Mapping[str, Any]) -> str:
    """Return the digest of everything that a result depends on besides the photo."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:32]


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite reports about the ledger at `path` into an error that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name, reason = printable(path), printable(str(error))
        if "locked" in reason:
            raise InputError(
                f"{name}: another batch is writing to this output; wait for it, or choose another --out"
            ) from error
        if "full" in reason or "disk I/O" in reason:
            raise OutputError(
                f"{name}: cannot be written ({reason}); free space or mend the disk, and run the same command again: "
                "it goes on where it was"
            ) from error
        if "readonly" in reason or "unable to open" in reason:
            raise OutputError(
                f"{name}: cannot be written ({reason}); check the permissions of the file and its folder, or choose "
                "another --out"
            ) from error
        raise InputError(f"{name}: is no ledger, or damaged ({reason}); {_begin_again(path)}") from error


def _begin_again(ledger: Path) -> str:
    return f"remove it and {printable(ledger.name.removesuffix(_SUFFIX))} to begin again"


class Ledger:
    """An open ledger, held by one process at a time. What is recorded belongs to the pass that was begun last.

    pictures: names the pictures that are made of each photo before it is recorded. damaged: looks that could not be read
    in this pass; their photos are looked at again, for a look only spares work.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the ledger.

        Errors: InputError when another process holds it or the file is no ledger of this version;
        OutputError when it cannot be made.
        """
        self.path = path
        self.pictures = ""
        self.damaged = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{printable(path)}: cannot be written ({error.strerror}); choose another --out"
            ) from error
        with _sqlite_errors(path):
            self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        with _sqlite_errors(self.path):
            # Held until the process ends, however it ends: a second run would not see what the first is doing.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            # A power cut may lose the last photos, which are then done again; it never damages the file.
            self._db.execute("PRAGMA synchronous=NORMAL")
            # What is deleted or replaced is overwritten: vectors of faces are personal data.
            self._db.execute("PRAGMA secure_delete=ON")
            self._prepare()

    def _prepare(self) -> None:
        version = prepare(self._db)
        if version != NEWEST:
            raise InputError(
                f"{printable(self.path)}: is no ledger of this facepipe (schema {version}, it reads up to {NEWEST}); "
                f"{_begin_again(self.path)}"
            )

    def begin_pass(self, facts: Mapping[str, Any], looking: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Begin another pass over the input; return which facts differ from the pass before, none when there was none.

        facts: everything that a result depends on besides the photo, as JSON has it. Results of other facts are made again.
        looking: what the first two steps depend on besides the photo; None: what they find is not kept.
        """
        self.run, self._looking = run_key(facts), None if looking is None else run_key(looking)
        self.damaged = 0
        now = json.loads(json.dumps(facts))
        before = json.loads(self._first("SELECT value FROM state WHERE name = 'facts'") or "null") or now
        with self._transaction() as db:
            (self._pass,) = db.execute("UPDATE about SET pass = pass + 1 RETURNING pass").fetchone()
            db.execute("INSERT OR REPLACE INTO state VALUES ('facts', ?)", (json.dumps(now),))
        return tuple(name for name in {**before, **now} if before.get(name) != now.get(name))

    def finish_pass(self) -> None:
        """Note that the output was written from this pass."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO state VALUES ('finished', ?)", (str(self._pass),))

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
            # `yield from` would close the cursor of a reader that gave up, after the ledger itself.
            for row in self._db.execute(query, values):  # noqa: UP028
                yield row

    def close(self) -> None:
        """Close it; what was recorded stays."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- asking ----

    def earlier(self) -> int:
        """Return how many photos the output holds, and a run that was stopped since has met; vanished ones are not counted."""
        query = "SELECT count(*) FROM photo WHERE NOT vanished AND stamp != '' AND pass >= ?"
        return int(self._first(query, self._finished_pass()) or 0)

    def earlier_has(self, name: str) -> bool:
        """Say whether the photo of this name is one of these, or of those that had vanished."""
        query = "SELECT 1 FROM photo WHERE name = ? AND stamp != '' AND (vanished OR pass >= ?)"
        return self._first(query, os.fsencode(name), self._finished_pass()) is not None

    def _finished_pass(self) -> int:
        return int(self._first("SELECT value FROM state WHERE name = 'finished'") or 0)

    def done(self, name: str, stamp: str, retry_failed: bool = True) -> str | None:
        """Return the record of the photo of this name when a run like this one made it and the file was not touched since.

        retry_failed: what failed does not count as done. Nor does a photo that had vanished: what was made of it may be gone.
        """
        if not stamp:
            return None
        return self._first(
            "SELECT record FROM photo WHERE name = ? AND stamp = ? AND run = ? AND NOT vanished AND NOT (failed AND ?)",
            *(os.fsencode(name), stamp, self.run, retry_failed),
        )

    def record_of(self, content: str) -> str | None:
        """Return the record of a photo with the same bytes that was done by a run like this one, under any name."""
        query = "SELECT record FROM photo WHERE content = ? AND run = ? AND NOT failed LIMIT 1"
        return self._first(query, content, self.run)

    def earlier_of(self, name: str, stamp: str) -> Earlier | None:
        """Return what an earlier run found out about the photo of this name, if its faces are known and the file was not touched."""
        query = """
            SELECT photo.content, look.data, photo.record, NOT photo.vanished AND photo.made = ?,
                (SELECT count(*) FROM thumbnail WHERE thumbnail.name = photo.name)
            FROM photo JOIN look USING (name)
            WHERE photo.name = ? AND photo.stamp = ? AND NOT photo.failed AND look.key = ?"""
        if not stamp or self._looking is None:
            return None
        for content, data, record, made, thumbnails in self._rows(
            query, self.pictures, os.fsencode(name), stamp, self._looking
        ):
            if (look := unpack(data)) is not None:
                return Earlier(content, look, record, thumbnails, bool(made))
            self.damaged += 1
        return None

    def look_of(self, content: str) -> Look | None:
        """Return the faces of a photo with the same bytes, under any name."""
        query = "SELECT data FROM photo JOIN look USING (name) WHERE content = ? AND NOT failed AND key = ? LIMIT 1"
        for (data,) in self._rows(query, content, self._looking):
            return unpack(data)
        return None

    def known_looks(self) -> tuple[int, int]:
        """Return of how many photos of the output, failed ones aside, the faces are known, and how many photos that are."""
        query = """
            SELECT coalesce(sum(look.key = ?), 0), count(*) FROM photo LEFT JOIN look USING (name)
            WHERE NOT vanished AND stamp != '' AND NOT failed AND pass >= ?"""
        ((known, photos),) = self._rows(query, self._looking, self._finished_pass())
        return known, photos

    def _first(self, query: str, *values: object) -> str | None:
        with _sqlite_errors(self.path):
            row = self._db.execute(query, values).fetchone()
        return None if row is None else str(row[0])

    # ---- recording ----

    def met(self, names: Iterable[tuple[int, str]]) -> None:
        """Note in one transaction that this pass met photos that are done: (position, name)."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE photo SET pass = ?, position = ?, vanished = 0 WHERE name = ?",
                ((self._pass, position, os.fsencode(name)) for position, name in names),
            )

    def withdraw(self, names: Iterable[str]) -> None:
        """Note that what was made of these photos is about to be replaced: until they are recorded, they do not count as done."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE photo SET run = '', made = '' WHERE name = ?", ((os.fsencode(name),) for name in names)
            )

    def record(self, entries: Sequence[Entry]) -> None:
        """Keep results in one transaction; a photo's earlier one is replaced."""
        named = [(os.fsencode(entry.name), entry) for entry in entries]
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO photo VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (
                    (
                        name,
                        e.stamp,
                        e.content,
                        self.run,
                        self._pass,
                        e.position,
                        int(e.failed),
                        e.record,
                        self.pictures,
                    )
                    for name, e in named
                ),
            )
            db.executemany(
                "DELETE FROM thumbnail WHERE name = ?", ((name,) for name, e in named if e.thumbnails or not e.same)
            )
            db.executemany(
                "INSERT INTO thumbnail VALUES (?, ?, ?)",
                ((name, number, jpeg) for name, entry in named for number, jpeg in enumerate(entry.thumbnails)),
            )
            db.executemany("DELETE FROM look WHERE name = ?", ((name,) for name, entry in named if not entry.same))
            if self._looking is not None:
                db.executemany(
                    "INSERT INTO look VALUES (?, ?, ?)",
                    (
                        (name, self._looking, pack(entry.look))
                        for name, entry in named
                        if entry.look is not None and not entry.same
                    ),
                )

    def forget_looks(self) -> int:
        """Delete all faces and vectors so that no byte of them is left in the file; return of how many photos there were some."""
        with self._transaction() as db:
            count = db.execute("DELETE FROM look").rowcount
            if count:
                db.execute("INSERT OR REPLACE INTO state VALUES ('scrub', '')")
        # A run that was killed in between left the note, and this one ends what it began.
        if self._first("SELECT name FROM state WHERE name = 'scrub'") is not None:
            with _sqlite_errors(self.path):
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with self._transaction() as db:
                db.execute("DELETE FROM state WHERE name = 'scrub'")
        return count

    def mark_vanished(self) -> Missing:
        """Mark the photos of earlier passes that this one, now at its end, did not meet because they are gone.

        A photo that is still where it was, but not in this input, is neither marked nor in the output.
        """
        query = "SELECT name, pass FROM photo WHERE pass < ? AND NOT vanished AND stamp != ''"
        finished, gone, left = self._finished_pass(), [], 0
        for name, met in self._rows(query, self._pass):
            if is_gone(_file_of(os.fsdecode(name))):
                gone.append((name,))
            elif met >= finished:
                left += 1
        with self._transaction() as db:
            db.executemany("UPDATE photo SET vanished = 1 WHERE name = ?", gone)
        return Missing(len(gone), left, int(self._first("SELECT count(*) FROM photo WHERE vanished") or 0))

    # ---- reading out ----

    def records(self) -> Iterator[str]:
        """Yield the records of this pass in the order of the input, then those of vanished photos, marked as such."""
        for (record,) in self._rows("SELECT record FROM photo WHERE pass = ? ORDER BY position", self._pass):
            yield record
        for (record,) in self._rows("SELECT record FROM photo WHERE vanished ORDER BY pass, position"):
            fields = json.loads(record)
            fields["error"] = f"{fields['path']}: vanished: it was there at an earlier run and is not there now"
            yield json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    def records_with_thumbnails(self) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        """Yield the records of this pass in the order of the input, each with the thumbnails of its faces, if they were kept."""
        query = "SELECT name, record FROM photo WHERE pass = ? ORDER BY position"
        for name, record in self._rows(query, self._pass):
            rows = self._rows("SELECT jpeg FROM thumbnail WHERE name = ? ORDER BY number", name)
            yield json.loads(record), [jpeg for (jpeg,) in rows]

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield (path, reason) of the photos that failed in this pass, in the order of the input."""
        query = "SELECT record FROM photo WHERE pass = ? AND failed ORDER BY position"
        for (record,) in self._rows(query, self._pass):
            fields = json.loads(record)
            yield fields["path"], fields["error"]
