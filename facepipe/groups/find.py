"""Searches: which photos show these people together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from facepipe.catalog.catalog import Catalog
from facepipe.errors import UsageError
from facepipe.gallery.names import did_you_mean, meant
from facepipe.groups.pile import Pile
from facepipe.groups.values import FaceKey
from facepipe.groups.view import View

_DAY = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What photos are searched for; see `Groups.find`."""

    with_: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    unknown: bool = False
    group: int | None = None

    def __post_init__(self) -> None:
        for day in (self.since, self.until):
            if day is not None and not _DAY.fullmatch(day):
                raise UsageError(
                    f"{day!r} is not a date: give a year, a month or a day, such as 2019, 2019-07 or 2019-07-04"
                )

    def takes(self, people: set[str], taken: str | None, unknown: bool) -> bool:
        """Say whether a photo is wanted. people: who is in it. unknown: somebody else is, too."""
        if self.since is not None and (taken is None or taken[: len(self.since)] < self.since):
            return False
        if self.until is not None and (taken is None or taken[: len(self.until)] > self.until):
            return False
        return people.issuperset(self.with_) and people.isdisjoint(self.without) and (unknown or not self.unknown)


def search(catalog: Catalog, view: View, names: Sequence[str | None], wanted: Wanted) -> Iterator[str]:
    """Yield the paths of photos that are wanted. names: of each face of the pile, who it is known to be, None: nobody."""
    for photo in matches(view, names, wanted):
        yield from catalog.paths_of(view.pile.contents[photo])


def matches(view: View, names: Sequence[str | None], wanted: Wanted) -> Iterator[int]:
    """Yield the photos of the pile that are wanted. names: as for `search`."""
    pile = view.pile
    who = people_of(view, names)
    there = {name for name in who if name is not None}
    with_, without = (tuple(meant(name, there) for name in some) for some in (wanted.with_, wanted.without))
    for asked in (*with_, *without):
        if asked not in there:
            hint = did_you_mean(asked, there)
            raise UsageError(f"nobody named {asked!r} is in these photos; facepipe gallery list shows the people{hint}")
    wanted = replace(wanted, with_=with_, without=without)
    people: dict[int, set[str]] = defaultdict(set)
    unknown: set[int] = set()
    for photo, name, sure in zip(pile.photos.tolist(), who, pile.sure.tolist(), strict=True):
        if name is not None:
            people[photo].add(name)
        elif sure:
            unknown.add(photo)
    of_group = None if wanted.group is None else {int(pile.photos[row]) for row in view.members[wanted.group]}
    for photo in range(len(pile.contents)):
        fits = wanted.takes(people[photo], pile.taken[photo], photo in unknown)
        if fits and (of_group is None or photo in of_group):
            yield photo


def people_of(view: View, names: Sequence[str | None]) -> list[str | None]:
    """Return who each face is: as the user said, else as it is known."""
    who: list[str | None] = []
    for row, name in enumerate(names):
        if row in view.whose:
            who.append(view.persons.get(view.whose[row]))
        else:
            who.append(None if view.denies(row, name) else name)
    return who


def names_of_records(catalog: Catalog, pile: Pile) -> tuple[list[str | None], list[float | None]]:
    """Return who each face is known to be by the catalog's results, and the probability."""
    names: list[str | None] = [None] * len(pile)
    probabilities: list[float | None] = [None] * len(pile)
    for content, record in catalog.named():
        for number, face in enumerate(record["faces"]):
            row = pile.row(FaceKey(content, number))
            if row is not None and face["status"] == "known":
                names[row], probabilities[row] = face["person"], face["probability"]
    return names, probabilities
