"""From a folder to an open connection: a gallery's database is made in it, or found there and connected to."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sqlite3
import tempfile
from pathlib import Path

from facepipe.errors import GalleryAccessError, GalleryError, GalleryExistsError, GalleryMissingError, UsageError
from facepipe.files.atomic import make_folder
from facepipe.gallery.storage.checksums import checksum
from facepipe.gallery.storage.codec import KEY_BYTES, Codec, SealedCodec, Secret, wrap_key
from facepipe.gallery.storage.disk import (
    DATABASE_NAME,
    LEFTOVER,
    OWN_FILES,
    disk_error,
    require_own_files,
    sqlite_errors,
    whole_file,
)
from facepipe.gallery.storage.lock import LOCK_TIMEOUT, WriterLock
from facepipe.gallery.storage.schema import APPLICATION_ID, migrate
from facepipe.text import printable

_PAGE_SIZE = 8192
#: Set in the environment where a gallery is read without any lock: nobody may write it meanwhile.
NO_LOCK = "FACEPIPE_NO_LOCK"


def make_database(folder: Path, fingerprint: str, dim: int, secret: Secret | None) -> None:
    """Make a gallery without faces in `folder`, whole or not at all; see `Database.create`."""
    if not fingerprint or dim < 1:
        raise ValueError(f"expected a fingerprint and a dimension of at least 1, got {fingerprint!r} and {dim}")
    path = folder / DATABASE_NAME
    _require_empty(folder)
    try:
        make_folder(folder)
        with WriterLock(folder).hold("create", LOCK_TIMEOUT):
            if path.exists():
                raise GalleryExistsError(f"{folder}: there is a gallery already: open it, or give another folder")
            with whole_file(path) as draft, sqlite_errors(folder):
                _write_empty(draft, fingerprint, dim, secret)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_error(error, folder) from error
        raise GalleryError(f"{folder}: a gallery cannot be made here ({error.strerror})") from error


def _require_empty(folder: Path) -> None:
    """UsageError when a folder holds what is no gallery's: other files, which a gallery would lie among.

    A README or something hidden does no harm.
    """
    known = re.compile(r"README.*|\..*")
    for path in folder.iterdir() if folder.is_dir() else ():
        name = path.name.removesuffix("-journal")  # of a gallery that another process is making
        if name not in OWN_FILES and not known.fullmatch(name) and not LEFTOVER.fullmatch(name):
            raise UsageError(
                f"{folder}: holds other files ({printable(path.name)}): a gallery wants a folder of its own; give another --gallery"
            )


def _write_empty(path: Path, fingerprint: str, dim: int, secret: Secret | None) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
        settings = {"fingerprint": fingerprint, "dim": str(dim), "identity": secrets.token_hex(16), "gone_since": "0"}
        codec, rows = Codec(), []
        if secret is not None:
            data_key = secrets.token_bytes(KEY_BYTES)
            codec, record = SealedCodec(data_key), wrap_key(secret, data_key)
            rows = [("key", record, checksum("key", record))]
        rows += [(key, value, codec.checksum(key, value)) for key, value in settings.items()]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO meta VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def require_there(folder: Path) -> None:
    """GalleryMissingError or GalleryAccessError unless there is a gallery whose files are its own and may be read."""
    path = folder / DATABASE_NAME
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GalleryMissingError(
            f"{folder}: no gallery here: make one with facepipe enroll, or give --gallery"
        ) from error
    except PermissionError as error:
        raise GalleryAccessError(f"{folder}: permission denied: the folder may not be opened; ask its owner") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GalleryAccessError(f"{printable(folder)}: cannot be opened ({reason}); check --gallery") from error
    require_own_files(folder)
    for part in (path, path.with_name(path.name + "-wal")):
        if part.exists() and not os.access(part, os.R_OK):
            raise GalleryAccessError(f"{part}: permission denied: the file may not be read; ask its owner")


def connect(folder: Path) -> tuple[sqlite3.Connection, bool, tempfile.TemporaryDirectory[str] | None]:
    """Connect for writing; where SQLite can make no WAL, as immutable, or to a copy when a WAL holds transactions.

    Returns the connection, whether it can write, and the folder of the copy.
    """
    path = folder / DATABASE_NAME
    if not os.environ.get(NO_LOCK):
        try:
            # SQLite opens a file that may not be written all the same.
            return _connected(path), os.access(folder, os.W_OK) and os.access(path, os.W_OK), None
        except sqlite3.OperationalError as error:
            if "unable to open" not in str(error) and "readonly" not in str(error):
                raise
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return _connected(path, immutable=True), False, None
    scratch = tempfile.TemporaryDirectory(prefix="facepipe-")
    for part in (path, wal):
        shutil.copy(part, scratch.name)
    return _connected(Path(scratch.name) / path.name), False, scratch


def _connected(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open the file for writing, or as one that nobody writes; every connection syncs each commit and overwrites what it deletes."""
    mode = "mode=ro&immutable=1" if immutable else "mode=rw"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30.0, isolation_level=None)
    try:
        connection.create_function("checksum", -1, checksum, deterministic=True)
        # A gallery may come from somebody else: its schema runs nothing.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
