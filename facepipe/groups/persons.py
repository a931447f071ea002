"""A person's faces all together, and people's names as the gallery has them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from facepipe.errors import UsageError
from facepipe.gallery.people import FaceRecord, faces_of, find_person, names_by_id
from facepipe.gallery.store import GalleryStore
from facepipe.groups.moving import FORMER
from facepipe.groups.pile import SAME_BOX, overlap
from facepipe.groups.store import GroupsFile
from facepipe.groups.suggest import Likely
from facepipe.groups.values import PersonFace
from facepipe.groups.view import View
from facepipe.types import Float32

#: The order in which a person's faces are shown beside their probability.
_ORDER = {"recognised": 0, "confirmed": 1, "enrolled": 2}


def faces(
    name: str,
    view: View,
    gallery: GalleryStore | None,
    names: Sequence[str | None],
    probabilities: Sequence[float | None],
    likely: Likely | None,
) -> list[PersonFace]:
    """Return all faces that are a person's: doubtful ones first."""
    pile = view.pile
    number = view.numbers.get(name)
    mine = {row for row, person in view.whose.items() if person == number} if number is not None else set()
    recognised = {
        row
        for row, text in enumerate(names)
        if text == name and view.whose.get(row, number) == number and not view.denies(row, name)
    }
    ids = _Enrolled(gallery, name)
    found = []
    for row in sorted(mine | recognised):
        key = pile.key(row)
        face_id = ids.take(key.content, pile.boxes[row])
        status = "enrolled" if face_id is not None else "confirmed" if row in mine else "recognised"
        value = None if status == "enrolled" else _probability(row, name, probabilities, likely)
        found.append(PersonFace(key, pile.path(row), pile.box(row), status, value, pile.date(row), face_id))
    found += [PersonFace(None, face.source or "", face.box, "enrolled", None, None, face.id) for face in ids.left()]
    if not found:
        require(name, view, gallery)
    return sorted(found, key=lambda face: (_ORDER[face.status], 2.0 if face.probability is None else face.probability))


def require(name: str, view: View, gallery: GalleryStore | None) -> None:
    """UsageError when nobody has this name."""
    if name not in view.persons.values() and (gallery is None or find_person(gallery.database, name) is None):
        raise UsageError(f"nobody is named {name!r}: facepipe gallery list shows the people")


def _probability(row: int, name: str, probabilities: Sequence[float | None], likely: Likely | None) -> float | None:
    if likely is not None and likely.name(row) == name:
        return float(likely.probability[row])
    return probabilities[row]


class _Enrolled:
    """A person's faces in the gallery, of which those that are in the catalog as well are taken one by one."""

    def __init__(self, gallery: GalleryStore | None, name: str) -> None:
        self._gallery = gallery
        self._contents: dict[bytes, list[int]] = defaultdict(list)
        self._faces: dict[int, FaceRecord] = {}
        if gallery is None or (person := find_person(gallery.database, name)) is None:
            return
        self._faces = {face.id: face for face in faces_of(gallery.database, name)}
        with gallery.database.read() as connection:
            query = "SELECT content, id FROM face WHERE person_id = ? AND content IS NOT NULL"
            for content, face_id in connection.execute(query, (person,)).fetchall():
                self._contents[content].append(face_id)

    def take(self, content: str, box: Float32) -> int | None:
        """Return the id of the face that was enrolled from this place of a photo, None when none was."""
        if self._gallery is None or not self._contents:
            return None
        key = self._gallery.database.codec.lookup_photo(content)
        for face_id in self._contents.get(key, ()):
            face = self._faces.get(face_id)
            if face is not None and (face.box is None or overlap(np.array(face.box, np.float32), box) >= SAME_BOX):
                del self._faces[face_id]
                return face_id
        return None

    def left(self) -> list[FaceRecord]:
        """Return those that were not taken."""
        return list(self._faces.values())


def sync(file: GroupsFile, gallery: GalleryStore) -> None:
    """Call people what the gallery calls them now: renamed, merged into others, or erased, and then nothing of the name is left."""
    database = gallery.database
    mine = file.rows("SELECT id, name, gallery_person FROM person WHERE gallery = ?", database.identity)
    loose = file.rows("SELECT id, name FROM person WHERE gallery IS NULL")
    if not mine and not loose:
        return
    with database.read():
        names, ever = names_by_id(database), names_by_id(database, "subject")
        query = "SELECT person_id, details FROM journal WHERE action = 'merge' ORDER BY id"
        into = {
            person: json.loads(details).get("into") for person, details in database.connection.execute(query).fetchall()
        }
    changes: list[tuple[int, str | None]] = []
    for number, name, person in mine:
        while person not in names and into.get(person) is not None:
            person = into[person]
        now = names.get(person, name if person in ever or person is None else None)
        if now != name:
            changes.append((number, now))
    links = [
        (database.identity, found, number)
        for number, name in loose
        if (found := find_person(database, name)) is not None
    ]
    if not changes and not links:
        return
    with file.write() as db:
        db.executemany("UPDATE person SET gallery = ?, gallery_person = ? WHERE id = ?", links)
        for number, now in changes:
            other = None if now is None else file.value("SELECT id FROM person WHERE name = ? AND id != ?", now, number)
            if now is not None and other is None:
                db.execute("UPDATE person SET name = ? WHERE id = ?", (now, number))
                continue
            db.execute("UPDATE OR REPLACE denied SET person = ? WHERE person = ?", (other, number))
            db.execute(
                "UPDATE face SET person = ?, status = iif(? IS NULL, 'in', status) WHERE person = ?",
                (other, other, number),
            )
            db.execute(
                "UPDATE grp SET person = ?, state = iif(? IS NULL, 'open', state) WHERE person = ?",
                (other, other, number),
            )
            db.execute("DELETE FROM person WHERE id = ?", (number,))
        db.execute("DELETE FROM denied WHERE person IS NULL")
        db.execute("DELETE FROM cover WHERE person NOT IN (SELECT id FROM person)")
        db.execute("DELETE FROM person WHERE gallery = ? AND gallery_person NOT IN (SELECT id FROM person)", (FORMER,))
    if any(now is None for _, now in changes):
        file.scrub()
