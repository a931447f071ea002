"""Which photos are to be enrolled, whose they are, and what becomes of each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from facepipe.errors import InputError, UsageError
from facepipe.gallery.rows import normal_name
from facepipe.images import IMAGE_SUFFIXES, find_images


class EnrollStatus(StrEnum):
    """What became of a photo."""

    ENROLLED = "enrolled"
    ALREADY = "already"  # this very file is enrolled for this person
    DUPLICATE = "duplicate"  # nearly the same face is enrolled for this person
    UNREADABLE = "unreadable"
    NO_FACE = "no-face"
    AMBIGUOUS = "ambiguous"  # several faces, and nothing says which
    POOR = "poor"
    LOOKALIKE = "lookalike"  # more like somebody else who is enrolled
    REFUTED = "refuted"  # a face that was said not to be this person


#: The photo's face is in the gallery.
GOOD = frozenset({EnrollStatus.ENROLLED, EnrollStatus.ALREADY, EnrollStatus.DUPLICATE})


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of a person, to be enrolled."""

    path: Path
    person: str


@dataclass(frozen=True, slots=True)
class EnrollOutcome:
    """What became of a photo, and why; ids of the faces that were enrolled."""

    path: str
    person: str
    status: EnrollStatus
    reason: str = ""
    face_ids: tuple[int, ...] = ()


def collect_photos(roots: Sequence[Path], name: str | None) -> tuple[list[Photo], list[EnrollOutcome]]:
    """Return the photos that `roots` name, and what could not be assigned to anybody.

    With a name everything is that person's. Without, a folder of folders holds a person in each (photos at any depth),
    a folder of photos is one person, and a .csv file has lines `path,name`, paths relative to it. UsageError for a
    photo without a name, InputError for what cannot be read or holds nothing.
    """
    photos: list[Photo] = []
    astray: list[EnrollOutcome] = []
    for root in roots:
        if name is not None:
            photos += [Photo(path, normal_name(name)) for path in find_images([root])]
        elif root.is_dir():
            _collect_folder(root, photos, astray)
        elif root.suffix.lower() == ".csv":
            photos += _read_csv(root)
        elif not root.exists():
            raise InputError(f"{root}: no such file or folder; check the path")
        else:
            raise UsageError(f"{root}: whose face is this? Give --name NAME, or a folder named like the person")
    if not photos and not astray:
        raise InputError(f"{', '.join(map(str, roots))}: no photos found; expected PERSON/*.jpg, or --name and photos")
    return photos, astray


def _collect_folder(root: Path, photos: list[Photo], astray: list[EnrollOutcome]) -> None:
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{root}: the folder cannot be read ({error.strerror}); check its permissions") from error
    folders = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES]
    if not folders:
        photos += [Photo(path, normal_name(root.resolve().name)) for path in loose]
        return
    for folder in folders:
        photos += [Photo(path, normal_name(folder.name)) for path in find_images([folder])]
    reason = "lies in no person's folder: move it into one, or enrol it with --name"
    astray += [EnrollOutcome(str(path), "", EnrollStatus.UNREADABLE, reason) for path in loose]


def _read_csv(path: Path) -> list[Photo]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); expected lines path,name") from error
    if rows and [cell.strip().lower() for cell in rows[0][:2]] == ["path", "name"]:
        rows = rows[1:]
    photos = []
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise InputError(f"{path}: entry {number} is not path,name: {','.join(row)[:60]!r}")
        photos.append(Photo(path.parent / row[0].strip(), normal_name(row[1])))
    return photos
