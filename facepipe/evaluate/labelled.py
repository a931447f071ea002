"""People and the embeddings of all their photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facepipe.evaluate.photo_set import PhotoSet
from facepipe.evaluate.splits import PeopleSet
from facepipe.types import Int64


@dataclass(frozen=True, slots=True, eq=False)
class PeopleFaces:
    """The embedded photos of a PeopleSet, person by person. owner: int64 (n,), whose each photo is."""

    people: PeopleSet
    photos: PhotoSet
    owner: Int64

    def rows(self, chosen: Sequence[Sequence[int]]) -> Int64:
        """Return the rows of chosen photo numbers for each person."""
        first = np.searchsorted(self.owner, np.arange(len(self.people)))
        return np.asarray([first[person] + n for person, numbers in enumerate(chosen) for n in numbers], np.int64)

    def named_photos(self, rows: Iterable[int]) -> list[tuple[Path, str]]:
        """Return path and person of rows."""
        return [(self.photos.paths[row], self.people.people[int(self.owner[row])]) for row in rows]


def faces_of(people: PeopleSet, photos: PhotoSet) -> PeopleFaces:
    """Join people and the embeddings of all their photos in order."""
    owner = np.repeat(np.arange(len(people)), [len(own) for own in people.photos])
    if len(owner) != len(photos):
        raise ValueError(f"faces_of: expected {len(owner)} photos, got {len(photos)}")
    return PeopleFaces(people, photos, owner)


def faces_of_sets(sets: Sequence[PeopleSet], embed: Callable[[Sequence[Path]], PhotoSet]) -> list[PeopleFaces]:
    """Embed the photos of several sets in one go."""
    photos = embed([path for people in sets for path in people.all_photos])
    ends = np.cumsum([len(people.all_photos) for people in sets])
    return [
        faces_of(people, photos.take(range(end - len(people.all_photos), end)))
        for people, end in zip(sets, ends, strict=True)
    ]
