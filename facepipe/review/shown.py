"""What the page is told, as JSON: names as they are, since they name people in its answers; paths as they can be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from facepipe.groups.shown import CatalogPhoto, Known, Nearest, PhotoFace
from facepipe.groups.values import FaceKey, Group, GroupFace, PersonFace, Suggested
from facepipe.outputs.table import seen
from facepipe.review.asked import enrolled_text, key_text
from facepipe.text import printable

Json = dict[str, Any]


def _key(key: FaceKey | None) -> str | None:
    return None if key is None else key_text(key)


def group_json(group: Group) -> Json:
    """Return a group without its faces."""
    names = ("id", "size", "photos", "first", "last", "cohesion", "new", "suggestion", "state", "person")
    return {**{name: getattr(group, name) for name in names}, "cover": _key(group.cover)}


def faces_json(faces: Iterable[GroupFace | PersonFace | Suggested]) -> list[Json]:
    """Return the faces of a list."""
    shown = []
    for face in faces:
        fields: Json = {"face": _name(face.key, getattr(face, "face_id", None)), "path": printable(face.path)}
        for name in ("status", "taken", "probability", "person"):
            if hasattr(face, name):
                fields[name] = getattr(face, name)
        shown.append(fields)
    return shown


def _name(key: FaceKey | None, face_id: int | None) -> str | None:
    """Return what a face is called on the page: an enrolled one whose photo is not in the catalog by its id in the gallery."""
    if key is not None:
        return key_text(key)
    return None if face_id is None else enrolled_text(face_id)


def _photo_face(face: PhotoFace) -> Json:
    names = ("score", "person", "status", "probability", "suggestion", "group")
    when = None if face.span is None else seen({"from": face.span.start, "to": face.span.end})
    return {
        "face": key_text(face.key),
        "box": list(face.box),
        "seen": when,
        **{name: getattr(face, name) for name in names},
    }


def photo_json(photo: CatalogPhoto) -> Json:
    """Return a photo with its faces."""
    names = ("content", "width", "height", "taken")
    fields: Json = {name: getattr(photo, name) for name in names}
    return {**fields, "path": printable(photo.path), "faces": [_photo_face(face) for face in photo.faces]}


def known_json(person: Known) -> Json:
    """Return a person and how many faces they have."""
    names = ("name", "faces", "enrolled", "confirmed", "recognised", "doubtful")
    return {**{name: getattr(person, name) for name in names}, "cover": _key(person.cover)}


def nearest_json(found: Sequence[Nearest]) -> list[Json]:
    """Return enrolled faces that are like another one."""
    return [
        {"person": face.person, "similarity": round(float(face.similarity), 4), "face": _name(face.key, face.face_id)}
        for face in found
    ]


def pairs_of(table: Sequence[Group]) -> list[tuple[int, int, float]]:
    """Return groups that may be the same person: the larger one, the other, their mean cosine; the most alike first."""
    sizes = {group.id: group.size for group in table}
    pairs: dict[tuple[int, int], float] = {}
    for group in table:
        for other, likeness in group.alike:
            if other in sizes:
                a, b = sorted((group.id, other), key=lambda id: (-sizes[id], id))
                pairs[a, b] = max(likeness, pairs.get((a, b), -1.0))
    return [(a, b, likeness) for (a, b), likeness in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))]
