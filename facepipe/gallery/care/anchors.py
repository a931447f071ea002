"""Negative anchors: "this face is NOT that person". A probe that is nearer to one than to the person is not this person."""

from __future__ import annotations

import time

from facepipe.gallery.people import require_person, touch
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.store import GalleryStore
from facepipe.types import Face, Float32


def add_anchor(
    gallery: GalleryStore,
    name: str,
    vector: Float32,
    *,
    face: Face | None = None,
    source: str | None = None,
    content: str | None = None,
) -> bool:
    """Note that a face is not the person `name`; return False when this photo was noted before.

    vector: float32 (d,), unit. content: SHA-256 of the photo's bytes, hex. UsageError when nobody has this name.
    """
    if vector.shape != (gallery.dim,):
        raise ValueError(f"add_anchor: expected a vector of shape ({gallery.dim},), got {vector.shape}")
    database = gallery.database
    codec = database.codec
    with database.write("not") as generation:
        person_id = require_person(database, name)
        data = codec.seal(vector.tobytes())
        cursor = database.connection.execute(
            "INSERT INTO anchor (person_id, source, content, x1, y1, x2, y2, landmarks, vector, created, crc)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
            (
                person_id,
                None if source is None else codec.seal_text(source),
                None if content is None else codec.lookup(bytes.fromhex(content)[:16]),
                *((None,) * 4 if face is None else map(float, face.box)),
                None if face is None else face.landmarks.tobytes(),
                data,
                time.time(),
            ),
        )
        if not cursor.rowcount:
            return False
        anchor_id = cursor.lastrowid
        assert anchor_id is not None
        database.connection.execute(
            "UPDATE anchor SET crc = ? WHERE id = ?", (vector_checksum(anchor_id, data), anchor_id)
        )
        touch(database, [person_id], generation)
        database.log("not", person_id)
    return True
