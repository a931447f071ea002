"""A pile's groups in memory, whole: every answer can be given and taken back, so that the review page runs without photos."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from facepipe.errors import UsageError
from facepipe.gallery.names import new_name
from facepipe.groups.album import Album
from facepipe.groups.shown import CatalogPhoto, Known, Nearest, PhotoFace, Progress
from facepipe.groups.values import Answer, FaceKey, Group, Grouped, GroupFace, PersonFace, Suggested


@dataclass
class Face:
    """A face of the pile. maybe: who it probably is."""

    key: FaceKey
    path: str
    box: tuple[float, ...]
    jpeg: bytes
    taken: str | None = None
    maybe: tuple[str, float] | None = None


@dataclass
class Pile:
    """What answers change. groups: number -> faces. people: name -> face -> status. alike: pairs of groups."""

    groups: dict[int, list[FaceKey]] = field(default_factory=dict)
    states: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    people: dict[str, dict[FaceKey, str]] = field(default_factory=dict)
    denied: set[tuple[FaceKey, str]] = field(default_factory=set)
    covers: dict[str, FaceKey] = field(default_factory=dict)
    alike: dict[tuple[int, int], float] = field(default_factory=dict)
    maybe: dict[int, tuple[str, float]] = field(default_factory=dict)


class FakeGroups(Album):
    """See the module. An undo does all answers again but those that were taken back."""

    def __init__(self, faces: Sequence[Face], pile: Pile, sizes: dict[str, tuple[int, int]] | None = None) -> None:
        self.all = {face.key: face for face in faces}
        self.sizes = sizes or {}
        self.begun, self.now = pile, deepcopy(pile)
        self.given: list[tuple[Answer, Callable[[Pile], None] | None]] = []
        self.running = Progress(False, len({face.path for face in faces}), len(faces), 0)
        self.outside: dict[int, bytes] = {}
        self.fresh: set[int] = set()
        self.refreshed = 0

    @property
    def version(self) -> int:
        return len(self.given) + self.refreshed

    def refresh(self, *, all: bool = False, threshold: float | None = None, keep: bool = False) -> Grouped:
        return Grouped(len(self.all), len(self.now.groups), 0, 0, 0, 0, 0, 0)

    def progress(self) -> Progress:
        return self.running

    # ---- reading ----

    def table(self, *, state: str | None = "open") -> list[Group]:
        groups = [self.group(id) for id in self.now.groups if self.now.groups[id]]
        wanted = [group for group in groups if state in (None, group.state)]
        return sorted(wanted, key=lambda group: (not group.new, -group.size, group.id))

    def group(self, id: int) -> Group:
        keys = self.now.groups.get(id)
        if not keys:
            raise UsageError(f"group {id}: there is none of this number")
        state, person = self.now.states.get(id, ("open", None))
        taken = sorted(t for key in keys if (t := self.all[key].taken))
        pairs = ((a if b == id else b, c) for (a, b), c in self.now.alike.items() if id in (a, b))
        maybe = self.now.maybe.get(id)
        if maybe and all((key, maybe[0]) in self.now.denied for key in keys):
            maybe = None
        return Group(
            id=id,
            size=len(keys),
            photos=len({key.content for key in keys}),
            first=taken[0] if taken else None,
            last=taken[-1] if taken else None,
            cohesion=0.6,
            new=id in self.fresh,
            suggestion=maybe,
            alike=tuple(sorted(((other, c) for other, c in pairs if self.now.groups.get(other)), key=lambda x: -x[1])),
            cover=keys[0],
            state=state,
            person=person,
        )

    def faces(self, id: int, start: int = 0, count: int | None = None) -> list[GroupFace]:
        self.group(id)
        keys = self.now.groups[id][start : None if count is None else start + count]
        return [GroupFace(f.key, f.path, f.box, 0.99, f.taken, "in") for f in map(self.all.__getitem__, keys)]

    def thumbnail(self, key: FaceKey) -> bytes | None:
        return self.all[key].jpeg if key in self.all else None

    def kept_thumbnail(self, key: FaceKey) -> bytes | None:
        return self.all[key].jpeg or None if key in self.all else None

    def enrolled_picture(self, face_id: int) -> bytes | None:
        return self.outside.get(face_id)

    def suggestions(self, start: int = 0, count: int = 50) -> list[Suggested]:
        of = {key for faces in self.now.people.values() for key in faces}
        found = [
            Suggested(f.key, f.path, f.box, *f.maybe)
            for f in self.all.values()
            if f.maybe and f.key not in of and (f.key, f.maybe[0]) not in self.now.denied
        ]
        return sorted(found, key=lambda s: -s.probability)[start : start + count]

    def people(self) -> list[Known]:
        people = []
        for name, faces in self.now.people.items():
            enrolled, confirmed, recognised = (
                sum(s == status for s in faces.values()) for status in ("enrolled", "confirmed", "recognised")
            )
            cover = self.now.covers.get(name) or next(iter(faces), None)
            people.append(Known(name, len(faces), enrolled, confirmed, recognised, recognised // 2, cover))
        return sorted(people, key=lambda person: (-person.faces, person.name))

    def person(self, name: str) -> list[PersonFace]:
        rank = {"recognised": 0, "confirmed": 1, "enrolled": 2}
        faces = []
        for place, (key, status) in enumerate(sorted(self.now.people.get(name, {}).items(), key=lambda i: rank[i[1]])):
            face, sure = self.all[key], 0.72 + 0.03 * place
            probability = min(sure, 0.995) if status == "recognised" else None
            faces.append(PersonFace(key, face.path, face.box, status, probability, face.taken))
        return faces

    def photo(self, content: str) -> CatalogPhoto | None:
        faces = sorted((face for face in self.all.values() if face.key.content == content), key=lambda f: f.key.number)
        if not faces:
            return None
        shown = []
        for face in faces:
            person, status = next(((n, p[face.key]) for n, p in self.now.people.items() if face.key in p), (None, None))
            group = next((id for id, keys in self.now.groups.items() if face.key in keys), None)
            maybe = None if person else face.maybe
            shown.append(PhotoFace(face.key, face.box, 0.99, person, status, 0.9 if person else None, maybe, group))
        width, height = self.sizes.get(content, (200, 200))
        return CatalogPhoto(content, faces[0].path, width, height, faces[0].taken, tuple(shown))

    def nearest(self, key: FaceKey, count: int = 5, *, person: str | None = None) -> list[Nearest]:
        named = [(name, k) for name, faces in self.now.people.items() for k in faces if person in (None, name)]
        return [Nearest(name, 0.71 - 0.06 * n, k, n) for n, (name, k) in enumerate(named[:count])]

    def find_photos(self, **wanted: Any) -> Iterator[CatalogPhoto]:
        for content in dict.fromkeys(key.content for key in self.all):
            photo = self.photo(content)
            assert photo is not None
            names = {face.person for face in photo.faces}
            day = (photo.taken or "")[:10]
            if not set(wanted["with_"]) <= names or set(wanted["without"]) & names:
                continue
            if (wanted["since"] and day < wanted["since"]) or (wanted["until"] and (day or "9") > wanted["until"]):
                continue
            if wanted["unknown"] and None not in names:
                continue
            yield replace(photo, faces=())

    # ---- answers ----

    def _give(self, what: str, text: str, change: Callable[[Pile], None]) -> int:
        changed = deepcopy(self.now)
        change(changed)
        self.now = changed
        self.given.append((Answer(len(self.given) + 1, time.time(), what, text, False), change))
        return len(self.given)

    def name(self, id: int, person: str, *, most: int = 20) -> int:
        person, size = new_name(person), self.group(id).size

        def change(pile: Pile) -> None:
            keys = pile.groups[id]
            of = pile.people.setdefault(person, {})
            of.update({key: "enrolled" if place < most else "confirmed" for place, key in enumerate(keys)})
            pile.states[id] = ("named", person)

        return self._give("name", f"{size} faces are {person}", change)

    def put_out(self, id: int, keys: Sequence[FaceKey]) -> int:
        self.group(id)

        def change(pile: Pile) -> None:
            pile.groups[id] = [key for key in pile.groups[id] if key not in keys]

        return self._give("put_out", f"{len(keys)} faces put out of a group", change)

    def join(self, ids: Sequence[int]) -> int:
        for id in ids:
            self.group(id)

        def change(pile: Pile) -> None:
            for other in ids[1:]:
                pile.groups[ids[0]] += pile.groups.pop(other)

        return self._give("join", f"{len(ids)} groups joined", change)

    def apart(self, a: int, b: int) -> int:
        def change(pile: Pile) -> None:
            pile.alike = {pair: c for pair, c in pile.alike.items() if set(pair) != {a, b}}

        return self._give("apart", "Two groups are two people", change)

    def _set_state(self, id: int, state: str, text: str) -> int:
        self.group(id)
        return self._give(state, text, lambda pile: pile.states.update({id: (state, None)}))

    def ignore(self, id: int) -> int:
        return self._set_state(id, "ignored", "A group is nobody you need")

    def skip(self, id: int) -> int:
        return self._set_state(id, "skipped", "A group is put off")

    def confirm(self, keys: Sequence[FaceKey], person: str, *, enroll: bool = False) -> int:
        person = new_name(person)

        def change(pile: Pile) -> None:
            for faces in pile.people.values():
                for key in keys:
                    faces.pop(key, None)
            pile.people.setdefault(person, {}).update(dict.fromkeys(keys, "enrolled" if enroll else "confirmed"))

        return self._give("confirm", f"{len(keys)} faces are {person}", change)

    def deny(self, keys: Sequence[FaceKey], person: str) -> int:
        def change(pile: Pile) -> None:
            pile.denied |= {(key, person) for key in keys}
            for key in keys:
                pile.people.get(person, {}).pop(key, None)

        return self._give("deny", f"{len(keys)} faces are not {person}", change)

    def rename(self, name: str, new: str) -> int:
        new = new_name(new)
        if name not in self.now.people:
            raise UsageError(f"{name}: nobody of this name is there")
        if new in self.now.people:
            raise UsageError(f"{new}: is there already; merge the two")

        def change(pile: Pile) -> None:
            pile.people[new] = pile.people.pop(name)

        return self._give("rename", f"{name} is now {new}", change)

    def merge(self, names: Sequence[str], into: str) -> int:
        def change(pile: Pile) -> None:
            faces = {key: status for name in names for key, status in pile.people.pop(name, {}).items()}
            pile.people[into] = faces

        return self._give("merge", f"{' and '.join(names)} are {into}", change)

    def split(self, name: str, keys: Sequence[FaceKey], into: str) -> int:
        into = new_name(into)

        def change(pile: Pile) -> None:
            moved = {key: pile.people[name].pop(key) for key in keys}
            pile.people.setdefault(into, {}).update(moved)

        return self._give("split", f"{len(keys)} faces of {name} are {into}", change)

    def cover(self, name: str, key: FaceKey) -> int:
        return self._give("cover", f"{name} has another cover", lambda pile: pile.covers.update({name: key}))

    def undo(self, answer: int | None = None) -> str:
        places = range(len(self.given)) if answer is None else [answer - 1]
        open_ = [p for p in places if self.given[p][1] is not None and not self.given[p][0].undone]
        if not open_:
            raise UsageError("there is nothing to take back")
        place = open_[-1]
        taken, change = self.given[place]
        self.given[place] = replace(taken, undone=True), change
        self.now = deepcopy(self.begun)
        for given, change in self.given:
            if change is not None and not given.undone:
                change(self.now)
        self.given.append((Answer(len(self.given) + 1, time.time(), "undo", f"taken back: {taken.text}", False), None))
        return taken.text

    def answers(self, count: int = 50) -> list[Answer]:
        return [answer for answer, _ in reversed(self.given)][:count]

    def close(self) -> None:
        pass
