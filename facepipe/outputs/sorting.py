"""Photos sorted into folders by who is in them.

    DIR/people/NAME/…    DIR/unknown/…    DIR/ambiguous/…    DIR/no-face/…

A photo with Ada and a stranger is in `people/Ada` and in `unknown`. People have a folder of their own, so that somebody who
is called "unknown" is not mistaken for nobody. A second run adds what is new and takes away what it
placed itself and nobody changed since, when a photo belongs elsewhere by then: `.facepipe-sorted` lists it. A link to a photo
that was deleted is taken away too; a copy stays, it may be the last. Photos that failed are in no folder, the list of failures
has them.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from facepipe.errors import InputError, OutputError
from facepipe.files.atomic import atomic_path, is_gone
from facepipe.outputs.names import safe_name
from facepipe.records import Record
from facepipe.text import printable

How = Literal["link", "hardlink", "copy"]

#: Lists what was placed, a line of JSON for each change: {"photo": path, "places": {place: [how, what it was]}}, and before
#: each place that is made {"photo": path, "begun": [place, how]}: what a run that was killed left there is known as ours.
_MANIFEST = ".facepipe-sorted"


def folders_of(record: Record) -> list[PurePosixPath]:
    """Return the folders, relative to DIR, that a photo belongs in; none for a photo that failed."""
    if record["error"] is not None:
        return []
    if not record["faces"]:
        return [PurePosixPath("no-face")]
    people = dict.fromkeys(face["person"] for face in record["faces"] if face["person"] is not None)
    statuses = {face["status"] for face in record["faces"]} - {"known"}
    return [
        *(PurePosixPath("people", safe_name(person)) for person in people),
        *(PurePosixPath(status) for status in sorted(statuses)),
    ]


class Sorter:
    """Sorts photos into a folder as they are done.

    how: `link` makes symbolic links to the photos, `hardlink` second names for the same files (same disk only), `copy`
    copies.
    """

    def __init__(self, folder: str | os.PathLike[str], how: How = "link") -> None:
        self._folder = Path(folder)
        self._how = how
        with _as_output_error(self._folder):
            self._placed, self._begun, self._torn = _read_manifest(self._folder / _MANIFEST)

    def add(
        self,
        record: Record,
        source: str | os.PathLike[str] | None = None,
        data: bytes | None = None,
    ) -> list[Path]:
        """Put one photo where it belongs and return its places, those that it had already among them.

        source: the photo's file where that is not the record's path. data: its bytes, for a photo that is no file of its
        own (in an archive); it is written as a copy. Photos of the same name are numbered. Raises InputError when the
        photo is gone, OutputError when the system refuses.
        """
        with _as_output_error(self._folder):
            return self._sort(record, source, data)

    def tidy(self) -> None:
        """Take away the links to photos that were deleted. A photo whose folder is gone too may be on a disk that is not there."""
        with _as_output_error(self._folder):
            for photo, places in list(self._placed.items()):
                dead = [name for name, (how, what) in places.items() if self._is_dead(name, how, what)]
                if dead and Path(photo).parent.is_dir():
                    for name in dead:
                        self._take_away(self._folder / name)
                    self._placed[photo] = {name: place for name, place in places.items() if name not in dead}
                    self._list({"photo": photo, "places": self._placed[photo]})

    def _is_dead(self, name: str, how: str, what: str) -> bool:
        place = self._folder / name
        return how == "link" and _what(place, how) == what and is_gone(os.path.realpath(place))

    def _sort(
        self,
        record: Record,
        source: str | os.PathLike[str] | None,
        data: bytes | None,
    ) -> list[Path]:
        folders = folders_of(record)
        original = Path(source if source is not None else record["path"])
        if folders and data is None and not original.is_file():
            raise InputError(f"{printable(original)}: no such file to sort; run the batch where its photos are")
        photo = os.path.abspath(original)  # noqa: PTH100
        # What a killed run had placed, but not listed yet, is ours as well.
        begun = {name: how for name, how in self._begun.pop(photo, {}).items() if self._holds(name, original, data)}
        left = {name: [made_how, _what(self._folder / name, made_how)] for name, made_how in begun.items()}
        before = {**left, **self._placed.get(photo, {})}
        ours = {name for name, (made_how, what) in before.items() if _what(self._folder / name, made_how) == what}
        how = "copy" if data is not None else self._how
        for name in [name for name in ours if before[name][0] != how or not self._holds(name, original, data)]:
            (self._folder / name).unlink()
            ours.remove(name)
        places = [self._place(self._folder / folder, original, data, ours, photo) for folder in folders]
        after: dict[str, list[str]] = {}
        for place, made in places:
            name = place.relative_to(self._folder).as_posix()
            if made or name in ours:
                after[name] = [how, _what(place, how)]
        for name in ours - after.keys():
            self._take_away(self._folder / name)
        if after != self._placed.get(photo, {}):
            self._list({"photo": photo, "places": after})
            self._placed[photo] = after
        return [place for place, _ in places]

    def _list(self, entry: Mapping[str, Any]) -> None:
        """Append a line to the list of what was placed; one that was cut off by a kill is ended first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _MANIFEST).open("a", encoding="ascii") as file:
            file.write("\n" * self._torn + json.dumps(entry) + "\n")
        self._torn = False

    def _holds(self, name: str, original: Path, data: bytes | None) -> bool:
        return self._is(self._folder / name, original, data)

    def _take_away(self, place: Path) -> None:
        """Remove what was placed, and the person's folder when nothing is left in it."""
        place.unlink()
        if not any(place.parent.iterdir()):
            place.parent.rmdir()

    def _place(self, folder: Path, original: Path, data: bytes | None, ours: set[str], photo: str) -> tuple[Path, bool]:
        """Return the photo's place in a folder, and whether it was made now."""
        for name in ours:
            if (self._folder / name).parent == folder:
                return self._folder / name, False
        stem, suffix = (original.stem, original.suffix) if data is None else (safe_name(original.stem), original.suffix)
        number = 1
        while True:
            place = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
            if not os.path.lexists(place):
                how = "copy" if data is not None else self._how
                self._list({"photo": photo, "begun": [place.relative_to(self._folder).as_posix(), how]})
                self._make(place, original, data)
                return place, True
            if self._is(place, original, data):
                return place, False
            number += 1

    def _is(self, place: Path, original: Path, data: bytes | None) -> bool:
        """Say whether a place holds this photo already."""
        if data is None and self._how == "link":
            return place.is_symlink() and os.path.realpath(place) == os.path.realpath(original)
        if not place.is_file():
            return False
        if data is None and place.samefile(original):
            return True
        if data is None:
            return filecmp.cmp(place, original, shallow=False)
        return place.stat().st_size == len(data) and place.read_bytes() == data

    def _make(self, place: Path, original: Path, data: bytes | None) -> None:
        if data is not None or self._how == "copy":
            with atomic_path(place) as temporary:
                if data is not None:
                    temporary.write_bytes(data)
                else:
                    shutil.copyfile(original, temporary)
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if self._how == "link":
                place.symlink_to(original.resolve())
            else:
                place.hardlink_to(original.resolve())
        except OSError as error:
            raise OutputError(
                f"{printable(place)}: cannot be linked ({error.strerror}); sort by copies instead"
            ) from error


