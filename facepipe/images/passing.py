"""What is passed over where photos are searched for: hidden files, folders of systems, what the user excludes; and how much."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facepipe.errors import UsageError
from facepipe.text import plural

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

#: A file of patterns, as of a .gitignore, for the folder that it lies in and those below.
IGNORE_NAME = ".facepipeignore"
_LONGEST_IGNORE = 1 << 20

#: Folders that systems and programs make beside photos; what lies in them is no photo of the user's, or the same once more.
_NEVER = frozenset(
    name.casefold()
    for name in (
        *("@eaDir", "@__thumb", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "RECYCLER"),
        *("System Volume Information", "__MACOSX", "lost+found", "Network Trash Folder", "Temporary Items"),
        *("node_modules", "__pycache__", "Lightroom Previews.lrdata", "Thumbnails", "thumbs"),
    )
)
_KINDS = {
    "video": "3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv",
    "RAW file": "3fr ari arw cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f",
    "archive": "7z bz2 gz rar tar tbz2 tgz txz xz zip",
    "sidecar": "xmp",
}
_KIND_OF = {f".{suffix}": kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
OTHER, EXCLUDED, LINKED, SYSTEM = "other file", "excluded", "linked folder", "system folder"
#: Written so that each reads well with a number before it.
_ORDER = (*_KINDS, OTHER, LINKED, SYSTEM)


def is_left_out(name: str) -> bool:
    """Say whether a file or folder of this name is passed over wherever photos are searched for: hidden, or a system's own.

    Hidden are names that begin with a dot (.thumbnails, .stversions, .Trash-1000).
    """
    return name.startswith(".") or name.casefold() in _NEVER


class Passing:
    """Which files and folders a search passes over, and how many it did.

    exclude: patterns as in a .gitignore file, for each place that is searched; a folder's own file `.facepipeignore` adds to them.
    passed: kind -> how many; hidden files are not counted.
    """

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        """Take the user's patterns. UsageError for one that is no pattern."""
        self.exclude = tuple(exclude)
        self.passed: Counter[str] = Counter()
        self._given = _patterns(self.exclude, "--exclude")

    def rules(self, root: str) -> Rules:
        """Return what is excluded in a place that is searched."""
        return Rules(self, root, () if self._given is None else ((root, self._given),))

    def pass_file(self, name: str) -> None:
        """Count a file that is no picture."""
        self.passed[_KIND_OF.get(os.path.splitext(name)[1].lower(), OTHER)] += 1  # noqa: PTH122

    def told(self) -> str:
        """Say in a line what was passed over, empty when nothing was."""
        parts = [plural(self.passed[kind], kind) for kind in _ORDER if self.passed[kind]]
        if self.passed[EXCLUDED]:
            parts.append(f"{self.passed[EXCLUDED]:,} excluded")
        return ", ".join(parts)


class Rules:
    """The patterns that hold in a folder: the user's, and those of the files in it and above it."""

    def __init__(self, passing: Passing, folder: str, specs: tuple[tuple[str, GitIgnoreSpec], ...]) -> None:
        self.passing = passing
        self._folder = folder
        self._specs = specs

    def within(self, folder: str, names: Iterable[str]) -> Rules:
        """Return the rules of a folder with entries of these names."""
        if IGNORE_NAME not in names:
            return self
        path = Path(folder, IGNORE_NAME)
        try:
            with path.open(encoding="utf-8-sig") as file:
                spec = _patterns(file.read(_LONGEST_IGNORE).splitlines(), str(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UsageError(f"{path}: cannot be read ({reason}); correct it, or remove it") from error
        return self if spec is None else Rules(self.passing, folder, (*self._specs, (folder, spec)))

    def excludes(self, path: str, *, folder: bool = False) -> bool:
        """Say whether a file or folder is excluded, and count it. As with git, the deepest file with a matching pattern decides."""
        for base, spec in reversed(self._specs):
            found = spec.check_file(os.path.relpath(path, base) + "/" * folder).include
            if found is not None:
                self.passing.passed[EXCLUDED] += found
                return found
        return False


def _patterns(lines: Sequence[str], where: str) -> GitIgnoreSpec | None:
    if not lines:
        return None
    import pathspec

    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error) as error:
        raise UsageError(f"{where}: not a pattern ({error}); write it as in a .gitignore file") from error
