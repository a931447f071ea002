"""Which photos are to be enrolled, whose they are, and what becomes of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from facepipe.errors import InputError, UsageError
from facepipe.files.atomic import is_folder
from facepipe.files.csvread import read_csv
from facepipe.gallery.names import new_name
from facepipe.images import Passing, find_images, is_left_out
from facepipe.images.inputs import Source
from facepipe.images.passing import LINKED, SYSTEM, Rules
from facepipe.types import Described


class EnrollStatus(StrEnum):
    """What became of a photo."""

    ENROLLED = "enrolled"
    ALREADY = "already"  # this very file is enrolled for this person
    DOUBTFUL = "doubtful"  # enrolled, although it looks like none of the person's other faces
    DUPLICATE = "duplicate"  # nearly the same face is enrolled for this person
    UNREADABLE = "unreadable"
    NO_NAME = "no-name"  # not in a person's folder, or the folder's name cannot be a person's
    NO_FACE = "no-face"
    AMBIGUOUS = "ambiguous"  # several faces, and nothing says which
    POOR = "poor"
    LOOKALIKE = "lookalike"  # more like somebody else who is enrolled
    REFUTED = "refuted"  # a face that was said not to be this person
    MIXED = "mixed"  # the photos under this name are of several people


#: The photo's face is in the gallery.
GOOD = frozenset({EnrollStatus.ENROLLED, EnrollStatus.DOUBTFUL, EnrollStatus.ALREADY, EnrollStatus.DUPLICATE})


@dataclass(frozen=True, slots=True)
class EnrollOutcome:
    """What became of a photo, and why; ids of the faces that were enrolled.

    rotate: degrees clockwise, 0, 90, 180 or 270, by which the photo must be turned to stand.
    """

    path: str
    person: str
    status: EnrollStatus
    reason: str = ""
    face_ids: tuple[int, ...] = ()
    rotate: int = 0


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of a person, to be enrolled.

    picture: where it is in memory; its path is then only what it is called. pick: returns which of its faces are the person's,
    where the photo itself says so.
    """

    path: Path
    person: str
    picture: Source | None = None
    pick: Callable[[Described], list[int]] | None = None

    def outcome(self, status: EnrollStatus, reason: str = "", face_ids: tuple[int, ...] = ()) -> EnrollOutcome:
        """Return what became of it."""
        return EnrollOutcome(str(self.path), self.person, status, reason, face_ids)


def collect_photos(
    roots: Sequence[Path], name: str | None, passing: Passing | None = None
) -> tuple[list[Photo], list[EnrollOutcome]]:
    """Return the photos that `roots` name, and what could not be read or assigned to anybody.

    With a name everything is that person's. Without, a folder of folders holds a person in each (photos at any depth),
    a folder of photos is one person, and a .csv file has lines `path,name`, paths relative to it. One folder that cannot
    be read, or whose name cannot be a person's, stops nothing. passing: what is passed over; it counts it. UsageError for a photo
    without a name, InputError when there is nothing to enrol or a CSV file is not as it should be.
    """
    given = None if name is None else new_name(name)
    passing = passing or Passing()
    found: list[Photo | EnrollOutcome] = []
    for root in roots:
        rules = passing.rules(str(root))
        found += _given(root, rules) if given is None else _search(root, given, rules)
    photos = [item for item in found if isinstance(item, Photo)]
    astray = [item for item in found if isinstance(item, EnrollOutcome)]
    if not photos and len(astray) == 1:
        raise InputError(f"{astray[0].path}: {astray[0].reason}")
    if not found:
        passed = f" (passed over: {told})" if (told := passing.told()) else ""
        raise InputError(
            f"{', '.join(map(str, roots))}: no photos found{passed}; expected PERSON/*.jpg, or --name and photos"
        )
    return photos, astray


