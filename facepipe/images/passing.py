"""What is passed over where photos are searched for: hidden files, folders of systems, what the user excludes; and how much."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from facepipe.errors import UsageError
from facepipe.images.formats import IMAGE_SUFFIXES, RAW_SUFFIXES, VIDEO_SUFFIXES, is_installed
from facepipe.images.live import MOVIES, is_live_movie
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
    "video": "3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv vob webm wmv",
    "raw photo": " ".join(suffix[1:] for suffix in RAW_SUFFIXES),
    "archive": "7z bz2 gz rar tar tbz2 tgz txz xz zip",
    "sidecar": "xmp",
}
_KIND_OF = {f".{suffix}": kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
#: Kinds that are read where an extra is installed: the extra, and its library.
_EXTRAS = {"raw photo": ("raw", "rawpy"), "video": ("video", "av")}
OTHER, EXCLUDED, LINKED, SYSTEM = "other file", "excluded", "linked folder", "system folder"
#: Raw photos that lie beside the same photo as a JPEG or HEIC.
BESIDE = "raw photo beside its JPEG"
#: Movies of live photos, which lie beside the still.
LIVE = "movie of a live photo"
#: Videos where photos alone are looked for; no extra helps.
NOT_HERE = "video (not looked at here)"
#: Kind -> several of it, where that is not the word with an s.
_SEVERAL = {
    BESIDE: "raw photos beside their JPEGs",
    LIVE: "movies of live photos",
    NOT_HERE: "videos (not looked at here)",
}
#: Written so that each reads well with a number before it.
_ORDER = ("video", NOT_HERE, "raw photo", "archive", "sidecar", BESIDE, LIVE, OTHER, LINKED, SYSTEM)
#: What cameras and phones write beside a raw photo.
_DEVELOPED = frozenset({".avif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg"})


def is_left_out(name: str) -> bool:
    """Say whether a file or folder of this name is passed over wherever photos are searched for: hidden, or a system's own.

    Hidden are names that begin with a dot (.thumbnails, .stversions, .Trash-1000).
    """
    return name.startswith(".") or name.casefold() in _NEVER


def is_looked_at(name: str, *, videos: bool = False) -> bool:
    """Say whether files of this name are looked at where photos, or photos and videos, are searched for, with what is installed."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if suffix in RAW_SUFFIXES:
        return is_installed("rawpy")
    return suffix in IMAGE_SUFFIXES or (videos and suffix in VIDEO_SUFFIXES and is_installed("av"))


def beside(names: Iterable[str], folder: str = "") -> frozenset[str]:
    """Return those of some files, by name or path, that show what another of them shows.

    Those are raw photos beside their JPEG or HEIC, and movies of live photos, which are looked into: they lie in `folder`.
    """
    return frozenset(
        name
        for name, still in _pairs(names)
        if not _is_movie(name) or is_live_movie(os.path.join(folder, name), os.path.join(folder, still))  # noqa: PTH118
    )


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return raw photos and movies, each with the JPEG or HEIC of the same name."""
    stems: dict[str, list[str]] = {}
    developed: dict[str, str] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix.lower() in RAW_SUFFIXES or suffix.lower() in MOVIES:
            stems.setdefault(stem.casefold(), []).append(name)
        elif suffix.lower() in _DEVELOPED:
            developed[stem.casefold()] = name
    return [(name, developed[stem]) for stem, more in stems.items() if stem in developed for name in more]


def _is_movie(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in MOVIES  # noqa: PTH122


def _read_ignore(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read(_LONGEST_IGNORE)


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

    def take(self, name: str, beside: frozenset[str] = frozenset(), *, videos: bool = False) -> bool:
        """Say whether a file is looked at; else count it. beside: those that show what another file shows."""
        if name in beside:
            self.passed[LIVE if _is_movie(name) else BESIDE] += 1
            return False
        if not is_looked_at(name, videos=videos):
            kind = _KIND_OF.get(os.path.splitext(name)[1].lower(), OTHER)  # noqa: PTH122
            self.passed[NOT_HERE if kind == "video" and not videos else kind] += 1
            return False
        return True

    def told(self) -> str:
        """Say in a line what was passed over, empty when nothing was."""
        parts = [
            plural(self.passed[kind], kind, _SEVERAL.get(kind)) + _reader(kind) for kind in _ORDER if self.passed[kind]
        ]
        if self.passed[EXCLUDED]:
            parts.append(f"{self.passed[EXCLUDED]:,} excluded")
        return ", ".join(parts)


class Rules:
    """The patterns that hold in a folder: the user's, and those of the files in it and above it."""

    def __init__(self, passing: Passing, folder: str, specs: tuple[tuple[str, GitIgnoreSpec], ...]) -> None:
        self.passing = passing
        self._folder = folder
        self._specs = specs

    def within(self, folder: str, names: Collection[str], read: Callable[[str], bytes] = _read_ignore) -> Rules:
        """Return the rules of a folder with entries of these names. read: returns the bytes of a file in it."""
        if IGNORE_NAME not in names:
            return self
        path = os.path.join(folder, IGNORE_NAME)  # noqa: PTH118
        try:
            spec = _patterns(read(path)[:_LONGEST_IGNORE].decode("utf-8-sig").splitlines(), path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UsageError(f"{path}: cannot be read ({reason}); correct it, or remove it") from error
        return self if spec is None else Rules(self.passing, folder, (*self._specs, (folder, spec)))

    def excludes(self, path: str, *, folder: bool = False) -> bool:
        """Say whether a file or folder is excluded, and count it. As with git, the deepest file with a matching pattern decides."""
        found = self._excludes(path, folder)
        self.passing.passed[EXCLUDED] += found
        return found

    def beside(self, folder: str, names: Iterable[str]) -> frozenset[str]:
        """Return those files of a folder that show what another shows, one that is not excluded."""
        names = list(names)
        if not _pairs(names):
            return frozenset()
        kept = [name for name in names if not self._excludes(os.path.join(folder, name), False)]  # noqa: PTH118
        return beside(kept, folder)

    def _excludes(self, path: str, folder: bool) -> bool:
        for base, spec in reversed(self._specs):
            found = spec.check_file(os.path.relpath(path, base) + "/" * folder).include
            if found is not None:
                return found
        return False


def _reader(kind: str) -> str:
    """Return which extra would read a kind of files; empty where none does, or it is installed."""
    extra, library = _EXTRAS.get(kind, ("", ""))
    return f" (pip install 'facepipe[{extra}]' reads them)" if extra and not is_installed(library) else ""


def _patterns(lines: Sequence[str], where: str) -> GitIgnoreSpec | None:
    if not lines:
        return None
    import pathspec

    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error) as error:
        raise UsageError(f"{where}: not a pattern ({error}); write it as in a .gitignore file") from error
