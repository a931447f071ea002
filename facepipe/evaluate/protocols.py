"""Who is compared with whom: pair lists (LFW's pairs.txt, CSV) and open-set splits of folder-per-person sets.

Nothing here opens a picture: a protocol is names, labels and folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import InputError, UsageError
from facepipe.files.csvread import read_lines, read_table

Index = NDArray[np.int64]

#: What counts as a photo in an evaluation folder; anything else there (pairs.txt, notes) is left alone.
PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif", ".ppm"}
)
_TRUE, _FALSE = {"1", "true", "yes", "same", "y"}, {"0", "false", "no", "different", "n"}


@dataclass(frozen=True, slots=True, eq=False)
class PairList:
    """Pairs of photos.

    photos: each photo once.
    a, b: int64 (n,), indices into photos.
    same: bool (n,).
    people: int64 (photos,), index of the person that each photo shows.
    fold: int64 (n,), 0-based.
    groups: a name for each pair, or empty.
    """

    photos: tuple[Path, ...]
    a: Index
    b: Index
    same: NDArray[np.bool_]
    people: Index
    fold: Index
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.a)


def read_pairs(path: Path, images: Path, folds: int = 10, seed: int = 0) -> PairList:
    """Read LFW's `pairs.txt` or a CSV with the columns a, b, same and optionally group.

    images: the folder that names in the file are relative to. In LFW's format the folds are the file's own. For a CSV
    the people (photos joined by same = 1) are dealt into `folds` folds; a pair lies in the fold of photo a's person.
    InputError names the line that cannot be read, or the first photo that is not there.
    """
    lines = read_lines(path)
    head = lines[0].split() if lines else []
    if head and len(head) <= 2 and all(part.isdigit() for part in head):
        return _read_lfw(path, lines, images)
    return _read_csv(path, images, folds, seed)


def _read_lfw(path: Path, lines: list[str], images: Path) -> PairList:
    head = [int(part) for part in lines[0].split()]
    folds, size = head if len(head) == 2 else (1, head[0])
    names: dict[str, int] = {}
    photos: dict[tuple[str, int], int] = {}
    owners: list[int] = []

    def photo(person: str, number: str, line: int) -> int:
        if not number.isdigit():
            raise InputError(f"{path}, line {line}: expected a photo number, got {number!r}")
        key = (person, int(number))
        if key not in photos:
            photos[key] = len(photos)
            owners.append(names.setdefault(person, len(names)))
        return photos[key]

    rows: list[tuple[int, int, bool]] = []
    for line, text in enumerate(lines[1:], 2):
        text = text.rstrip("\r\n")
        parts = text.split("\t") if "\t" in text else text.split()
        if not parts:
            continue
        if len(parts) == 3:
            rows.append((photo(parts[0], parts[1], line), photo(parts[0], parts[2], line), True))
        elif len(parts) == 4:
            rows.append((photo(parts[0], parts[1], line), photo(parts[2], parts[3], line), False))
        else:
            raise InputError(f"{path}, line {line}: expected 3 or 4 fields (LFW's pairs.txt), got {len(parts)}")
    if len(rows) != folds * size * 2:
        raise InputError(
            f"{path}: the first line promises {folds * size * 2} pairs, the file holds {len(rows)}; is it complete?"
        )
    found = tuple(_lfw_photo(images, person, number) for person, number in photos)
    a, b, same = zip(*rows, strict=True)
    return PairList(
        found,
        np.asarray(a, np.int64),
        np.asarray(b, np.int64),
        np.asarray(same, np.bool_),
        np.asarray(owners, np.int64),
        np.arange(len(rows), dtype=np.int64) // (2 * size),
    )


def _lfw_photo(images: Path, person: str, number: int) -> Path:
    wanted = images / person / f"{person}_{number:04d}.jpg"
    if wanted.is_file():
        return wanted
    others = sorted(wanted.parent.glob(f"{wanted.stem}.*")) if wanted.parent.is_dir() else []
    if not others:
        raise InputError(f"{wanted}: is named in the pairs, but does not exist; check --images")
    return others[0]


def _read_csv(path: Path, images: Path, folds: int, seed: int) -> PairList:
    table = read_table(path, ("a", "b", "same"), "a,b,same[,group], or LFW's pairs.txt")
    photos: dict[str, int] = {}
    rows: list[tuple[int, int, bool]] = []
    groups: list[str] = []
    for line, cells in table:
        label = cells["same"].lower()
        if label not in _TRUE | _FALSE:
            raise InputError(f"{path}, line {line}: same is 1 or 0, got {cells['same']!r}")
        first, second = (photos.setdefault(cells[side], len(photos)) for side in ("a", "b"))
        rows.append((first, second, label in _TRUE))
        groups.append(cells.get("group", ""))
    if not rows:
        raise InputError(f"{path}: holds no pairs")
    found = tuple(images / name for name in photos)
    for photo in found:
        if not photo.is_file():
            raise InputError(f"{photo}: is named in the pairs, but does not exist; check --images")
    a, b, same = zip(*rows, strict=True)
    people = _components(len(photos), [(x, y) for x, y, together in rows if together])
    deal = np.random.default_rng(seed).permutation(int(people.max()) + 1) % max(2, folds)
    return PairList(
        found,
        np.asarray(a, np.int64),
        np.asarray(b, np.int64),
        np.asarray(same, np.bool_),
        people,
        np.asarray(deal[people[np.asarray(a, np.int64)]], np.int64),
        tuple(groups) if any(groups) else (),
    )


def _components(count: int, joined: Sequence[tuple[int, int]]) -> Index:
    """Number the connected components of a graph with `count` nodes: who is the same person as whom."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in joined:
        parent[root(first)] = root(second)
    numbers: dict[int, int] = {}
    return np.asarray([numbers.setdefault(root(node), len(numbers)) for node in range(count)], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class PeopleSet:
    """A folder-per-person set: names, and for each person its photos in sorted order."""

    people: tuple[str, ...]
    photos: tuple[tuple[Path, ...], ...]

    def __len__(self) -> int:
        return len(self.people)


def read_people(root: Path) -> PeopleSet:
    """Read `root/PERSON/**/photo` (any depth below the person); InputError when there is no such folder or no photo."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected one folder for each person")
    folders = [(folder.name, _photos(folder)) for folder in sorted(root.iterdir()) if folder.is_dir()]
    folders = [(name, photos) for name, photos in folders if photos]
    if not folders:
        raise InputError(f"{root}: holds no folder with photos; expected one folder for each person")
    return PeopleSet(tuple(name for name, _ in folders), tuple(photos for _, photos in folders))


def read_strangers(root: Path) -> PeopleSet:
    """Read people who are in no gallery: a folder is one person, and so is each photo that lies in `root` itself."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected photos of people who are not enrolled")
    people = [(entry.name, _photos(entry) if entry.is_dir() else (entry,)) for entry in sorted(root.iterdir())]
    people = [(name, photos) for name, photos in people if photos and all(map(_is_photo, photos))]
    if not people:
        raise InputError(f"{root}: holds no photos; expected photos of people who are not enrolled")
    return PeopleSet(tuple(name for name, _ in people), tuple(photos for _, photos in people))


def read_families(root: Path) -> dict[str, PeopleSet]:
    """Read `root/FAMILY/MEMBER/photo`: for each family with two members or more its people."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected FAMILY/MEMBER/photos")
    families: dict[str, PeopleSet] = {}
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and sum(member.is_dir() for member in folder.iterdir()) >= 2:
            families[folder.name] = read_people(folder)
    if not families:
        raise InputError(f"{root}: holds no family with two members; expected FAMILY/MEMBER/photos")
    return families


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()


def _photos(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in sorted(folder.rglob("*")) if _is_photo(path))


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
