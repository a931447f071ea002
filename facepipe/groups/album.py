"""What a page shows of a pile besides its groups: people, photos with all their faces, what is like a face, how far a scan is."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.lock import is_written
from facepipe.errors import UsageError
from facepipe.gallery import people
from facepipe.gallery.care.contact_sheet import face_picture
from facepipe.gallery.names import new_name, normal_name
from facepipe.gallery.people import find_person
from facepipe.groups import answers, find, naming, persons
from facepipe.groups.groups import Groups
from facepipe.groups.shown import CatalogPhoto, Known, Nearest, PhotoFace, Progress
from facepipe.groups.values import FaceKey, Grouped
from facepipe.groups.view import View
from facepipe.images import encode_image
from facepipe.predict.decision import PROBABLE

#: Of faces that are somebody new so many are enrolled.
_MOST = 20
#: A recognised face is doubtful below this probability.
_SURE = 0.9


@dataclass(slots=True, eq=False)
class _Faces:
    """Who the faces of the pile are, row by row. enrolled, group: by row."""

    who: list[str | None]
    probabilities: list[float | None]
    enrolled: set[int]
    group: dict[int, int]


class Album(Groups):
    """Groups, and what a page shows besides; see `facepipe.Groups`."""

    _told: tuple[tuple[object, ...], _Faces] | None = None
    _lookups: tuple[int, dict[bytes, str]] | None = None

    _grouped: int | None = None

    @property
    def _shown(self) -> View:
        """The groups as of now; the faces are read again when another process has grouped new ones."""
        if (now := self._file.value("SELECT count(*) FROM face")) != self._grouped:
            if self._grouped is not None:
                self._catalog.close()
                self._catalog, self._pile = Catalog(self._path), None
            self._grouped = now
        return super()._shown

    def refresh(self, *, all: bool = False, threshold: float | None = None, keep: bool = False) -> Grouped:
        """Group what is new in the catalog; see `Groups.refresh`."""
        found = super().refresh(all=all, threshold=threshold, keep=keep)
        self._grouped = self._file.value("SELECT count(*) FROM face")  # whose faces were read just now
        return found

    def _faces(self) -> _Faces:
        """Return who the faces are, as of now."""
        view = self._shown
        state = (view.version, id(view.pile), self._people())
        if self._told is None or self._told[0] != state:
            names, probabilities = self._names()
            group = {row: number for number, rows in view.members.items() for row in rows}
            told = _Faces(find.people_of(view, names), probabilities, self._enrolled_rows(), group)
            self._told = state, told
        return self._told[1]

    def _content_of(self) -> dict[bytes, str]:
        """Return the photos of the pile by what the gallery finds them by."""
        assert self._gallery is not None
        if self._lookups is None or self._lookups[0] != id(self.pile):
            codec = self._gallery.database.codec
            found = {codec.lookup_photo(text): text for text in self.pile.contents}
            self._lookups = id(self.pile), found
        return self._lookups[1]

    def _enrolled_rows(self) -> set[int]:
        """Return the rows of the faces that are enrolled, whoever they are."""
        if self._gallery is None:
            return set()
        contents = self._content_of()
        with self._gallery.database.read() as connection:
            rows = connection.execute("SELECT content, ordinal FROM face WHERE content IS NOT NULL").fetchall()
        keys = (FaceKey(contents[content], ordinal) for content, ordinal in rows if content in contents)
        return {row for key in keys if (row := self.pile.row(key)) is not None}

    def _status(self, row: int, faces: _Faces) -> str | None:
        if faces.who[row] is None:
            return None
        if row in faces.enrolled:
            return "enrolled"
        return "confirmed" if row in self._shown.whose else "recognised"

    def people(self) -> list[Known]:
        """Return everybody in the gallery, and whom faces were said to be; those with most faces in the catalog first."""
        faces, view, pile = self._faces(), self._shown, self.pile
        mine: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(faces.who):
            if name is not None:
                mine[name].append(row)
        enrolled = {}
        if self._gallery is not None:
            enrolled = {person.name: person.faces for person in people.people(self._gallery.database)}
        worth = np.minimum(pile.quality[:, 0], 150.0) * pile.scores if len(pile) else np.zeros(0)
        covers = self._covers()
        found = []
        for name in {**enrolled, **mine}:
            rows = mine.get(name, [])
            sure = [row for row in rows if row in faces.enrolled or row in view.whose]
            loose = [row for row in rows if row not in faces.enrolled and row not in view.whose]
            doubtful = sum((faces.probabilities[row] or 0.0) < _SURE for row in loose)
            cover = covers.get(name)
            if cover is None and rows:
                cover = pile.key(max(sure or loose, key=lambda row: (worth[row], -row)))
            said = sum(row not in faces.enrolled for row in sure)
            count = enrolled.get(name, 0)
            found.append(Known(name, count + said + len(loose), count, said, len(loose), doubtful, cover))
        return sorted(found, key=lambda person: (-person.faces, person.name.casefold(), person.name))

    def _covers(self) -> dict[str, FaceKey]:
        persons = self._shown.persons
        rows = self._file.rows("SELECT person, content, number FROM cover")
        keys = {persons[person]: FaceKey(content, number) for person, content, number in rows if person in persons}
        return {name: key for name, key in keys.items() if self.pile.row(key) is not None}

    def photo(self, content: str) -> CatalogPhoto | None:
        """Return a photo with all its faces, None when the catalog has none with these bytes (SHA-256)."""
        paths = self._catalog.paths_of(content)
        if not paths:
            return None
        path = next((path for path in paths if os.path.lexists(path)), paths[0])
        rows, (width, height) = self.pile.rows_of(content), self._catalog.size_of(content) or (0, 0)
        taken = self.pile.date(rows[0]) if rows else None
        return CatalogPhoto(content, path, width, height, taken, tuple(map(self._photo_face, rows)))

    def _photo_face(self, row: int) -> PhotoFace:
        faces, view, pile, likely = self._faces(), self._shown, self.pile, self._likely()
        suggestion = None
        if likely is not None and faces.who[row] is None and likely.probability[row] >= PROBABLE:
            name = likely.name(row)
            if name is not None and not view.denies(row, name):
                suggestion = name, float(likely.probability[row])
        status = self._status(row, faces)
        probability = faces.probabilities[row] if status == "recognised" else None
        key, score, group = pile.key(row), float(pile.scores[row]), faces.group.get(row)
        return PhotoFace(
            key, pile.box(row), score, faces.who[row], status, probability, suggestion, group, pile.spans.get(row)
        )

    def nearest(self, key: FaceKey, count: int = 5, *, person: str | None = None) -> list[Nearest]:
        """Return the enrolled faces that are most like a face, itself aside; person: only theirs."""
        found, row = self._people(), self.pile.require(key)
        if found is None:
            return []
        snapshot = found.snapshot
        cosines = snapshot.vectors @ self.pile.vectors[row]
        if person is not None:
            wanted = [place for place, name in enumerate(snapshot.persons) if name == normal_name(person)]
            cosines = np.where(np.isin(snapshot.owners, wanted), cosines, -2.0)
        nearest: list[Nearest] = []
        for place in np.argsort(-cosines, kind="stable").tolist():
            if len(nearest) == count or cosines[place] < -1.5:
                break
            face_id, name = int(snapshot.face_ids[place]), snapshot.persons[snapshot.owners[place]]
            other = self._key_of(face_id)
            if other != key:
                nearest.append(Nearest(name, float(cosines[place]), other, face_id))
        return nearest

    def _key_of(self, face_id: int) -> FaceKey | None:
        """Return the face of the catalog that an enrolled one is, None when its photo is not in it."""
        assert self._gallery is not None
        with self._gallery.database.read() as connection:
            row = connection.execute("SELECT content, ordinal FROM face WHERE id = ?", (face_id,)).fetchone()
        content = None if row is None else self._content_of().get(row[0])
        key = None if content is None else FaceKey(content, row[1])
        return key if key is not None and self.pile.row(key) is not None else None

    def kept_thumbnail(self, key: FaceKey) -> bytes | None:
        """Return the JPEG of a face that the scan kept, None when it kept none: `thumbnail` cuts it out of the photo then."""
        return self._catalog.thumbnail(key.content, key.number)

    def enrolled_picture(self, face_id: int) -> bytes | None:
        """Return an enrolled face as JPEG, from the gallery or its photo, None when both are lost. face_id: in the gallery."""
        if self._gallery is None:
            return None
        database = self._gallery.database
        row = database.connection.execute("SELECT person_id FROM face WHERE id = ?", (face_id,)).fetchone()
        name = None if row is None else people.names_by_id(database).get(row[0])
        face = None if name is None else next((f for f in people.faces_of(database, name) if f.id == face_id), None)
        rgb = None if face is None else face_picture(database, face)
        return None if rgb is None else encode_image(rgb, "JPEG", 85)

    def find_photos(
        self,
        *,
        with_: Sequence[str] = (),
        without: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        unknown: bool = False,
        group: int | None = None,
    ) -> Iterator[CatalogPhoto]:
        """Yield what `find` yields the paths of, equal photos once; sizes and faces are left out."""
        names = tuple(map(normal_name, with_)), tuple(map(normal_name, without))
        pile = self.pile
        for photo in find.matches(self._shown, self._names()[0], find.Wanted(*names, since, until, unknown, group)):
            yield CatalogPhoto(pile.contents[photo], pile.paths[photo], 0, 0, pile.taken[photo])

    def progress(self) -> Progress:
        """Say how far the scan of the catalog is: what it has found, though not all may be in groups yet. Cheap."""
        photos, failed = self._catalog.counted()
        return Progress(is_written(self._path), photos, len(self.pile), failed)

    # ---- answers about people ----

    def rename(self, name: str, new: str) -> int:
        """Give a person another name, which nobody has. Errors: UsageError."""
        old, to = self._require_person(name), new_name(new)
        if to == old or self._is_somebody(to):
            raise UsageError(f"{to!r} is {'the name already' if to == old else 'somebody: join the two instead'}")
        person, other = self._numbers(old, to)
        return self._about_people("rename", {"other": other}, {"person": person, "rename": [person, other]})

    def merge(self, names: Sequence[str], into: str) -> int:
        """Make one person of several. into: one of them, or a new name. Errors: UsageError."""
        target = self._known_as(into)
        sources = [name for name in dict.fromkeys(map(self._require_person, names)) if name != target]
        if not sources:
            raise UsageError("name two people who are one")
        person, *others = self._numbers(target, *sources)
        moves = [
            [face_id, other, person] for name, other in zip(sources, others, strict=True) for face_id in self._ids(name)
        ]
        return self._about_people("merge", {"others": others}, {"person": person, "moves": moves})

    def split(self, name: str, keys: Sequence[FaceKey], into: str) -> int:
        """Say that faces of a person are another one. into: somebody who is there, or a new name. Errors: UsageError."""
        rows = [self.pile.require(key) for key in keys]
        source, target = self._require_person(name), self._known_as(into)
        if source == target:
            raise UsageError(f"{target!r} is whose faces they are already")
        was, person = self._numbers(source, target)
        moves = [[face_id, was, person] for _, _, face_id in self._enrolled(source, keys)]
        wanted: dict[str, Any] = {"person": person, "moves": moves}
        if self._gallery is not None and not moves and find_person(self._gallery.database, target) is None:
            enrol = [self.pile.key(row) for row in naming.choose(self.pile, rows, _MOST)]
            wanted |= {"enrol": answers.plain(enrol), "before": naming.had(self._gallery, target, enrol)}
        details = {"was": was, "faces": len(keys), "keys": answers.plain(keys)}
        return self._about_people("split", details, wanted)

    def cover(self, name: str, key: FaceKey) -> int:
        """Choose the face that stands for a person. Errors: UsageError."""
        self.pile.require(key)
        (person,) = self._numbers(self._require_person(name))
        return answers.simply(self._file, self.pile, "cover", {"person": person, "key": [key.content, key.number]})

    def _about_people(self, what: str, details: dict[str, Any], wanted: dict[str, Any]) -> int:
        facts = {**details, "person": wanted["person"]}
        if self._gallery is None:
            return answers.simply(self._file, self.pile, what, facts)
        return self._carry_out(what, facts, wanted)

    def _require_person(self, name: str) -> str:
        persons.require(normal_name(name), self._shown, self._gallery)
        return normal_name(name)

    def _numbers(self, *names: str) -> list[int]:
        with self._file.write():
            return [answers.person_id(self._file, name) for name in names]

    def _ids(self, name: str) -> list[int]:
        if self._gallery is None or (person := find_person(self._gallery.database, name)) is None:
            return []
        return people.face_ids_of(self._gallery.database, person)
