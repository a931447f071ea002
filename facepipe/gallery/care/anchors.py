"""Negative anchors: "this face is NOT that person". A probe that is nearer to one than to the person is not this person."""

from __future__ import annotations

import time

from facepipe.gallery.people import require_person, set_source, touch
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.store import GalleryStore
from facepipe.types import Face, Float32


def add_anchor(gallery: GalleryStore, name: str, vector: Float32, face: Face, source: str, content: str) -> bool:
    """Note that a face is not the person `name`; return False when this photo was noted before.

    vector: float32 (d,), unit. source: path of the photo. content: SHA-256 of its bytes, hex. UsageError when nobody has this name.
    """
    if vector.shape != (gallery.dim,):
        raise ValueError(f"add_anchor: expected a vector of shape ({gallery.dim},), got {vector.shape}")
    database, codec = gallery.database, gallery.database.codec
    with database.write("not") as generation:
        person_id = require_person(database, name)
        x1, y1, x2, y2 = map(float, face.box)
        anchor_id = database.insert(
            "anchor",
            person_id=person_id,
            content=codec.lookup_photo(content),
            **{"x1": x1, "y1": y1, "x2": x2, "y2": y2},
            landmarks=face.landmarks.tobytes(),
            vector=b"",  # sealed for the row's id, which is not known yet
            created=time.time(),
            crc=0,
        )
        if anchor_id is None:
            return False
        data = codec.seal(vector.tobytes(), "anchor.vector", anchor_id, person_id)
        database.connection.execute(
            "UPDATE anchor SET vector = ?, crc = ? WHERE id = ?", (data, vector_checksum(anchor_id, data), anchor_id)
        )
        set_source(database, source, anchor_id, person_id, "anchor")
        touch(database, [person_id], generation)
        database.log("not", person_id)
    return True


def remove_anchor(gallery: GalleryStore, name: str, content: str) -> bool:
    """Take back that the face of a photo is not the person `name`; return False when it was not noted. See `add_anchor`."""
    database = gallery.database
    with database.write("undo") as generation:
        person_id = require_person(database, name)
        key = database.codec.lookup_photo(content)
        query = "DELETE FROM anchor WHERE content = ? AND person_id = ?"
        if not database.connection.execute(query, (key, person_id)).rowcount:
            return False
        touch(database, [person_id], generation)
        database.log("not", person_id, undone=True)
    return True
