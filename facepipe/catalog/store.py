"""The catalog as a SQLite file: opened by one writer at a time, or read; what SQLite reports becomes one line."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from facepipe.catalog.schema import NEWEST, prepare, version_of
from facepipe.errors import InputError, OutputError, UsageError
from facepipe.text import printable

SUFFIX = ".catalog"


def catalog_path(out: Path) -> Path:
    """Return where the catalog of a batch's output lies: beside it."""
    return out.with_name(out.name + SUFFIX)


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
                f"{name}: another batch is writing to this output; wait for it, or choose another --out"
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


def _begin_again(catalog: Path) -> str:
    if catalog.suffix != SUFFIX:
        return f"name the NAME{SUFFIX} that lies beside the results of `facepipe batch`"
    return f"remove it and {printable(catalog.name.removesuffix(SUFFIX))} to begin again"


class Store:
    """An open catalog file: transactions, rows, one line for each thing that can go wrong."""

    def __init__(self, path: Path, *, write: bool) -> None:
        """Open the file; see `facepipe.catalog.catalog.Catalog`."""
        self.path = path
        if write:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{printable(path)}: cannot be written ({error.strerror}); choose another --out"
                ) from error
        elif not path.is_file():
            raise InputError(
                f"{printable(path)}: no such catalog; `facepipe batch` makes one, NAME{SUFFIX} beside --out"
            )
        with _sqlite_errors(path):
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if write else 'ro'}"
            self._db = sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)
        try:
            with _sqlite_errors(path):
                version = self._open_to_write() if write else version_of(self._db)
            if version != NEWEST:
                raise InputError(
                    f"{printable(path)}: is not a catalog of this facepipe (schema {version}, it reads {NEWEST}); "
                    f"{_begin_again(path)}"
                )
        except BaseException:
            self._db.close()
            raise

    def _open_to_write(self) -> int:
        # Held until the process ends, however it ends: a second run would not see what the first is doing.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        # A power cut may lose the last photos, which are then done again; it never damages the file.
        self._db.execute("PRAGMA synchronous=NORMAL")
        # What is deleted or replaced is overwritten: vectors of faces are personal data.
        self._db.execute("PRAGMA secure_delete=ON")
        return prepare(self._db)

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

    def _rewrite(self) -> None:
        """Write the file anew: nothing of what was deleted is left in it."""
        with _sqlite_errors(self.path):
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close it; what was recorded stays."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
