"""Which photos are to be enrolled, whose they are, and what becomes of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from facepipe.errors import InputError, UsageError
from facepipe.files.csvread import read_csv
from facepipe.gallery.names import new_name
from facepipe.images import IMAGE_SUFFIXES, find_images
from facepipe.images.inputs import Source


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


#: The photo's face is in the gallery.
GOOD = frozenset({EnrollStatus.ENROLLED, EnrollStatus.DOUBTFUL, EnrollStatus.ALREADY, EnrollStatus.DUPLICATE})


@dataclass(frozen=True, slots=True)
class EnrollOutcome:
    """What became of a photo, and why; ids of the faces that were enrolled."""

    path: str
    person: str
    status: EnrollStatus
    reason: str = ""
    face_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of a person, to be enrolled. picture: where it is in memory; its path is then only what it is called."""

    path: Path
    person: str
    picture: Source | None = None

    def outcome(self, status: EnrollStatus, reason: str = "", face_ids: tuple[int, ...] = ()) -> EnrollOutcome:
        """Return what became of it."""
        return EnrollOutcome(str(self.path), self.person, status, reason, face_ids)


def collect_photos(roots: Sequence[Path], name: str | None) -> tuple[list[Photo], list[EnrollOutcome]]:
    """Return the photos that `roots` name, and what could not be read or assigned to anybody.

    With a name everything is that person's. Without, a folder of folders holds a person in each (photos at any depth),
    a folder of photos is one person, and a .csv file has lines `path,name`, paths relative to it. One folder that cannot
    be read, or whose name cannot be a person's, stops nothing. UsageError for a photo without a name, InputError when
    there is nothing to enrol or a CSV file is not as it should be.
    """
    intake = _Intake()
    given = None if name is None else new_name(name)
    for root in roots:
        if given is not None:
            intake.search(root, given)
        elif root.is_dir():
            intake.folder(root)
        elif root.suffix.lower() == ".csv":
            intake.table(root)
        elif not os.path.lexists(root):
            intake.leave_out(root, EnrollStatus.UNREADABLE, "no such file or folder; check the path")
        else:
            raise UsageError(f"{root}: whose face is this? Give --name NAME, or a folder named like the person")
    if not intake.photos and len(intake.astray) == 1:
        raise InputError(f"{intake.astray[0].path}: {intake.astray[0].reason}")
    if not intake.photos and not intake.astray:
        raise InputError(f"{', '.join(map(str, roots))}: no photos found; expected PERSON/*.jpg, or --name and photos")
    return intake.photos, intake.astray


class _Intake:
    """What was found so far."""

    def __init__(self) -> None:
        self.photos: list[Photo] = []
        self.astray: list[EnrollOutcome] = []

    def leave_out(self, path: Path, status: EnrollStatus, reason: str, person: str = "") -> None:
        """Note what will not be enrolled."""
        self.astray.append(EnrollOutcome(str(path), person, status, reason))

    def search(self, place: Path, person: str) -> None:
        """Take all photos of a file or folder for this person."""

        def failed(error: InputError) -> None:
            path, _, reason = str(error).partition(": ")
            self.leave_out(Path(path), EnrollStatus.UNREADABLE, reason, person)

        self.photos += [Photo(path, person) for path in find_images([place], on_error=failed)]

    def named(self, place: Path, name: str) -> None:
        """Take all photos of a folder that is named like its person."""
        try:
            person = new_name(name)
        except UsageError as error:
            self.leave_out(place, EnrollStatus.NO_NAME, f"{error}: rename the folder")
        else:
            self.search(place, person)

    def folder(self, root: Path) -> None:
        """Take a folder of people's folders, or one person's."""
        try:
            entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            reason = f"the folder cannot be searched ({error.strerror}); check its permissions"
            self.leave_out(root, EnrollStatus.UNREADABLE, reason)
            return
        folders = [entry for entry in entries if entry.is_dir()]
        loose = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES]
        if not folders:
            if loose:
                self.named(root, root.resolve().name)
            return
        for folder in folders:
            self.named(folder, folder.name)
        for path in loose:
            reason = "is not in a person's folder: move it into one, or enrol it with --name"
            self.leave_out(path, EnrollStatus.NO_NAME, reason)

    def table(self, path: Path) -> None:
        """Take the photos that a CSV file names. InputError when it is not such a file."""
        rows = [row for row in read_csv(path, "path,name") if any(cell.strip() for cell in row.cells)]
        if rows and [cell.strip().lower() for cell in rows[0].cells[:2]] == ["path", "name"]:
            rows = rows[1:]
        for row in rows:
            cells = [cell.strip() for cell in row.cells]
            if len(cells) < 2 or not cells[0] or not cells[1]:
                raise InputError(f"{path}, line {row.line}: expected path,name, got {','.join(cells)[:60]!r}")
            photo = path.parent / cells[0]
            try:
                self.photos.append(Photo(photo, new_name(cells[1])))
            except UsageError as error:
                self.leave_out(photo, EnrollStatus.NO_NAME, f"{path}, line {row.line}: {error}")
