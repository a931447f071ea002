"""Moves a gallery to another network: every face is embedded again, from its chip or its photo.

The new vectors gather beside the old ones, batch by batch, each durable; a run that was interrupted continues where it
stopped. Searches use the old vectors until the new ones are whole; then one transaction puts them in their place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from facepipe.detect.quality import head_pose, upright_turn
from facepipe.embed.alignment import align
from facepipe.errors import GalleryError, InputError, NoFaceError
from facepipe.gallery.arrays.derived import drop_derived
from facepipe.gallery.chips import enrolled_photo, face_in_chip, open_chip, read_chip
from facepipe.gallery.people import drop_faces
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.storage.database import Database
from facepipe.images import read_image_bytes
from facepipe.types import Embedder, Face, Float32, Quality, UInt8

BATCH = 64


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """faces: moved. resumed: of them, by an earlier run. dropped: ids of faces dropped. anchors: negative anchors dropped."""

    faces: int
    resumed: int
    dropped: tuple[int, ...]
    anchors: int


#: Returns new vectors, float32 (n, d), for ids of a table, `face` or `anchor`; None for what cannot be embedded again.
Maker = Callable[[str, Sequence[int]], list[Float32 | None]]
#: Is told how many of how many faces are done.
Progress = Callable[[int, int], object]


def reembed(
    database: Database, embedder: Embedder, *, drop_missing: bool = False, progress: Progress = lambda *_: None
) -> ReembedReport:
    """Move the gallery to `embedder`; see `move`. Chips come first, else the photo, if it is still the same file."""
    make = partial(_from_pictures, database, embedder)
    return move(database, embedder.fingerprint, embedder.dim, make, drop_missing=drop_missing, progress=progress)


def move(
    database: Database,
    fingerprint: str,
    dim: int,
    make: Maker,
    *,
    drop_missing: bool = False,
    progress: Progress = lambda *_: None,
) -> ReembedReport:
    """Give every face a vector of another embedder, then put all in place at once.

    Faces that cannot be embedded again stop it before anything changes (GalleryError says how many), unless
    `drop_missing` gives them up.
    """
    if fingerprint == database.fingerprint:
        raise GalleryError(f"{database.folder}: made by {fingerprint} already: there is nothing to move")
    target = json.dumps({"fingerprint": fingerprint, "dim": dim})
    if database.get_meta("reembed") != target:
        with database.write("reembed"):
            database.connection.execute("DELETE FROM vector_next")
            database.set_meta("reembed", target)
    resumed = _count(database, "vector_next")
    missing: set[int] = set()
    while True:
        _gather(database, make, missing, progress)
        with database.lock("reembed"):
            # Somebody may have enrolled since: only under the lock is it known that nobody is left.
            if _waiting(database, missing):
                continue
            if missing and not drop_missing:
                raise GalleryError(
                    f"{database.folder}: {len(missing)} faces have lost both chip and photo (first: face "
                    f"{min(missing)}): drop them with --drop-missing; the gallery is unchanged"
                )
            return _finish(database, fingerprint, dim, make, missing, resumed)


def _gather(database: Database, make: Maker, missing: set[int], progress: Progress) -> None:
    while ids := _waiting(database, missing)[:BATCH]:
        made = make("face", ids)
        with database.write("reembed"):
            for face_id, vector in zip(ids, made, strict=True):
                if vector is None:
                    missing.add(face_id)
                    continue
                query = "SELECT person_id FROM face WHERE id = ?"
                for (owner,) in database.connection.execute(
                    query, (face_id,)
                ).fetchall():  # none when removed meanwhile
                    data = database.codec.seal(vector.tobytes(), "vector.data", face_id, owner)
                    row = (face_id, data, vector_checksum(face_id, data))
                    database.connection.execute("INSERT OR REPLACE INTO vector_next VALUES (?, ?, ?)", row)
        progress(_count(database, "vector_next") + len(missing), _count(database, "vector"))


def _waiting(database: Database, missing: set[int]) -> list[int]:
    """Return some faces that have no new vector yet."""
    rows = database.connection.execute(
        "SELECT id FROM face WHERE NOT EXISTS (SELECT 1 FROM vector_next n WHERE n.face_id = face.id) LIMIT ?",
        (BATCH + len(missing),),
    )
    return [row[0] for row in rows if row[0] not in missing]


def _count(database: Database, table: str) -> int:
    return int(database.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _finish(
    database: Database, fingerprint: str, dim: int, make: Maker, missing: set[int], resumed: int
) -> ReembedReport:
    connection = database.connection
    anchors = connection.execute("SELECT id, person_id FROM anchor ORDER BY id").fetchall()
    made = make("anchor", [anchor_id for anchor_id, _ in anchors]) if anchors else []
    with database.write("reembed") as generation:
        drop_faces(database, sorted(missing), generation)
        connection.execute("DELETE FROM vector")
        connection.execute("INSERT INTO vector SELECT face_id, data, crc FROM vector_next")
        connection.execute("DELETE FROM vector_next")
        for (anchor_id, person_id), vector in zip(anchors, made, strict=True):
            if vector is None:
                connection.execute("DELETE FROM anchor WHERE id = ?", (anchor_id,))
                continue
            data = database.codec.seal(vector.tobytes(), "anchor.vector", anchor_id, person_id)
            connection.execute(
                "UPDATE anchor SET vector = ?, crc = ? WHERE id = ?",
                (data, vector_checksum(anchor_id, data), anchor_id),
            )
        connection.execute("UPDATE face SET changed = ?", (generation,))
        connection.execute("UPDATE person SET changed = ?", (generation,))
        database.set_meta("fingerprint", fingerprint)
        database.set_meta("dim", str(dim))
        database.set_meta("reembed", None)
        database.set_meta("calibration", None)  # it was measured on the old vectors
        database.set_meta("gone_since", str(generation))
        faces = _count(database, "vector")
        database.log("reembed", faces=faces, dropped=len(missing))
    drop_derived(database)
    lost_anchors = sum(vector is None for vector in made)
    return ReembedReport(faces, resumed, tuple(sorted(missing)), lost_anchors)


_UNKNOWN = Quality(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def _from_pictures(database: Database, embedder: Embedder, table: str, ids: Sequence[int]) -> list[Float32 | None]:
    """Return new vectors of faces or anchors, from chips or photos."""
    aligned = {row_id: aligned_chip(database, embedder.template, table, row_id) for row_id in ids}
    cut = {row_id: picture for row_id, picture in aligned.items() if picture is not None}
    if not cut:
        return [None] * len(ids)
    vectors = embedder.embed(np.concatenate(list(cut.values()))).vectors
    found = dict(zip(cut, vectors, strict=True))
    return [found.get(row_id) for row_id in ids]


def aligned_chip(database: Database, template: str, table: str, row_id: int) -> UInt8 | None:
    """Return the aligned chip of a row of `face` or `anchor`, uint8 (1, H, W, 3), None when there is neither a chip nor the photo."""
    query = f"SELECT x1, y1, x2, y2, landmarks FROM {table} WHERE id = ?"
    row = database.connection.execute(query, (row_id,)).fetchone()
    if row is None or row[-1] is None:
        return None
    *corners, landmarks = row
    points = np.frombuffer(landmarks, np.float32).reshape(5, 2)
    turn = upright_turn(float(head_pose(points[None])[0, 2]))
    face = Face(np.array(corners, np.float32), 1.0, points, _UNKNOWN, turn)
    chip = read_chip(database, row_id) if table == "face" else None
    try:
        if chip is not None:
            return align(open_chip(chip), [face_in_chip(face, chip)], template)
        found = enrolled_photo(database, row_id, table)
        return None if found is None else align(read_image_bytes(found[1], found[0]), [face], template)
    except (InputError, NoFaceError):  # moved, deleted or damaged since
        return None
