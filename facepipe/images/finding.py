"""Finding the pictures in files and folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from facepipe.errors import InputError
from facepipe.images.passing import LINKED, SYSTEM, Passing, Rules, is_left_out
from facepipe.text import no_such, printable

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[object, ...], str]:
    """Return a sorting key in which `photo2` comes before `photo10`, whatever the case; equal only for equal names."""
    parts = _DIGITS.split(name.casefold())
    # Even places are text, odd places are digits: two keys compare text with text and number with number.
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


#: Lies in every folder that a batch writes.
OUTPUT_MARK = ".facepipe-output"


TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: str) -> bool:
    """Say whether a name is that of a zip or tar archive."""
    return path.lower().endswith((".zip", *TAR_SUFFIXES))


def is_output(folder: str) -> bool:
    """Say whether a folder was written by a batch."""
    return os.path.lexists(os.path.join(folder, OUTPUT_MARK))  # noqa: PTH118


def find_images(
    roots: Iterable[str | os.PathLike[str]],
    *,
    on_error: Callable[[InputError], None] | None = None,
    skip: Callable[[str], bool] = lambda folder: False,
    rules: Rules | None = None,
    videos: bool = False,
) -> Iterator[Path]:
    """Yield the pictures in files and folders, each path once, folders recursively and in natural order.

    In a folder, what `is_left_out` names, what is excluded, files without a picture's suffix, raw photos beside their JPEG and
    movies of live photos are left out. Links to folders are not followed, nor folders searched for which `skip` is true, unless they
    are roots. A link to a file is a picture; one to nowhere is yielded, so that it can be reported. A file that is named itself is
    yielded whatever it is called. A root that does not exist, or a folder that may not be listed, is an InputError: given to
    `on_error`, or raised where that is None. rules: those of the folder above, of which this search is a part. videos: search for
    videos too, where PyAV is installed.
    """
    passing = Passing() if rules is None else rules.passing
    yielded: set[str] = set()
    searched: set[tuple[int, int]] = set()

    def report(line: str, error: OSError | None = None) -> None:
        problem = InputError(line)
        problem.__cause__ = error
        if on_error is None:
            raise problem
        on_error(problem)

    def listed(folder: str, rules: Rules) -> Iterator[tuple[str, Rules | None]]:
        """Yield the pictures in a folder, and the folders in it with their rules, in natural order; nothing of one met before."""
        try:
            info = os.stat(folder)  # noqa: PTH116 - strings are several times faster than Path here
            if (info.st_dev, info.st_ino) in searched:
                return
            searched.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda e: natural_key(e.name))
        except OSError as error:
            where = printable(folder)
            report(f"{where}: the folder cannot be searched ({error.strerror}); check its permissions", error)
            return
        names = [entry.name for entry in entries]
        rules = rules.within(folder, names)
        beside = rules.beside(folder, names)
        for entry in entries:
            is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112
            if is_left_out(entry.name):
                passing.passed[SYSTEM] += is_folder and not entry.name.startswith(".")
            elif rules.excludes(entry.path, folder=is_folder):
                continue
            elif not is_folder:
                if passing.take(entry.name, beside, videos=videos) and (entry.is_symlink() or entry.is_file()):
                    yield entry.path, None
            elif entry.is_symlink():
                passing.passed[LINKED] += 1
            elif not skip(entry.path):
                yield entry.path, rules

    def search(folder: str, rules: Rules) -> Iterator[str]:
        """Yield the pictures in a folder and those below it, however deep, in natural order."""
        open_folders = [listed(folder, rules)]
        while open_folders:
            for path, below in open_folders[-1]:
                if below is not None:
                    open_folders.append(listed(path, below))
                    break
                yield path
            else:
                open_folders.pop()

    for root in (os.fspath(root) for root in roots):
        if os.path.isdir(root):  # noqa: PTH112
            found = search(root, rules or passing.rules(root))
        elif os.path.lexists(root):
            found = iter((root,))
        else:
            report(no_such(root, "file or folder"))
            continue
        for path in found:
            absolute = os.path.abspath(path)  # noqa: PTH100
            if absolute not in yielded:
                yielded.add(absolute)
                yield Path(path)
