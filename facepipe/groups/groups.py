"""The groups of a pile: `facepipe.Groups`, from faces that nobody is named in to people with names."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from facepipe.catalog.catalog import Catalog
from facepipe.errors import GalleryMissingError, UsageError
from facepipe.gallery.enrolment.enroller import enrolled_faces
from facepipe.gallery.names import meant, new_name, normal_name
from facepipe.gallery.people import find_person, names_by_id
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.storage.database import DATABASE_NAME
from facepipe.gallery.store import GalleryStore
from facepipe.groups import answers, find, naming, persons
from facepipe.groups.pile import Pile, read_pile
from facepipe.groups.regroup import regroup
from facepipe.groups.said import Said, photos_with_names
from facepipe.groups.store import GroupsFile, groups_path
from facepipe.groups.suggest import Likely, People
from facepipe.groups.threshold import limit_for
from facepipe.groups.thumbnails import thumbnail_of
from facepipe.groups.values import Answer, FaceKey, Group, Grouped, GroupFace, PersonFace, Suggested
from facepipe.groups.view import View, told
from facepipe.models.registry import get_record
from facepipe.predict.decision import PROBABLE
from facepipe.records import Record
from facepipe.types import DecideOptions, Float32


class Groups:
    """Groups of the faces of a catalog, and what the user said of them; in the file NAME.groups beside it.

        with facepipe.Groups("results.jsonl.catalog", "gallery") as groups:
            groups.refresh()
            for group in groups.table():
                print(group.id, group.size, group.suggestion)
            groups.name(groups.table()[0].id, "Anna")

    Every answer is on the disk when its call returns, and can be taken back. Several processes may have it open; one object belongs
    to one thread. Answers return their numbers. Errors: UsageError for a group, face or person that is not there.
    """

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
        self._own = self._folder is not None
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
        if self._own and self._gallery is not None:
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

    # ---- what is looked at ----

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

    # ---- answers ----

    def name(self, id: int, person: str, *, most: int = 20) -> int:
        """Say who a group is. most: so many of its best and most different faces are enrolled at most; all are confirmed.

        Said again of a group that has not grown it changes nothing, and returns the answer that said it.
        """
        view = self._shown
        view.require(id)
        name = self._known_as(person)
        if (now := view.group(id, None).person) not in (None, name):
            raise UsageError(
                f"group {id} is {now}: take that answer back, or rename the person with facepipe gallery rename"
            )
        rows = view.members[id]
        keys = [self.pile.key(row) for row in naming.choose(self.pile, rows, most)] if most else []
        if now == name and (answer := self._said_before(id, rows, keys, name)) is not None:
            return answer
        details = {"group": id, "faces": len(rows), "enrolled": 0}
        return self._with_gallery("name", details, name, enrol=keys)

    def _said_before(self, id: int, rows: Sequence[int], keys: Sequence[FaceKey], name: str) -> int | None:
        """Return the last answer about a group, where naming it so would confirm and enrol nothing."""
        enrolled = {(content, number) for content, number, _ in self._enrolled(name, keys)}
        if not self._shown.confirmed.issuperset(rows) or any((key.content, key.number) not in enrolled for key in keys):
            return None
        query = """
            SELECT max(number) FROM answer JOIN change ON change.answer = answer.number
            WHERE tbl = 'grp' AND key = ? AND done AND undone IS NULL"""
        found = self._file.value(query, json.dumps({"id": id}))
        return None if found is None else int(found)

    def put_out(self, id: int, keys: Sequence[FaceKey]) -> int:
        """Say that faces do not belong to a group; they never come back to it. Of a named group's they leave the gallery as well."""
        view = self._shown
        view.require(id)
        self._require(keys)
        details: dict[str, Any] = {"group": id, "faces": len(keys), "keys": plain(keys)}
        name = view.group(id, None).person
        if name is None or self._gallery is None:
            return answers.simply(self._file, self.pile, "put-out", details)
        return self._with_gallery("put-out", details, name, withdraw=self._enrolled(name, keys))

    def join(self, ids: Sequence[int]) -> int:
        """Say that groups are one person; the first one's number stays."""
        for number in ids:
            self._shown.require(number)
        names = {name for number in ids if (name := self._shown.group(number, None).person) is not None}
        if len(set(ids)) < 2 or len(names) > 1:
            raise UsageError(
                f"groups of {' and '.join(sorted(names))}: facepipe gallery merge joins people"
                if names
                else "join: name two groups"
            )
        return answers.simply(self._file, self.pile, "join", {"groups": list(dict.fromkeys(ids))})

    def apart(self, a: int, b: int) -> int:
        """Say that two groups are two people: they are never joined, nor offered as alike."""
        for number in (a, b):
            self._shown.require(number)
        if a == b:
            raise UsageError(f"group {a} is one group: name two")
        return answers.simply(self._file, self.pile, "apart", {"groups": [a, b]})

    def ignore(self, id: int) -> int:
        """Say that a group is nobody who is needed."""
        return self._about(id, "ignore")

    def skip(self, id: int) -> int:
        """Put a group off until it grows."""
        return self._about(id, "skip")

    def _about(self, id: int, what: str) -> int:
        self._shown.require(id)
        if (name := self._shown.group(id, None).person) is not None:
            raise UsageError(f"group {id} is {name}: take that answer back first")
        return answers.simply(self._file, self.pile, what, {"group": id})

    def confirm(self, keys: Sequence[FaceKey], person: str, *, enroll: bool = False) -> int:
        """Say that faces are this person. enroll: put them into the gallery as well."""
        self._require(keys)
        name = self._known_as(person)
        details = {"faces": len(keys), "keys": plain(keys)}
        return self._with_gallery("confirm", details, name, enrol=list(keys) if enroll else [])

    def deny(self, keys: Sequence[FaceKey], person: str) -> int:
        """Say that faces are not this person; the gallery heeds it as well."""
        self._require(keys)
        name = self._known_as(person)
        details = {"faces": len(keys), "keys": plain(keys)}
        return self._with_gallery("deny", details, name, refute=list(keys), withdraw=self._enrolled(name, keys))

    def undo(self, answer: int | None = None) -> str:
        """Take back an answer, the last by default, in the gallery too; return what was taken back. An undo can be undone."""
        which = "number = ?" if answer is not None else "what != 'undo'"
        columns = "SELECT number, what, details, gallery, at FROM answer"
        query = f"{columns} WHERE done AND undone IS NULL AND {which} ORDER BY number DESC LIMIT 1"
        rows = self._file.rows(query, *(() if answer is None else (answer,)))
        if not rows:
            raise UsageError(
                "there is nothing to take back" if answer is None else f"there is no answer {answer} to take back"
            )
        number, what, details, did, at = rows[0]
        text = told(what, json.loads(details), self._shown.persons)
        text += f" (said on {time.strftime('%Y-%m-%d at %H:%M', time.localtime(at))})"
        wanted = answers.opposite(json.loads(did))
        if what == "rename" and self._is_somebody(name := self._shown.persons[json.loads(details)["other"]]):
            raise UsageError(f"answer {number} cannot be taken back: {name!r} is somebody else by now")
        if not any(wanted[action] for action in ("withdraw", "enrol", "refute", "unrefute", "moves", "rename")):
            answers.simply(self._file, self.pile, "undo", {"answer": number})
        else:
            self._carry_out("undo", {"answer": number}, wanted)
        return text

    def answers(self, count: int = 50) -> list[Answer]:
        """Return what was answered, newest first."""
        names = self._shown.persons
        query = "SELECT number, at, what, details, undone FROM answer WHERE done ORDER BY number DESC LIMIT ?"
        return [
            Answer(number, at, what, told(what, {**json.loads(details), "undone": undone}, names), undone is not None)
            for number, at, what, details, undone in self._file.rows(query, count)
        ]

    def _known_as(self, person: str) -> str:
        """Return a name as it is stored: that of somebody who is there, also in other letters; a new one in its normal form."""
        view = self._shown
        somebody = {view.persons[number] for number in set(view.whose.values()) if number in view.persons}
        if self._gallery is not None:
            somebody |= set(names_by_id(self._gallery.database).values())
        name = meant(normal_name(person), somebody)
        return name if name in somebody else new_name(person)

    def _is_somebody(self, name: str) -> bool:
        """Say whether a name is that of somebody in the gallery, or of whom faces were said to be."""
        if self._gallery is not None and find_person(self._gallery.database, name) is not None:
            return True
        number = self._file.value("SELECT id FROM person WHERE name = ?", name)
        return number is not None and number in self._shown.whose.values()

    def _require(self, keys: Sequence[FaceKey]) -> None:
        for key in keys:
            if self.pile.row(key) is None:
                raise UsageError(f"photo {key.content[:12]} has no face {key.number + 1} in this catalog")

    def _enrolled(self, person: str, keys: Sequence[FaceKey]) -> list[list[Any]]:
        """Return those of these faces that are enrolled for a person."""
        if self._gallery is None:
            return []
        return [
            [key.content, key.number, face_id]
            for key in keys
            for face_id in enrolled_faces(self._gallery, person, key.content)
        ]

    def _with_gallery(
        self,
        what: str,
        details: Mapping[str, Any],
        name: str,
        *,
        enrol: Sequence[FaceKey] = (),
        withdraw: Sequence[Sequence[Any]] = (),
        refute: Sequence[FaceKey] = (),
    ) -> int:
        """Note and carry out an answer about a person, who is added where need be."""
        if enrol:
            self._made_gallery()
        with self._file.write():
            person = answers.person_id(self._file, name)
        facts = {**details, "person": person}
        if not (enrol or withdraw or refute) or self._gallery is None:
            return answers.simply(self._file, self.pile, what, facts)
        gallery = self._made_gallery()
        before = naming.had(gallery, name, enrol) if enrol else []
        wanted = {
            "person": person,
            "enrol": plain(enrol),
            "before": before,
            "withdraw": list(withdraw),
            "refute": plain(refute),
        }
        return self._carry_out(what, facts, wanted)

    def _carry_out(self, what: str, details: Mapping[str, Any], wanted: Mapping[str, Any]) -> int:
        gallery = self._made_gallery()
        gallery.database.require_writable()
        with gallery.database.lock("name"):  # so that nobody who opens the groups takes it for one that was killed
            with self._file.write():
                answer = self._file.intend(what, details, wanted)
            answers.complete(self._file, self.pile, gallery, answer)
        return answer

    def _made_gallery(self) -> GalleryStore:
        """Return the gallery, which appears with the first name."""
        if self._gallery is None:
            if self._folder is None:
                raise GalleryMissingError("there is no gallery to put names into: give one")
            pile = self.pile
            self._gallery = GalleryStore.create_or_open(
                self._folder, pile.model, pile.vectors.shape[1], Secret.from_environment()
            )
            self._gallery.require_model(pile.model)
        return self._gallery

    # ---- people and searches ----

    def suggestions(self, start: int = 0, count: int = 50) -> list[Suggested]:
        """Return faces that are probably a known person's, the surest first."""
        likely, view, pile = self._likely(), self._shown, self.pile
        if likely is None:
            return []
        numbers = {name: number for number, name in view.persons.items()}
        ignored = {row for number in view.ids("ignored") for row in view.members[number]}
        some = np.flatnonzero((likely.probability >= PROBABLE) & ~likely.known)
        rows = [
            row
            for row in some[np.argsort(-likely.probability[some], kind="stable")].tolist()
            if row not in view.whose
            and row not in ignored
            and (row, numbers.get(likely.name(row) or "")) not in view.denied
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


def plain(keys: Sequence[FaceKey]) -> list[list[Any]]:
    """Return faces as JSON has them."""
    return [[key.content, key.number] for key in keys]
