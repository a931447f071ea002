"""What the first two steps found in a photo, as bytes for the catalog: exact, and checked when they are read back.

A head (checksum of all that follows it, faces, length of a vector, displayed width and height), a row for each face, the
vectors; all little-endian. No pickle: opening somebody's catalog runs no code.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple
from math import isnan

import numpy as np
from numpy.typing import NDArray

from facepipe.types import Described, Embeddings, Face, Float32, Quality

_HEAD = struct.Struct("<5I")
_CHECKSUM = struct.Struct("<I")
#: Scores and figures of quality are Python's floats, which are rounded only in the records.
_FACE = np.dtype(
    [
        *(("box", "<f4", (4,)), ("landmarks", "<f4", (5, 2)), ("score", "<f8"), ("quality", "<f8", (7,))),
        *(("turn", "<i2"), ("enhanced", "<i2")),
    ]
)
_VALUE = np.dtype("<f4")


def pack(photo: Described) -> bytes:
    """Return size, faces and vectors of a photo as bytes."""
    rows = np.zeros(len(photo.faces), _FACE)
    for row, face in zip(rows, photo.faces, strict=True):
        row["box"], row["landmarks"] = face.box, face.landmarks
        *figures, usable = astuple(face.quality)
        row["score"], row["quality"] = face.score, (*figures, np.nan if usable is None else usable)
        row["turn"], row["enhanced"] = face.turn, face.enhanced
    vectors = photo.embeddings.vectors
    head = _HEAD.pack(0, *vectors.shape, *photo.size)
    data = head[_CHECKSUM.size :] + rows.tobytes() + np.ascontiguousarray(vectors, _VALUE).tobytes()
    return _CHECKSUM.pack(zlib.crc32(data)) + data


def unpack(data: object, path: str, model: str) -> Described | None:
    """Return the photo that was packed; None when the bytes are damaged, or no bytes at all.

    path: what the photo is called. model: fingerprint of the embedder that made the vectors.
    """
    raw = raw_faces(data)
    if raw is None:
        return None
    size, rows, vectors = raw
    boxes, landmarks = rows["box"].astype(np.float32), rows["landmarks"].astype(np.float32)
    faces = tuple(
        Face(box, score, points, quality_of(*figures), turn, bool(enhanced))
        for box, score, points, figures, turn, enhanced in zip(
            boxes,
            *(rows["score"].tolist(), landmarks, rows["quality"].tolist()),
            *(rows["turn"].tolist(), rows["enhanced"].tolist()),
            strict=True,
        )
    )
    return Described(path, size, faces, Embeddings(vectors, model))


def face_count(data: object) -> int:
    """Return how many faces a photo has that was packed, without a look at them; 0 for no bytes."""
    return int(_HEAD.unpack_from(data)[1]) if isinstance(data, bytes) and len(data) >= _HEAD.size else 0


def raw_faces(data: object) -> tuple[tuple[int, int], NDArray[np.void], Float32] | None:
    """Return displayed size, faces and vectors as arrays, for many photos at a time; None when the bytes are damaged, or no bytes.

    The faces' fields: box, landmarks, score, quality (in the order of `Quality`), turn, enhanced.
    """
    if not isinstance(data, bytes) or len(data) < _HEAD.size:
        return None
    checksum, count, dim, width, height = _HEAD.unpack_from(data)
    end = _HEAD.size + count * _FACE.itemsize
    if len(data) != end + count * dim * _VALUE.itemsize or zlib.crc32(data[_CHECKSUM.size :]) != checksum:
        return None
    vectors = np.frombuffer(data, _VALUE, count * dim, end).astype(np.float32).reshape(count, dim)
    return (width, height), np.frombuffer(data, _FACE, count, _HEAD.size), vectors


def quality_of(
    size: float, sharpness: float, yaw: float, pitch: float, roll: float, edge_density: float, usable: float
) -> Quality:
    """Return what was measured of a face, from its packed figures; NaN stands for what was not."""
    return Quality(size, sharpness, yaw, pitch, roll, edge_density, None if isnan(usable) else usable)
