"""Open-set splits of folder-per-person sets: who is enrolled, and which photos search. Nothing here opens a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from facepipe.errors import InputError, UsageError
from facepipe.files.csvread import read_table
from facepipe.images import find_images, is_left_out
from facepipe.images.passing import beside, is_looked_at


@dataclass(frozen=True, slots=True, eq=False)
class PeopleSet:
    """A folder-per-person set: names, and for each person its photos in sorted order."""

    people: tuple[str, ...]
    photos: tuple[tuple[Path, ...], ...]

    def __len__(self) -> int:
        return len(self.people)

    @property
    def all_photos(self) -> list[Path]:
        """The photos of everybody, person by person."""
        return [path for own in self.photos for path in own]


def read_people(root: Path) -> PeopleSet:
    """Read `root/PERSON/**/photo` (any depth below the person); InputError when there is no such folder or no photo."""
    return _read_set(root, "one folder for each person", lambda entry: _photos(entry) if entry.is_dir() else ())


def read_strangers(root: Path) -> PeopleSet:
    """Read people who are in no gallery: a folder is one person, and so is each photo that lies in `root` itself."""
    return _read_set(root, "photos of people who are not enrolled", _photos)


def _read_set(root: Path, wanted: str, photos_of: Callable[[Path], tuple[Path, ...]]) -> PeopleSet:
    """Read the people of a folder; photos_of: the photos of one of its entries, empty for what is not a person."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected {wanted}")
    entries = sorted(root.iterdir())
    twice = beside(entry.name for entry in entries)
    people = [(entry.name, photos) for entry in entries if entry.name not in twice and (photos := photos_of(entry))]
    if not people:
        raise InputError(f"{root}: holds no photos; expected {wanted}")
    return PeopleSet(tuple(name for name, _ in people), tuple(photos for _, photos in people))


def read_families(root: Path) -> list[PeopleSet]:
    """Read `root/FAMILY/MEMBER/photo`: the people of each family with two members or more."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected FAMILY/MEMBER/photos")
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not is_left_out(folder.name)]
    families = [
        read_people(folder)
        for folder in folders
        if sum(bool(_photos(member)) for member in folder.iterdir() if member.is_dir()) >= 2
    ]
    if not families:
        raise InputError(f"{root}: holds no family with two members; expected FAMILY/MEMBER/photos")
    return families


def _photos(entry: Path) -> tuple[Path, ...]:
    """Return the photos in a folder at any depth, in order; of a photo itself that one. Enrolment passes over the same."""
    if is_left_out(entry.name) or (entry.is_symlink() and entry.is_dir()):
        return ()
    if entry.is_dir():
        return tuple(sorted(find_images([entry])))
    return (entry,) if is_looked_at(entry.name) and entry.is_file() else ()


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One open-set trial: who is enrolled, with which of their photos, and which photos search.

    enrolled: indices of people, sorted. gallery[i], probes[i]: photo numbers of person i in its own list. A person who
    is not enrolled has only probes: these are searches by a stranger. No photo is in both.
    """

    enrolled: tuple[int, ...]
    gallery: tuple[tuple[int, ...], ...]
    probes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How people are split: by file pattern, or at random `enroll_count` photos each; `known` of them are enrolled."""

    enroll: str | None = None
    probe: str | None = None
    enroll_count: int = 3
    known: float = 1.0
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.known <= 1.0:
            raise UsageError(f"--known {self.known}: expected a share above 0 and up to 1")
        if self.repeats < 1 or self.enroll_count < 1:
            raise UsageError("--repeats and --enroll-count: expected at least 1")


def splits(people: PeopleSet, rule: SplitRule) -> Iterator[Split]:
    """Yield `rule.repeats` splits; the same seed gives the same splits. UsageError when a pattern fits no photo."""
    generator = np.random.default_rng(rule.seed)
    count = max(1, round(rule.known * len(people)))
    for _ in range(rule.repeats):
        enrolled = tuple(sorted(int(i) for i in generator.permutation(len(people))[:count]))
        gallery, probes = [], []
        for person, photos in enumerate(people.photos):
            chosen, rest = _divide(photos, rule, generator)
            gallery.append(chosen if person in enrolled else ())
            probes.append(rest)
        if not any(gallery):
            raise UsageError(f"--enroll {rule.enroll!r} matches no photo; patterns are compared with file names")
        if not any(probes):
            raise UsageError(f"--probe {rule.probe!r} leaves no photo to search with")
        yield Split(enrolled, tuple(gallery), tuple(probes))


def _divide(
    photos: Sequence[Path], rule: SplitRule, generator: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the photo numbers to enrol and to search with; the second never holds one of the first."""
    numbers = range(len(photos))
    if rule.enroll is None:
        order = [int(i) for i in generator.permutation(len(photos))]
        chosen = set(order[: min(rule.enroll_count, max(1, len(photos) - 1))])
    else:
        chosen = {i for i in numbers if fnmatch(photos[i].name, rule.enroll)}
    rest = [i for i in numbers if i not in chosen and (rule.probe is None or fnmatch(photos[i].name, rule.probe))]
    return tuple(sorted(chosen)), tuple(rest)


def read_groups(path: Path) -> dict[str, str]:
    """Read a CSV with path (or person) and group: a photo's file name or relative path, or a person's name."""
    rows = read_table(path, ("group",), "path,group or person,group")
    key = next((name for name in ("path", "person") if rows and name in rows[0][1]), None)
    if key is None:
        raise InputError(f"{path}, line 1: expected a header with path,group or person,group and rows below it")
    return {cells[key]: cells["group"] for _, cells in rows}
