"""The groups of a pile: `facepipe.Groups`, from faces that nobody is named in to people with names."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from facepipe.errors import GalleryMissingError, UsageError
from facepipe.gallery.enrolment.enroller import enrolled_faces
from facepipe.gallery.names import meant, new_name, normal_name
from facepipe.gallery.people import find_person, names_by_id
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.store import GalleryStore
from facepipe.groups import answers, naming
from facepipe.groups.answers import plain
from facepipe.groups.opened import OpenGroups
from facepipe.groups.values import Answer, FaceKey
from facepipe.groups.view import told


class Groups(OpenGroups):
    """Groups of the faces of a catalog, and what the user said of them; in the file NAME.groups beside it.

        with facepipe.Groups("results.jsonl.catalog", "gallery") as groups:
            groups.refresh()
            for group in groups.table():
                print(group.id, group.size, group.suggestion)
            groups.name(groups.table()[0].id, "Anna")

    Every answer is on the disk when its call returns, and can be taken back. Several processes may have it open; one object belongs
    to one thread. Answers return their numbers. Errors: UsageError for a group, face or person that is not there.
    """

    def name(self, id: int, person: str, *, most: int = 20) -> int:
        """Say who a group is. most: so many of its best and most different faces are enrolled at most; all are confirmed.

        Said again of a group that has not grown it changes nothing, and returns the answer that said it.
        """
        view = self._shown
        now, name = view.person(id), self._known_as(person)
        if now not in (None, name):
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
        name = self._shown.person(id)
        self._require(keys)
        details: dict[str, Any] = {"group": id, "faces": len(keys), "keys": plain(keys)}
        if name is None or self._gallery is None:
            return answers.simply(self._file, self.pile, "put-out", details)
        return self._with_gallery("put-out", details, name, withdraw=self._enrolled(name, keys))

    def join(self, ids: Sequence[int]) -> int:
        """Say that groups are one person; the first one's number stays."""
        names = {name for number in ids if (name := self._shown.person(number)) is not None}
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
        if (name := self._shown.person(id)) is not None:
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
            self.pile.require(key)

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
        gallery = self._gallery
        if not (enrol or withdraw or refute) or gallery is None:
            return answers.simply(self._file, self.pile, what, facts)
        wanted = {
            "person": person,
            "enrol": plain(enrol),
            "before": naming.had(gallery, name, enrol),
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