@contextlib.contextmanager
def _as_output_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = printable(os.fsdecode(error.filename) if error.filename else folder)
        raise OutputError(
            f"{where}: cannot be sorted ({error.strerror}); check permissions, or choose another folder"
        ) from error


def _what(place: Path, how: str) -> str:
    """Say what lies at a place, so that a change is noticed; empty when nothing does. A hard link changes with its photo."""
    try:
        if place.is_symlink():
            return f"link:{os.fspath(place.readlink())}"
        info = place.stat()
    except OSError:
        return ""
    if how == "hardlink":
        return f"inode:{info.st_dev}:{info.st_ino}"
    return f"file:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}"


def _read_manifest(path: Path) -> tuple[dict[str, dict[str, list[str]]], dict[str, dict[str, str]], bool]:
    """Return the places of each photo, those that were begun and not listed (place to how), and whether the last line was cut off.

    A line that was not written whole, or not by us, is left out.
    """
    placed: dict[str, dict[str, list[str]]] = {}
    begun: dict[str, dict[str, str]] = {}
    text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
    for line in text.split("\n")[:-1]:
        try:
            entry = json.loads(line)
            photo = entry["photo"]
            if "begun" in entry:
                name, how = entry["begun"]
                if ".." not in PurePosixPath(name).parts:
                    begun.setdefault(photo, {})[name] = how
                continue
            places = {name: what for name, what in entry["places"].items() if ".." not in PurePosixPath(name).parts}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        begun.pop(photo, None)
        placed[photo] = places
    return placed, begun, bool(text) and not text.endswith("\n")
