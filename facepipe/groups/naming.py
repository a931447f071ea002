"""From a group to a person: which of its faces are enrolled, and what is taken back of that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.gallery.care.anchors import add_anchor, remove_anchor
from facepipe.gallery.enrolment.enroller import enrolled_faces, faults
from facepipe.gallery.people import drop_faces, face_ids_of, find_person, touch
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.groups.pile import Pile
from facepipe.groups.values import FaceKey
from facepipe.types import Face, Float32

#: Faces that are so alike are one picture; see `EnrollRules.duplicate_limit`.
_COPY = 0.95
#: Of many faces those least like the others are not enrolled: some may be somebody else's.
_ODD, _MANY = 0.1, 10
#: What another year, and a head turned by 45 degrees more, are worth beside the cosine.
_YEAR, _POSE = 0.15, 0.2
_SIDE, _SHARP = 112.0, 100.0

#: A face that the gallery has: content, number, id there.
Enrolled = tuple[str, int, int]


def choose(pile: Pile, rows: Sequence[int], most: int) -> list[int]:
    """Return the best and most different faces, at most so many: quality first, then spread in likeness, dates and pose.

    Faces that `facepipe enroll` would call poor are not among them, unless there is no other.
    """
    good = [row for row in rows if not faults(pile.face(row))] or [max(rows, key=lambda row: _worth(pile.face(row)))]
    vectors = pile.vectors[good]
    if len(good) >= _MANY:
        typical = vectors @ vectors.mean(axis=0)
        kept = np.flatnonzero(typical >= np.quantile(typical, _ODD))
        good, vectors = [good[place] for place in kept], vectors[kept]
    worth = np.array([_worth(pile.face(row)) for row in good])
    years = np.array([int((pile.date(row) or "0")[:4]) for row in good])
    yaws = np.array([pile.face(row).quality.yaw for row in good])
    chosen = [int(worth.argmax())]
    while len(chosen) < min(most, len(good)):
        cosine = (vectors @ vectors[chosen].T).max(axis=1)
        year = (years[:, None] != years[chosen]).all(axis=1)
        pose = np.abs(yaws[:, None] - yaws[chosen]).min(axis=1) / 45.0
        gain = worth * (1.0 - cosine + _YEAR * year + _POSE * np.minimum(pose, 1.0))
        gain[cosine >= _COPY] = -1.0
        gain[chosen] = -1.0
        best = int(gain.argmax())
        if gain[best] <= 0.0:
            break
        chosen.append(best)
    return [good[place] for place in chosen]


def _worth(face: Face) -> float:
    """Return how good a face is to be enrolled, 0..1."""
    quality = face.quality
    if quality.usable is not None:
        return float(face.score * quality.usable)
    turned = max(0.1, float(np.cos(np.radians(quality.yaw)) * np.cos(np.radians(quality.pitch))))
    sharp = quality.sharpness / (quality.sharpness + _SHARP)
    return float(face.score * min(1.0, quality.size / _SIDE) * sharp * turned)


def had(gallery: GalleryStore, person: str, keys: Sequence[FaceKey]) -> list[int]:
    """Return the ids of faces from these photos that the gallery has already for a person."""
    return [
        face_id for content in {key.content for key in keys} for face_id in enrolled_faces(gallery, person, content)
    ]


def enrol(
    gallery: GalleryStore, pile: Pile, keys: Sequence[FaceKey], person: str, before: Sequence[int]
) -> list[Enrolled]:
    """Put faces into the gallery; return those that it has now and did not have `before`. May be done again after it was killed."""
    faces, kept = [], []
    for key in keys:
        row = pile.row(key)
        if row is None or set(enrolled_faces(gallery, person, key.content)) & set(before):
            continue  # its photo is gone, or is enrolled for this person
        path = str(Path(pile.path(row)).absolute())
        vector: Float32 = pile.vectors[row].copy()
        faces.append(NewFace(person, vector, source=path, content=key.content, ordinal=key.number, face=pile.face(row)))
        kept.append(key)
    ids = gallery.add(faces)
    found: list[Enrolled] = []
    for key, face_id in zip(kept, ids, strict=True):
        if face_id is None:  # by the process that was killed
            face_id = _id_of(gallery, person, key)
        if face_id is not None and face_id not in before:
            found.append((key.content, key.number, face_id))
    return found


def _id_of(gallery: GalleryStore, person: str, key: FaceKey) -> int | None:
    database = gallery.database
    with database.read() as connection:
        content = database.codec.lookup_photo(key.content)
        row = connection.execute(
            "SELECT id FROM face WHERE content = ? AND ordinal = ? AND person_id = ?",
            (content, key.number, find_person(database, person)),
        ).fetchone()
    return None if row is None else int(row[0])


def withdraw(gallery: GalleryStore, faces: Sequence[Sequence[Any]], person: str) -> int:
    """Take faces out of the gallery, whoever they belong to by now; a person without any face left goes. Return how many went.

    person: whose a face is that was put out and came back since, so that it has another id.
    """
    database = gallery.database
    find = "SELECT id, person_id FROM face WHERE id IN (SELECT value FROM json_each(?))"
    with database.read() as connection:
        ids = dict(connection.execute(find, (json.dumps([face_id for *_, face_id in faces]),)).fetchall())
    again = [_id_of(gallery, person, FaceKey(*key)) for *key, face_id in faces if face_id not in ids]
    with database.write("undo") as generation:
        there = database.connection.execute(find, (json.dumps([*ids, *again]),)).fetchall()
        drop_faces(database, [face_id for face_id, _ in there], generation)
        for owner in sorted({owner for _, owner in there}):
            whole = not face_ids_of(database, owner)
            if whole:
                database.connection.execute("DELETE FROM person WHERE id = ?", (owner,))
            else:
                touch(database, [owner], generation)
            database.log("remove", owner, faces=sum(who == owner for _, who in there), whole=whole)
    return len(there)


def refute(gallery: GalleryStore, pile: Pile, keys: Sequence[FaceKey], person: str) -> list[FaceKey]:
    """Note in the gallery that faces are not a person; return those for which that is new."""
    fresh = []
    for key in keys:
        row = pile.row(key)
        if row is not None:
            vector: Float32 = pile.vectors[row].copy()
            path = str(Path(pile.path(row)).absolute())
            if add_anchor(gallery, person, vector, pile.face(row), path, key.content):
                fresh.append(key)
    return fresh


def unrefute(gallery: GalleryStore, keys: Sequence[FaceKey], person: str) -> None:
    """Take back that faces are not a person."""
    if find_person(gallery.database, person) is not None:
        for key in keys:
            remove_anchor(gallery, person, key.content)