def _given(root: Path, rules: Rules) -> Iterator[Photo | EnrollOutcome]:
    """Yield what a place holds that says itself whose photos they are."""
    if is_folder(root):
        yield from _folder(root, rules)
    elif root.suffix.lower() == ".csv":
        yield from _table(root)
    elif not os.path.lexists(root):
        yield EnrollOutcome(str(root), "", EnrollStatus.UNREADABLE, "no such file or folder; check the path")
    else:
        raise UsageError(f"{root}: whose face is this? Give --name NAME, or a folder named like the person")


def _search(place: Path, person: str, rules: Rules) -> Iterator[Photo | EnrollOutcome]:
    """Yield all photos of a file or folder as this person's."""
    failed: list[InputError] = []
    yield from (Photo(path, person) for path in find_images([place], on_error=failed.append, rules=rules, videos=True))
    for error in failed:
        path, _, reason = str(error).partition(": ")
        yield EnrollOutcome(path, person, EnrollStatus.UNREADABLE, reason)


def _named(place: Path, name: str, rules: Rules) -> Iterator[Photo | EnrollOutcome]:
    """Yield all photos of a folder that is named like its person."""
    try:
        person = new_name(name)
    except UsageError as error:
        yield EnrollOutcome(str(place), "", EnrollStatus.NO_NAME, f"{error}: rename the folder")
    else:
        yield from _search(place, person, rules)


def _folder(root: Path, rules: Rules) -> Iterator[Photo | EnrollOutcome]:
    """Yield the photos of a folder of people's folders, or of one person's."""
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        reason = f"the folder cannot be searched ({error.strerror}); check its permissions"
        yield EnrollOutcome(str(root), "", EnrollStatus.UNREADABLE, reason)
        return
    names = [entry.name for entry in entries]
    beside = Passing(rules.passing.exclude)
    folders, loose = _sorted_out(entries, beside.rules(str(root)).within(str(root), names))
    if loose and not folders:
        yield from _named(root, root.resolve().name, rules)
        return
    rules.passing.passed.update(beside.passed)
    rules = rules.within(str(root), names)
    for folder in folders:
        yield from _named(folder, folder.name, rules)
    reason = "is not in a person's folder: move it into one, or enrol it with --name"
    yield from (EnrollOutcome(str(path), "", EnrollStatus.NO_NAME, reason) for path in loose)


def _sorted_out(entries: Sequence[Path], rules: Rules) -> tuple[list[Path], list[Path]]:
    """Return the people's folders and the photos that lie beside them; the rest is counted as passed over."""
    folders, loose = [], []
    beside = rules.beside(str(entries[0].parent), [entry.name for entry in entries]) if entries else frozenset()
    for entry in entries:
        is_folder = entry.is_dir()
        if is_left_out(entry.name):
            rules.passing.passed[SYSTEM] += is_folder and not entry.name.startswith(".")
        elif rules.excludes(str(entry), folder=is_folder):
            continue
        elif is_folder and entry.is_symlink():
            rules.passing.passed[LINKED] += 1
        elif is_folder:
            folders.append(entry)
        elif rules.passing.take(entry.name, beside, videos=True):
            loose.append(entry)
    return folders, loose


def _table(path: Path) -> Iterator[Photo | EnrollOutcome]:
    """Yield the photos that a CSV file names. InputError when it is not such a file."""
    rows = [row for row in read_csv(path, "path,name") if any(cell.strip() for cell in row.cells)]
    header = [cell.strip().lower() for cell in rows[0].cells] if rows else []
    at, whose = 0, 1
    if {"path", "name"} <= set(header):
        at, whose = header.index("path"), header.index("name")
        rows = rows[1:]
    for row in rows:
        cells = [cell.strip() for cell in row.cells]
        if len(cells) <= max(at, whose) or not cells[at] or not cells[whose]:
            raise InputError(f"{path}, line {row.line}: expected path,name, got {','.join(cells)[:60]!r}")
        photo = path.parent / cells[at]
        try:
            yield Photo(photo, new_name(cells[whose]))
        except UsageError as error:
            yield EnrollOutcome(str(photo), "", EnrollStatus.NO_NAME, f"{path}, line {row.line}: {error}")
