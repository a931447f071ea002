"""A face as a small picture, where the scan kept none: cut out of its photo, if that is still the same."""

from __future__ import annotations

from facepipe.errors import FacepipeError
from facepipe.groups.pile import Pile
from facepipe.groups.values import FaceKey
from facepipe.images import content_hash, read_bytes, read_image_bytes


def thumbnail_of(pile: Pile, key: FaceKey) -> bytes | None:
    """Return a JPEG, None when the photo is gone, is another now, or lies in an archive."""
    from facepipe.embed.clips import frame_of
    from facepipe.outputs.html import thumbnail
    from facepipe.records import face_record

    row = pile.row(key)
    if row is None:
        return None
    face = pile.face(row)
    try:
        if face.span is not None:
            return thumbnail(frame_of(pile.path(row), key.content, face.span.best), face_record(face))
        name, data = read_bytes(pile.path(row))
        if content_hash(data) != key.content:
            return None
        return thumbnail(read_image_bytes(data, name), face_record(face))
    except FacepipeError:
        return None
