"""Files written whole or not at all: a temporary file beside the target, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from facepipe.errors import OutputError, UsageError

#: Drawn as nothing, though Unicode calls them letters, marks or symbols: fillers, a joiner of graphemes, an empty Braille cell.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
#: Scripts in whose words the zero-width joiner and non-joiner are spelling.
_JOINING = re.compile(
    "ARABIC|BENGALI|DEVANAGARI|GUJARATI|GURMUKHI|KANNADA|KHMER|MALAYALAM|MONGOLIAN|MYANMAR|NKO|ORIYA|SINHALA|SYRIAC|TAMIL"
    "|TELUGU|TIBETAN"
)


def printable(text: str | os.PathLike[str]) -> str:
    """Return a path or name as one line that shows everything that is in it.

    What a terminal acts on or nobody can see (control characters, marks that turn the direction of text, zero-width
    characters, undecodable bytes) becomes the escape that JSON has for it, so that a line of JSON still means the same.
    Zero-width joiners stay where a script or an emoji needs them.
    """
    text = os.fspath(text)
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    before = ""  # the character before, where that is shown as it is
    for char, after in zip(text, [*text[1:], ""], strict=True):
        seen = _is_seen(before, char, after)
        shown.append(char if seen else json.dumps(char)[1:-1])
        before = char if seen else ""
    return "".join(shown)


def _is_seen(before: str, char: str, after: str) -> bool:
    if char in "\u200c\u200d":
        return _takes_joiner(before) and after != "\ufe0f" and _takes_joiner(after)
    if "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":  # another shape of what stands before
        return before != "" and (unicodedata.category(before) == "So" or before >= "\u2e80")
    return char.isprintable() and char not in _BLANK


def _takes_joiner(char: str) -> bool:
    """Say whether a zero-width joiner beside this character changes what is seen."""
    if not char:
        return False
    return (
        char == "\ufe0f"
        or unicodedata.category(char) in {"So", "Sk"}
        or _JOINING.match(unicodedata.name(char, "")) is not None
    )


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
    if (target.parent / "faces.sqlite").exists():
        raise UsageError(f"{printable(path)}: lies in a gallery's own folder: write it to another folder")
    with _as_output_error(path):
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

    An output may be no input, no other output, nothing in the gallery's folder, and otherwise as `require_free` says.
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
def atomic_path(path: str | os.PathLike[str], *, private: bool = False, ours: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there takes the place of `path` when the block ends well.

    When the block raises, the temporary file is removed and `path` keeps what it had. A symbolic link stays a link: its
    target is replaced. A device or pipe (`/dev/stdout`) cannot be renamed over and is yielded itself. Missing parent
    folders are made. private: only its owner may read it, from its first byte on. ours: nothing is replaced but what
    facepipe wrote: UsageError as `require_free`. Raises OutputError when the system refuses.
    """
    if ours:
        require_free(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise OutputError(f"{printable(path)}: is a folder; name a file to write")
        with _as_output_error(path):
            yield target
        return
    # A name of its own length limit: the target's name may already be as long as the file system allows.
    temporary = target.parent / f".{_mark(target)}{secrets.token_hex(4)}.tmp"
    try:
        with _as_output_error(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            if private:
                os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            yield temporary
            _sync(temporary)
            temporary.replace(target)
            _sync(target.parent)
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


def _mark(target: Path) -> str:
    """Return what the names of all temporary files for a target begin with."""
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]


def remove_strays(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of `path` left beside it. Only for those who know that nobody is writing it now."""
    target = Path(os.path.realpath(path))
    for temporary in target.parent.glob(f".{_mark(target)}*.tmp"):
        if is_temporary(temporary.name):
            temporary.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Say whether a file's name is one that `atomic_path` gives to unfinished files."""
    return re.fullmatch(r"\.[0-9a-f]{16}\.tmp", name) is not None


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, ours: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends well (see `atomic_path`)."""
    with atomic_path(path, ours=ours) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def _as_output_error(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{printable(path)}: cannot be written ({reason}); choose a place with room and permission"
        ) from error


def _sync(path: Path) -> None:
    """Flush a file or a folder's listing to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, unless it is there. Raises OutputError when the system refuses."""
    with _as_output_error(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def remove_file(path: str | os.PathLike[str]) -> None:
    """Remove a file; one that is not there is removed already. Raises OutputError when the system refuses."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{printable(path)}: cannot be removed ({error.strerror}); check the folder's permissions"
        ) from error
