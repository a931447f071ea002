"""What a command may write over: nothing but what facepipe wrote itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from facepipe.errors import UsageError
from facepipe.files.atomic import as_output_error, atomic_file, atomic_path
from facepipe.text import printable


def require_outside(folder: str | os.PathLike[str], *paths: str | os.PathLike[str] | None) -> None:
    """UsageError when one of `paths` lies in a gallery's folder: what is written there could replace the gallery itself.

    Links are followed; None is passed over.
    """
    home = Path(os.path.realpath(folder))
    for path in paths:
        if path is not None and Path(os.path.realpath(path)).is_relative_to(home):
            raise UsageError(
                f"{printable(path)}: lies in the gallery's own folder {printable(folder)}: write it to another folder"
            )


#: Stands in every file that a command writes under a name of the user's, at the place that its format has for such a remark.
MARK = "written by facepipe 6e2b91c4"


#: Near its start or end a file has one of these when facepipe wrote it: the mark, the names of arrays in a cache.
_SIGNS = (MARK.encode(), b"reasons.npy")


#: A list of failed photos has no place for a remark, but these columns.
FAILURES_HEADER = b"path,error\n"


_EDGE = 1 << 16


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Say whether a file was written by facepipe, by what is in it."""
    with open(path, "rb") as file:  # noqa: PTH123
        head = file.read(_EDGE)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _EDGE))
        tail = file.read()
    return head.startswith(FAILURES_HEADER) or any(sign in head or sign in tail for sign in _SIGNS)


def require_free(path: str | os.PathLike[str]) -> None:
    """UsageError unless `path` may be written: there is no file, an empty one, or one that facepipe wrote.

    A photo, anybody's document, and what lies in a gallery's folder are never replaced. Links are followed; devices and
    pipes may be written. OutputError when it cannot be told.
    """
    target = Path(os.path.realpath(path))
    with as_output_error(path):
        if (target.parent / "faces.sqlite").exists():
            raise UsageError(f"{printable(path)}: lies in a gallery's own folder: write it to another folder")
        if target.is_file() and target.stat().st_size and not is_ours(target):
            raise UsageError(
                f"{printable(path)}: exists, and facepipe did not write it; choose another name, or delete it first"
            )


def check_outputs(
    outputs: Iterable[str | os.PathLike[str] | None],
    inputs: Iterable[str | os.PathLike[str]] = (),
    gallery: str | os.PathLike[str] | None = None,
) -> None:
    """UsageError when a command may not write one of its outputs; asked before any work. None is passed over.

    An output may not be an input, another output or in the gallery's folder; otherwise `require_free` applies.
    Folders are only compared with the gallery's.
    """
    wanted = [path for path in outputs if path is not None]
    if gallery is not None:
        require_outside(gallery, *wanted)
    files = [path for path in wanted if not os.path.isdir(path)]  # noqa: PTH112
    present = {(info.st_dev, info.st_ino): path for path in files if (info := _stat(path)) is not None}
    for source in inputs if present else ():
        info = _stat(source)
        if info is not None and (same := present.get((info.st_dev, info.st_ino))) is not None:
            raise UsageError(f"{printable(same)}: is one of the inputs; choose another name for what is written")
    for number, path in enumerate(files):
        require_free(path)
        if any(os.path.realpath(path) == os.path.realpath(other) for other in files[:number]):
            raise UsageError(f"{printable(path)}: is given for two outputs; choose another name for one of them")


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def own_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Do as `atomic_path`, and replace nothing but what facepipe wrote: UsageError as `require_free`."""
    require_free(path)
    with atomic_path(path) as temporary:
        yield temporary


@contextlib.contextmanager
def own_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Do as `atomic_file`, and replace nothing but what facepipe wrote: UsageError as `require_free`."""
    require_free(path)
    with atomic_file(path) as file:
        yield file
