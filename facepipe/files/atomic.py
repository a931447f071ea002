"""Files written whole or not at all: a temporary file beside the target, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from facepipe.errors import OutputError
from facepipe.text import printable


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there takes the place of `path` when the block ends well.

    When the block raises, the temporary file is removed and `path` keeps what it had. A symbolic link stays a link: its
    target is replaced. A device or pipe (`/dev/stdout`) cannot be renamed over and is yielded itself. Missing parent
    folders are made. Only its owner may read it and the folders that are made, from the first byte on, whatever the umask:
    results are of people. A file that was there keeps its mode, and its owner where the system allows it. Raises OutputError
    when the system refuses.
    `guard.own_path` replaces nothing but what facepipe wrote.
    """
    target = Path(os.path.realpath(path))
    with as_output_error(path):  # a name may be too long for the system
        other = target.exists() and not target.is_file()
    if other:
        if target.is_dir():
            raise OutputError(f"{printable(path)}: is a folder; name a file to write")
        with as_output_error(path):
            yield target
        return
    # A name of its own length limit: the target's name may already be as long as the file system allows.
    temporary = target.parent / f".{_mark(target)}{secrets.token_hex(4)}.tmp"
    try:
        with as_output_error(path):
            _make_private(target.parent)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            if target.exists():
                there = target.stat()
                with contextlib.suppress(OSError):  # only for the superuser, or within the user's groups
                    os.chown(temporary, there.st_uid, there.st_gid)
                temporary.chmod(there.st_mode & 0o777)
            yield temporary
            sync(temporary)
            temporary.replace(target)
            sync(target.parent)
    finally:
        # On a file system that has become read-only this fails as well; what counts is why the writing did.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_gone(path: str | os.PathLike[str]) -> bool:
    """Say whether nothing is there for certain: what may not be looked into is not gone. A link is there, wherever it leads."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Say whether a folder is there; unlike pathlib's, no where the system does not even take the name: it may be anybody's."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is there; see `is_folder`."""
    return os.path.isfile(path)  # noqa: PTH113


def _mark(target: Path) -> str:
    """Return what the names of all temporary files for a target begin with."""
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]


def remove_strays(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of `path` left beside it. Only where it is known that no process is writing it now."""
    target = Path(os.path.realpath(path))
    for temporary in target.parent.glob(f".{_mark(target)}*.tmp"):
        if is_temporary(temporary.name):
            temporary.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Say whether a file's name is one that `atomic_path` gives to unfinished files."""
    return re.fullmatch(r"\.[0-9a-f]{16}\.tmp", name) is not None


def make_private_file(path: Path) -> None:
    """Make an empty file for its owner alone, unless it is there; for a library that opens its files itself.

    Raises OutputError when the system refuses, or what is there is no file of its own: a link, a pipe, a folder.
    """
    with as_output_error(path):
        _make_private(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        os.close(descriptor)
    if not regular:
        raise OutputError(f"{printable(path)}: is not a file; choose another name, or remove it")


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends well (see `atomic_path`)."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def as_output_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system refuses in the block into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{printable(path)}: cannot be written ({reason}); choose a place with free space and write permission"
        ) from error


def sync(path: Path) -> None:
    """Flush a file or a folder's listing to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it for their owner alone, unless it is there. Raises OutputError when the system refuses."""
    with as_output_error(path):
        _make_private(Path(path))


def _make_private(folder: Path) -> None:
    """Make a folder and those above it that are missing, each for its owner alone."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def remove_file(path: str | os.PathLike[str]) -> None:
    """Remove a file; one that is not there is removed already. Raises OutputError when the system refuses."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{printable(path)}: cannot be removed ({error.strerror}); check the folder's permissions"
        ) from error
