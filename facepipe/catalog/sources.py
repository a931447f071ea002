"""Where the photos of a batch come from: files, folders, patterns, lists, object stores, and archives that are not unpacked."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, takewhile
from pathlib import Path

from facepipe.catalog import archives, remote
from facepipe.errors import InputError
from facepipe.files.atomic import is_file, is_folder, is_gone
from facepipe.images import Passing, find_images, is_output, natural_key, read_bytes
from facepipe.images.finding import TAR_SUFFIXES, is_archive
from facepipe.images.passing import beside
from facepipe.text import no_such, printable

#: Stands between an archive and its member in a photo's name: photos.zip!2019/a.jpg
MEMBER = "!"


@dataclass(frozen=True, slots=True)
class Source:
    """A photo that is to be read.

    name: what it is called in results, unique in a batch. stamp: changes when its content may have changed; empty: nobody knows.
    path: the file, None for a member of an archive, and in a store. problem: why it cannot be read. load: returns its bytes, raises
    InputError.
    streamed: `load` works only until the next source is drawn, and only in the thread that draws it.
    """

    name: str
    stamp: str
    path: Path | None
    load: Callable[[], bytes]
    streamed: bool = False
    problem: str | None = None


def find_sources(roots: Iterable[str], own: Collection[Path] = (), passing: Passing | None = None) -> Iterator[Source]:
    """Yield the photos of files, folders (recursively, natural order), patterns, archives and URLs (`remote`); each path once.

    A root that does not exist, a folder that may not be listed and an archive that is damaged are yielded as sources with a
    problem, in their place: a batch goes on and lists what failed. Folders that a batch wrote are searched only where they
    are roots. own: the folders that this batch writes; what lies in them is not a photo, whatever its name.
    passing: what else is passed over; it counts it. Errors: those of `remote.find`.
    """
    passing = passing or Passing()
    written = {os.path.realpath(folder) for folder in own}
    seen: set[str] = set()
    roots = list(roots)
    listed = beside(roots)
    for root in roots:
        if root in listed:
            passing.take(root, listed)
            continue
        if remote.is_url(root):
            yield from _new(_remote(root, passing), seen)
            continue
        pattern = not os.path.lexists(root)
        expanded = _expanded(root)
        rules = passing.rules(_fixed(root))
        twice = rules.beside("", expanded) if pattern else frozenset()
        for path in expanded:
            if (written and _lies_in(path, written)) or (pattern and _is_written(path, root)):
                continue
            if pattern and rules.excludes(path, folder=is_folder(path)):
                continue
            if path in twice:
                passing.take(path, twice)
                continue
            if is_archive(path) and is_file(path):
                found = _members(path, passing)
            else:
                found = _files(path, passing)
            yield from _new(found, seen)


def _new(found: Iterable[Source], seen: set[str]) -> Iterator[Source]:
    """Yield those that were not seen before."""
    for source in found:
        if source.name not in seen:
            seen.add(source.name)
            yield source


def as_sources(photos: Iterable[Source | str | os.PathLike[str]]) -> Iterator[Source]:
    """Yield the photos of what `find_sources` takes, or sources as they are."""
    for source, group in groupby(photos, lambda photo: isinstance(photo, Source)):
        if source:
            yield from group  # type: ignore[misc]
        else:
            yield from find_sources([os.fspath(path) for path in group])  # type: ignore[arg-type]


def file_of(name: str) -> str:
    """Return the file that a name stands for: itself, or the archive that it is a member of."""
    archive, mark, _ = name.partition(MEMBER)
    return archive if mark and os.path.lexists(archive) else name


def is_missing(name: str) -> bool:
    """Say whether a photo, or the archive that it is in, is not there for certain."""
    return remote.is_gone(name) if remote.is_url(name) else is_gone(file_of(name))


def none_exists(roots: Iterable[str]) -> bool:
    """Say whether not one root is there; a pattern is when it finds something. Errors: those of `remote.find`."""
    roots = list(roots)
    for url in filter(remote.is_url, roots):
        remote.named_by_user(url)  # refused before anything is opened
    return not any(map(_is_there, roots))


def no_such_root(root: str) -> str:
    """Say in a line that a root is not there."""
    return remote.absent(root) if remote.is_url(root) else no_such(root, "file or folder")


def _is_there(root: str) -> bool:
    return remote.exists(root) if remote.is_url(root) else any(map(os.path.lexists, _expanded(root)))


def count_sources(roots: Iterable[str], own: Collection[Path] = (), passing: Passing | None = None) -> int:
    """Return how many photos there will be, for a progress bar, without those that take long to be counted: in tars and stores."""
    counted = (root for root in roots if not (root.lower().endswith(TAR_SUFFIXES) or remote.is_url(root)))
    return sum(1 for _ in find_sources(counted, own, passing))


def _lies_in(path: str, folders: set[str]) -> bool:
    """Say whether a name, its folders' links followed, is one of the folders or in one."""
    head, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
    here = Path(os.path.realpath(head), name)
    return any(str(place) in folders for place in (here, *here.parents))


def _is_written(path: str, pattern: str) -> bool:
    """Say whether what a pattern found was written by a batch: a marked folder lies below the part without wildcards."""
    fixed = Path(_fixed(pattern)).parts
    below = Path(path).parts[len(fixed) :]
    return any(is_output(os.path.join("", *fixed, *below[:count])) for count in range(1, len(below) + 1))  # noqa: PTH118


def _fixed(pattern: str) -> str:
    """Return the folder of a pattern's part without wildcards."""
    return str(Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts)))


def _expanded(root: str) -> Sequence[str]:
    """Expand a pattern that the shell left alone; a name that exists is not a pattern."""
    if os.path.lexists(root) or not glob.has_magic(root):
        return (root,)
    return sorted(glob.iglob(root, recursive=True), key=natural_key) or (root,)  # noqa: PTH207 - keeps the name as given


def _files(root: str, passing: Passing) -> Iterator[Source]:
    problems: list[InputError] = []
    for path in find_images([root], on_error=problems.append, skip=is_output, rules=passing.rules(root), videos=True):
        yield from _failed(problems)
        yield file_source(path)
    yield from _failed(problems)


def _failed(problems: list[InputError]) -> Iterator[Source]:
    for problem in problems:
        text = str(problem)
        yield _broken(text.split(": ", 1)[0], text)
    problems.clear()


def _broken(name: str, problem: str) -> Source:
    def load() -> bytes:
        """Fail with the reason that is known already."""
        raise InputError(problem)

    return Source(name, "", None, load, problem=problem)


def file_source(path: Path) -> Source:
    """Return a file as a source; one that has vanished fails when it is loaded."""
    try:
        info = path.stat()
        stamp = f"{info.st_size}:{info.st_mtime_ns}"
    except OSError:
        stamp = ""
    return Source(str(path), stamp, path, partial(_load, path))


def _load(path: Path) -> bytes:
    return read_bytes(path)[1]


def _remote(url: str, passing: Passing) -> Iterator[Source]:
    for name, stamp, load in remote.find(url, passing):
        yield _broken(name, load) if isinstance(load, str) else Source(name, stamp, None, load)


def _members(path: str, passing: Passing) -> Iterator[Source]:
    """Yield the pictures in an archive; one that is damaged is a source with a problem, in its place."""
    try:
        for member, stamp, open_member in archives.members(path, passing):
            name = f"{path}{MEMBER}{member}"
            yield Source(name, stamp, None, partial(archives.read_member, name, open_member), streamed=True)
    except archives.ERRORS as error:
        yield _broken(path, f"{printable(path)}: the archive is damaged ({printable(str(error))}); copy it again")
