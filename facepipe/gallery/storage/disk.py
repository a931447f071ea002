"""A gallery's own files in its folder: opened as such, written whole; what the system refuses, said in words."""

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
)
from facepipe.files.atomic import sync

DATABASE_NAME = "faces.sqlite"
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


#: What lies in a gallery's folder; everything else there is somebody else's, and stays.
OWN_FILES = (
    DATABASE_NAME,
    f"{DATABASE_NAME}-wal",
    f"{DATABASE_NAME}-shm",
    "lock",
    "last-write",
    "vectors.f32",
    "templates.faiss",
    "own-photos.f32",
)
LEFTOVER = re.compile(rf"({'|'.join(map(re.escape, OWN_FILES))})\.\d+-[0-9a-f]{{8}}{re.escape(TEMPORARY)}")


def require_own_files(folder: Path) -> None:
    """GalleryDamagedError when one of a gallery's files is a link, a pipe or a folder: what lies there is not its own."""
    for name in OWN_FILES:
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
    return [path for path in folder.iterdir() if LEFTOVER.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a file beside `path`, for its owner alone, that takes its place, durable, when the block ends well.

    Unlike `files.atomic` it follows no link: what somebody else's gallery holds may lead anywhere.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        yield draft
        sync(draft)
        draft.rename(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def disk_error(error: OSError, place: Path) -> GalleryError:
    """Return the error for a file that could not be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return GalleryFullError(f"{place}: the disk is full: free space and try again")
    return GalleryAccessError(f"{place}: cannot be written ({error.strerror})")
