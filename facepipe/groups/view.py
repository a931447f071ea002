"""What the file says of a pile, as tables for a person to look at; made anew when either has changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from facepipe.errors import UsageError
from facepipe.groups.pile import Pile
from facepipe.groups.store import GroupsFile
from facepipe.groups.values import FaceKey, Group, GroupFace
from facepipe.text import plural
from facepipe.types import Float32


@dataclass(frozen=True, slots=True, eq=False)
class _Facts:
    """What there is to say of faces together, whatever was answered. rows: of the pile. cover: one of them. mean: float32 (d,)."""

    rows: list[int]
    photos: int
    first: str | None
    last: str | None
    cover: FaceKey
    mean: Float32


class View:
    """One state of the groups. members: rows of the pile by group, surest first. status: of each row that is in one."""

    def __init__(self, file: GroupsFile, pile: Pile, before: View | None = None) -> None:
        """Read the file. before: an earlier state, of whose groups the facts are taken over where their faces are the same."""
        self.pile = pile
        self._facts: dict[int, _Facts] = before._facts if before is not None and before.pile is pile else {}
        row_of = pile.rows.get
        with file.read():
            self.version = file.version
            self.round = int(file.state("round") or 0)
            self.persons: dict[Any, str] = dict(file.rows("SELECT id, name FROM person"))
            self.numbers: dict[str | None, int] = {name: number for number, name in self.persons.items()}
            self._groups = {
                number: row
                for number, *row in file.rows(
                    "SELECT id, state, person, round, cohesion FROM grp WHERE state != 'gone'"
                )
            }
            self.members: dict[int, list[int]] = defaultdict(list)
            self.confirmed: set[int] = set()
            self.whose: dict[int, int] = {}
            query = (
                "SELECT content, number, grp, status, person FROM face ORDER BY status, likeness DESC, content, number"
            )
            for content, number, group, status, person in file.rows(query):
                row = row_of((content, number))
                if row is None:
                    continue
                if group is not None:
                    self.members[group].append(row)
                if status == "confirmed":
                    self.confirmed.add(row)
                if person is not None:
                    self.whose[row] = person
            self.out: dict[int, list[int]] = defaultdict(list)
            for content, number, group in file.rows("SELECT content, number, grp FROM put_out"):
                if (row := pile.row(FaceKey(content, number))) is not None:
                    self.out[group].append(row)
            self.denied = {
                (row, person)
                for content, number, person in file.rows("SELECT content, number, person FROM denied")
                if (row := pile.row(FaceKey(content, number))) is not None
            }
            apart = {(a, b) for a, b in file.rows("SELECT a, b FROM apart")}
            self._alike: dict[int, list[tuple[int, float]]] = defaultdict(list)
            for a, b, cosine in file.rows("SELECT a, b, cosine FROM alike ORDER BY cosine DESC"):
                if (a, b) not in apart and self._offered(a, b):
                    self._alike[a].append((b, cosine))
                    self._alike[b].append((a, cosine))

    def _offered(self, a: int, b: int) -> bool:
        """Say whether it may be asked whether two groups are one person."""
        one, other = self._groups.get(a), self._groups.get(b)
        if one is None or other is None or not self.members.get(a) or not self.members.get(b):
            return False
        return "ignored" not in (one[0], other[0]) and (one[1] is None or one[1] != other[1])

    def ids(self, state: str | None) -> list[int]:
        """Return the groups in a state, None: in any, that have faces; new ones first, then by size."""
        found = [
            number
            for number, row in self._groups.items()
            if (state is None or row[0] == state) and self.members.get(number)
        ]
        return sorted(found, key=lambda number: (not self._is_new(number), -len(self.members[number]), number))

    def _is_new(self, number: int) -> bool:
        return self.round > 1 and self._groups[number][2] == self.round

    def require(self, number: int) -> None:
        """UsageError when there is no such group."""
        if number not in self._groups or not self.members.get(number):
            raise UsageError(f"there is no group {number}: facepipe cluster lists them")

    def mean(self, number: int) -> Float32:
        """Return the mean vector of a group's faces, not unit."""
        return self._facts_of(number).mean

    def _facts_of(self, number: int) -> _Facts:
        rows, found = self.members[number], self._facts.get(number)
        if found is None or found.rows != rows:
            pile = self.pile
            dates = sorted(date for row in rows if (date := pile.date(row)) is not None)
            found = _Facts(
                rows,
                len(set(pile.photos[rows].tolist())),
                dates[0] if dates else None,
                dates[-1] if dates else None,
                pile.key(self.cover(number)),
                np.asarray(pile.vectors[rows].mean(axis=0), np.float32),
            )
            self._facts[number] = found
        return found

    def group(self, number: int, suggestion: tuple[str, float] | None) -> Group:
        """Return what there is to say of a group."""
        state, _, _, cohesion = self._groups[number]
        facts = self._facts_of(number)
        return Group(
            id=number,
            size=len(facts.rows),
            photos=facts.photos,
            first=facts.first,
            last=facts.last,
            cohesion=cohesion,
            new=self._is_new(number),
            suggestion=suggestion,
            alike=tuple(self._alike.get(number, ())),
            cover=facts.cover,
            state=state,
            person=self.person(number),
        )

    def cover(self, number: int) -> int:
        """Return the row of a group's best face to look at, among its surest."""
        some = self.members[number][:20]
        return max(
            some, key=lambda row: (min(float(self.pile.quality[row, 0]), 150.0) * float(self.pile.scores[row]), -row)
        )

    def person(self, number: int) -> str | None:
        """Return whose a group is, None before it is named. UsageError when there is no such group."""
        self.require(number)
        return self.persons.get(self._groups[number][1])

    def denies(self, row: int, name: str | None) -> bool:
        """Say whether the user said that a face is not the person of this name."""
        return (row, self.numbers.get(name)) in self.denied

    def faces(self, number: int) -> list[GroupFace]:
        """Return a group's faces, surest first, those that were put out last."""
        inside = self.members.get(number, [])
        found = [self.face(row, "confirmed" if row in self.confirmed else "in") for row in inside]
        return found + [self.face(row, "out") for row in self.out.get(number, []) if row not in inside]

    def face(self, row: int, status: str) -> GroupFace:
        """Return what there is to say of a face."""
        pile = self.pile
        return GroupFace(pile.key(row), pile.path(row), pile.box(row), float(pile.scores[row]), pile.date(row), status)


