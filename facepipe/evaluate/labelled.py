"""People and the embeddings of all their photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facepipe.evaluate.photo_set import PhotoSet
from facepipe.evaluate.protocols import PeopleSet
from facepipe.evaluate.searching import Index


@dataclass(frozen=True, slots=True, eq=False)
class PeopleFaces:
    """The embedded photos of a PeopleSet: `owner` int64 (n,) is the person of each photo, `number` its place there."""

    people: PeopleSet
    photos: PhotoSet
    owner: Index
    number: Index

    def rows(self, chosen: Sequence[Sequence[int]]) -> Index:
        """Return the rows of chosen photo numbers for each person."""
        wanted = {(person, number) for person, numbers in enumerate(chosen) for number in numbers}
        pairs = zip(self.owner.tolist(), self.number.tolist(), strict=True)
        return np.asarray([row for row, pair in enumerate(pairs) if pair in wanted], np.int64)

    def named_photos(self, rows: Iterable[int]) -> list[tuple[Path, str]]:
        """Return path and person of rows."""
        return [(self.photos.paths[row], self.people.people[int(self.owner[row])]) for row in rows]


def faces_of(people: PeopleSet, photos: PhotoSet) -> PeopleFaces:
    """Join people and the embeddings of all their photos in order."""
    owner = np.repeat(np.arange(len(people)), [len(p) for p in people.photos]).astype(np.int64)
    number = np.concatenate([np.arange(len(p)) for p in people.photos]).astype(np.int64)
    if len(owner) != len(photos):
        raise ValueError(f"faces_of: expected {len(owner)} photos, got {len(photos)}")
    return PeopleFaces(people, photos, owner, number)
