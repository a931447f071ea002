"""The groups of a pile, opened: brought up to date with catalog and gallery, and looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from facepipe.catalog.catalog import Catalog
from facepipe.errors import UsageError
from facepipe.gallery.names import normal_name
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.storage.disk import DATABASE_NAME
from facepipe.gallery.store import GalleryStore
from facepipe.groups import answers, find, persons
from facepipe.groups.pile import Pile, read_pile
from facepipe.groups.regroup import regroup
from facepipe.groups.said import Said, photos_with_names
from facepipe.groups.store import GroupsFile, groups_path
from facepipe.groups.suggest import Likely, People
from facepipe.groups.threshold import limit_for
from facepipe.groups.thumbnails import thumbnail_of
from facepipe.groups.values import FaceKey, Group, Grouped, GroupFace, PersonFace, Suggested
from facepipe.groups.view import View
from facepipe.models.registry import get_record
from facepipe.predict.decision import PROBABLE
from facepipe.records import Record
from facepipe.types import DecideOptions, Float32


class OpenGroups:
    """What there is to see of groups, and `refresh`, which makes them; `Groups` adds what the user says of them."""

    def __init__(
        self,
        catalog: str | PathLike[str],
        gallery: str | PathLike[str] | GalleryStore | None = None,
        *,
        model: str | None = None,
    ) -> None:
        """Open the groups of a catalog, which may be being scanned.

        gallery: whose people are suggested, and where names go; a folder where there is none yet gets one with the first name. None:
        nobody is suggested, and nobody can be named. model: of the vectors, to be certain; None: that of the catalog.
        Errors: InputError, OutputError; GalleryModelError when catalog and gallery do not belong together; GalleryError.
        """
        self._path = Path(catalog)
        self._catalog = Catalog(self._path)
        if model is not None and self._catalog.model not in ("", get_record(model).fingerprint):
            raise UsageError(f"{self._path}: its faces were described by {self._catalog.model}, not by {model}")
        self._gallery = gallery if isinstance(gallery, GalleryStore) else None
        self._folder = None if gallery is None or isinstance(gallery, GalleryStore) else Path(gallery)
        if self._folder is not None and os.path.lexists(self._folder / DATABASE_NAME):
            self._gallery = GalleryStore.open(self._folder, Secret.from_environment())
        if self._gallery is not None and self._catalog.model:
            self._gallery.require_model(self._catalog.model)
        self._file = GroupsFile(groups_path(self._path))
        self._pile: Pile | None = None
        self._view: View | None = None
        self._compared: tuple[tuple[int, DecideOptions], People] | None = None
        self._found: tuple[People, Pile, Likely] | None = None
        self._repair()

    def close(self) -> None:
        """Close it."""
        self._catalog.close()
        self._file.close()
        if self._folder is not None and self._gallery is not None:  # a store that was given stays open
            self._gallery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repair(self) -> None:
        """Complete answers whose process was killed, and call people what the gallery calls them now."""
        if self._gallery is None or not self._gallery.database.writable:
            return
        if self._file.value("SELECT 1 FROM answer WHERE NOT done LIMIT 1") is not None:
            with self._gallery.database.lock("name"):  # whoever is at it has the lock
                for (number,) in self._file.rows("SELECT number FROM answer WHERE NOT done ORDER BY number"):
                    answers.complete(self._file, self.pile, self._gallery, number)
        persons.sync(self._file, self._gallery)  # afterwards: a rename that was half done is no rename by somebody else

    @property
    def pile(self) -> Pile:
        """The faces, as of the last refresh."""
        if self._pile is None:
            self._pile = read_pile(self._catalog)
        return self._pile

    @property
    def _shown(self) -> View:
        if self._view is None or self._view.version != self._file.version or self._view.pile is not self.pile:
            self._view = View(self._file, self.pile, self._view)
        return self._view

    def _people(self) -> People | None:
        if self._gallery is None:
            return None
        state = self._gallery.generation(), self._catalog.options
        if self._compared is None or self._compared[0] != state:
            self._compared = state, People(self._gallery, state[1])
        return self._compared[1]

    def _likely(self) -> Likely | None:
        """Return who all faces most likely are; of a large pile that takes a moment, and is asked for where it is needed alone."""
        people, pile = self._people(), self.pile
        if people is None:
            return None
        if self._found is None or self._found[0] is not people or self._found[1] is not pile:
            self._found = people, pile, people.likely(pile)
        return self._found[2]

    def _names(self) -> tuple[list[str | None], list[float | None]]:
        """Return who each face is known to be, as a batch would say it now, and the probability."""
        pile, likely = self.pile, self._likely()
        if likely is None:
            return find.names_of_records(self._catalog, pile)
        known = likely.known.tolist()
        names = [likely.name(row) if known[row] else None for row in range(len(pile))]
        return names, [value if yes else None for value, yes in zip(likely.probability.tolist(), known, strict=True)]

    @property
    def version(self) -> int:
        """Grows with every answer and every refresh that changed something, by any process."""
        return self._file.version

    def refresh(self, *, all: bool = False, threshold: float | None = None, keep: bool = False) -> Grouped:
        """Group what is new in the catalog; names and decisions stay.

        all: faces that are known already as well. threshold: mean cosine down to which groups are joined, -1..1; None: as measured
        for the network and so many groups. Another one than last time groups anew what nobody said anything of. keep: both as they
        were asked for last.
        """
        self._catalog.close()
        self._catalog = Catalog(self._path)
        self._pile = read_pile(self._catalog)
        if keep:
            all, threshold = self._file.state("asked_all") == "True", self.asked
        limit = limit_for(self.pile.model) if threshold is None else threshold
        asked, before = repr(threshold), self._file.state("asked")
        anew = (before is not None and before != asked) or self._file.state("model") not in (None, self.pile.model)
        found = regroup(self._file, self.pile, lambda: self._known(all), limit, anew=anew)
        if (before, self._file.state("asked_all")) != (asked, repr(all)):
            with self._file.write() as db:
                db.execute("INSERT OR REPLACE INTO state VALUES ('asked', ?), ('asked_all', ?)", (asked, repr(all)))
        return found

    def _known(self, all: bool) -> Float32:
        """Return which faces are somebody's by now, and so in no group; see `regroup`. all: none."""
        names, view, likely = self._names()[0], self._shown, self._likely()
        cosines = np.full(len(names), np.inf, np.float32) if likely is None else likely.cosines[:, 0]
        known = np.array([name is not None for name in names], bool) & (not all)
        for row, person in view.denied:
            known[row] &= names[row] != view.persons.get(person)
        return np.where(known, cosines, np.float32(-np.inf))

    @property
    def asked(self) -> float | None:
        """The threshold that was asked for last; None: as measured."""
        found = self._file.state("asked")
        return None if found in (None, "None") else float(found)

    @property
    def threshold(self) -> float | None:
        """The mean cosine down to which groups were joined; None before the first refresh."""
        found = self._file.state("threshold")
        return None if found is None else float(found)

    def table(self, *, state: str | None = "open") -> list[Group]:
        """Return the groups, new ones first, then by size. state: `open`, `named`, `ignored`, `skipped`; None: all."""
        view = self._shown
        ids = view.ids(state)
        return [view.group(number, who) for number, who in zip(ids, self._suggested(ids), strict=True)]

    def _suggested(self, ids: Sequence[int]) -> list[tuple[str, float] | None]:
        view, people = self._shown, self._people()
        if people is None or not ids:
            return [None] * len(ids)
        return people.groups(np.stack([view.mean(number) for number in ids]))

    def group(self, id: int) -> Group:
        """Return one group."""
        self._shown.require(id)
        return self._shown.group(id, self._suggested([id])[0])

    def faces(self, id: int, start: int = 0, count: int | None = None) -> list[GroupFace]:
        """Return a group's faces, surest first, those that were put out of it last."""
        self._shown.require(id)
        return self._shown.faces(id)[start : None if count is None else start + count]

    def thumbnail(self, key: FaceKey) -> bytes | None:
        """Return a face as JPEG, None when its photo is gone and no thumbnail was kept."""
        return self._catalog.thumbnail(key.content, key.number) or thumbnail_of(self.pile, key)

    def suggestions(self, start: int = 0, count: int = 50) -> list[Suggested]:
        """Return faces that are probably a known person's, the surest first."""
        likely, view, pile = self._likely(), self._shown, self.pile
        if likely is None:
            return []
        ignored = {row for number in view.ids("ignored") for row in view.members[number]}
        some = np.flatnonzero((likely.probability >= PROBABLE) & ~likely.known)
        rows = [
            row
            for row in some[np.argsort(-likely.probability[some], kind="stable")].tolist()
            if row not in view.whose and row not in ignored and not view.denies(row, likely.name(row))
        ]
        return [
            Suggested(
                pile.key(row), pile.path(row), pile.box(row), likely.name(row) or "", float(likely.probability[row])
            )
            for row in rows[start : start + count]
        ]

    def person(self, name: str) -> list[PersonFace]:
        """Return all faces that are this person's, enrolled, confirmed or recognised: doubtful ones first."""
        return persons.faces(normal_name(name), self._shown, self._gallery, *self._names(), self._likely())

    def records(self) -> Iterator[tuple[str, Record]]:
        """Yield path and record of each photo with everybody who is named in it: known by now, named or confirmed, and not denied.

        A record has `path`, `width`, `height`, `error`, and of each face `box`, `status` and `person`. Archives are left out.
        """
        return photos_with_names(self._catalog, self.pile, self._names()[0], Said(self._path))

    def find(
        self,
        *,
        with_: Sequence[str] = (),
        without: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        unknown: bool = False,
        group: int | None = None,
    ) -> Iterator[str]:
        """Yield the paths of photos in which all of these people are, and none of those, in the order of the input.

        since, until: first and last day, month or year in which it was taken, as 2019, 2019-07 or 2019-07-04; photos that do not say
        when are left out then. unknown: somebody is in it whom nobody has named. group: a face of this group is in it.
        """
        if group is not None:
            self._shown.require(group)
        wanted = find.Wanted(
            tuple(map(normal_name, with_)), tuple(map(normal_name, without)), since, until, unknown, group
        )
        return find.search(self._catalog, self._shown, self._names()[0], wanted)