def _pair(details: dict[str, Any]) -> tuple[Any, Any]:
    """Return the two whose names a rename exchanged, the one with the new name first."""
    pair = details["person"], details["other"]
    return (pair[1], pair[0]) if details.get("undone") is not None else pair


#: Makes a line of an answer: given its details, and the names of people by number.
_TEXTS: dict[str, Callable[[dict[str, Any], Callable[[Any], str]], str]] = {
    "name": lambda d, who: (
        f"group {d['group']} is {who(d['person'])}: {d['enrolled']} of {plural(d['faces'], 'face')} enrolled"
    ),
    "put-out": lambda d, who: f"{plural(d['faces'], 'face')} put out of group {d['group']}",
    "join": lambda d, who: f"groups {', '.join(map(str, d['groups']))} are one person: now group {d['groups'][0]}",
    "apart": lambda d, who: f"groups {d['groups'][0]} and {d['groups'][1]} are two people",
    "ignore": lambda d, who: f"group {d['group']} is nobody who is needed",
    "skip": lambda d, who: f"group {d['group']} is put off",
    "confirm": lambda d, who: f"{plural(d['faces'], 'face')}: {who(d['person'])}",
    "deny": lambda d, who: f"{plural(d['faces'], 'face')}: not {who(d['person'])}",
    "rename": lambda d, who: "{1} is now {0}".format(*map(who, _pair(d))),
    "merge": lambda d, who: f"the same person: {', '.join(map(who, d['others']))}, {who(d['person'])}",
    "split": lambda d, who: f"{plural(d['faces'], 'face')} of {who(d['was'])}: {who(d['person'])}",
    "cover": lambda d, who: f"{who(d['person'])} has another cover",
    "undo": lambda d, who: f"taken back: answer {d['answer']}",
}


def told(what: str, details: dict[str, Any], persons: dict[int, str]) -> str:
    """Return an answer in a line."""

    def who(number: Any) -> str:
        return persons.get(number, "somebody who was erased")

    return _TEXTS[what](details, who)
