"""The gallery's SQLite file and its folder: made, opened, synced; what the system refuses, said in words."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from facepipe.errors import (
    GalleryAccessError,
    GalleryDamagedError,
    GalleryError,
    GalleryFullError,
    GalleryLockedError,
    UsageError,
)
from facepipe.gallery.storage.checksums import checksum
from facepipe.gallery.storage.codec import KEY_BYTES, Codec, SealedCodec, Secret, wrap_key
from facepipe.gallery.storage.schema import APPLICATION_ID, migrate
from facepipe.text import printable

_PAGE_SIZE = 8192
#: Ends the names of files that are not whole yet; one that a killed process left may be deleted under the writer's lock.
TEMPORARY = ".tmp"


@contextlib.contextmanager
def sqlite_errors(place: Path) -> Iterator[None]:
    """Turn SQLite's errors into a GalleryError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _in_words(error, place) from error
    except UnicodeDecodeError as error:  # SQLite's own message quotes damaged text of the schema
        raise GalleryDamagedError(f"{place}: the database is damaged (its schema is not text)") from error


def _in_words(error: sqlite3.Error, place: Path) -> GalleryError:
    text = str(error)
    if "closed database" in text:
        return GalleryError(f"{place}: this gallery is closed: open it again")
    if "full" in text:
        return GalleryFullError(f"{place}: the disk is full: free space and try again; nothing of this step was stored")
    if "disk I/O" in text:
        if "READ" in getattr(error, "sqlite_errorname", ""):
            return GalleryError(f"{place}: the disk cannot be read ({text}): check the disk, or restore a copy")
        return GalleryFullError(
            f"{place}: the disk is full or failing: free space and try again; nothing of this step was stored"
        )
    if "readonly" in text or "read-only" in text:
        advice = "the gallery is read-only: give write permission, or copy it to a disk that can be written"
        return GalleryAccessError(f"{place}: {advice}")
    if "unable to open" in text:
        advice = "check the permissions of its files and of its folder"
        return GalleryAccessError(f"{place}: a file of it cannot be opened or made: {advice}")
    if "locked" in text or "busy" in text:
        return GalleryLockedError(f"{place}: another process reads or writes it: try again when it is done")
    return GalleryDamagedError(f"{place}: the database is damaged ({text})")


def connect(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
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


#: What lies in a gallery's folder; everything else there is somebody else's, and stays.
_OWN = (
    "faces.sqlite",
    "faces.sqlite-wal",
    "faces.sqlite-shm",
    "lock",
    "last-write",
    "vectors.f32",
    "templates.faiss",
    "own-photos.f32",
)
_LEFTOVER = re.compile(rf"({'|'.join(map(re.escape, _OWN))})\.\d+-[0-9a-f]{{8}}{re.escape(TEMPORARY)}")


def require_own_files(folder: Path) -> None:
    """GalleryDamagedError when one of a gallery's files is a link, a pipe or a folder: what lies there is not its own."""
    for name in _OWN:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(folder / name).st_mode):
                raise GalleryDamagedError(
                    f"{folder / name}: is a link, a pipe or a folder where a file of the gallery should be"
                )


@contextlib.contextmanager
def open_own_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file of a gallery, open for reading. OSError when it is a link, a pipe or anything else that is no file of its own."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a file", str(path))
        yield file


def leftovers(folder: Path) -> list[Path]:
    """Return the unfinished files that a killed process of facepipe left."""
    return [path for path in folder.iterdir() if _LEFTOVER.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)]


def require_empty(folder: Path) -> None:
    """UsageError when a folder holds what is no gallery's: other files, which a gallery would lie among.

    A README or something hidden does no harm.
    """
    known = re.compile(r"README.*|\..*")
    for path in folder.iterdir() if folder.is_dir() else ():
        name = path.name.removesuffix("-journal")  # of a gallery that another process is making
        if name not in _OWN and not known.fullmatch(name) and not _LEFTOVER.fullmatch(name):
            raise UsageError(
                f"{folder}: holds other files ({printable(path.name)}): a gallery wants a folder of its own; give another --gallery"
            )


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a file beside `path`, for its owner alone, that takes its place, durable, when the block ends well.

    Unlike `files.atomic` it follows no link: what somebody else's gallery holds may lead anywhere.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        yield draft
        _sync(draft)
        draft.rename(path)
        _sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_empty(path: Path, fingerprint: str, dim: int, secret: Secret | None) -> None:
    """Write a gallery without faces to `path`."""
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


def disk_error(error: OSError, place: Path) -> GalleryError:
    """Return the error for a file that could not be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return GalleryFullError(f"{place}: the disk is full: free space and try again")
    return GalleryAccessError(f"{place}: cannot be written ({error.strerror})")
