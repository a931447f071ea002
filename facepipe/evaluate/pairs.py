"""Pair lists of a verification: LFW's pairs.txt, or a CSV. Nothing here opens a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import InputError
from facepipe.files.atomic import is_file, is_folder
from facepipe.files.csvread import read_lines, read_table
from facepipe.types import Int64

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
    a: Int64
    b: Int64
    same: NDArray[np.bool_]
    people: Int64
    fold: Int64
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
    a, b, same = np.asarray(rows, np.int64).T
    return PairList(found, a, b, same > 0, np.asarray(owners, np.int64), np.arange(len(rows)) // (2 * size))


def _lfw_photo(images: Path, person: str, number: int) -> Path:
    wanted = images / person / f"{person}_{number:04d}.jpg"
    if is_file(wanted):
        return wanted
    others = sorted(wanted.parent.glob(f"{wanted.stem}.*")) if is_folder(wanted.parent) else []
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
        if not is_file(photo):
            raise InputError(f"{photo}: is named in the pairs, but does not exist; check --images")
    a, b, same = np.asarray(rows, np.int64).T
    people = _components(len(photos), [(x, y) for x, y, together in rows if together])
    deal = np.random.default_rng(seed).permutation(int(people.max()) + 1) % max(2, folds)
    return PairList(found, a, b, same > 0, people, deal[people[a]], tuple(groups) if any(groups) else ())


def _components(count: int, joined: Sequence[tuple[int, int]]) -> Int64:
    """Number the connected components of a graph with `count` nodes: who is the same person as whom."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.reshape(np.asarray(joined, np.int64), (-1, 2)).T
    edges = coo_array((np.ones(len(first)), (first, second)), (count, count))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)
