"""What the first two steps found in a photo, as bytes for the catalog: exact, and checked when they are read back.

A head (checksum of all that follows it, faces, length of a vector, displayed width and height), a row for each face, the
vectors; of a video also a row for each face's span, its duration, and what is damaged as UTF-8. All little-endian. No pickle: opening
somebody's catalog runs no code.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple
from math import isnan

import numpy as np
from numpy.typing import NDArray

from facepipe.types import Clip, Described, Embeddings, Face, Float32, Quality, Span

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
_SPAN = np.dtype([("start", "<f8"), ("end", "<f8"), ("best", "<f8"), ("frames", "<i4")])
_DURATION = struct.Struct("<d")


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
    if photo.clip is not None:
        spans = [astuple(face.span) for face in photo.faces if face.span is not None]
        damage = (photo.clip.damage or "").encode("utf-8", "backslashreplace")
        data += np.array(spans, _SPAN).tobytes() + _DURATION.pack(photo.clip.duration) + damage
    return _CHECKSUM.pack(zlib.crc32(data)) + data


def unpack(data: object, path: str, model: str) -> Described | None:
    """Return the photo that was packed; None when the bytes are damaged, or no bytes at all.

    path: what the photo is called. model: fingerprint of the embedder that made the vectors.
    """
    raw = raw_faces(data)
    if raw is None or not isinstance(data, bytes):
        return None
    size, rows, vectors = raw
    boxes, landmarks = rows["box"].astype(np.float32), rows["landmarks"].astype(np.float32)
    clip, spans = clip_of(data)
    seen = [None] * len(rows) if clip is None else [Span(*span) for span in spans.tolist()]
    faces = tuple(
        Face(box, score, points, quality_of(*figures), turn, bool(enhanced), span)
        for box, score, points, figures, turn, enhanced, span in zip(
            boxes,
            *(rows["score"].tolist(), landmarks, rows["quality"].tolist()),
            *(rows["turn"].tolist(), rows["enhanced"].tolist()),
            seen,
            strict=True,
        )
    )
    return Described(path, size, faces, Embeddings(vectors, model), clip=clip)


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
    rest = len(data) - end - count * dim * _VALUE.itemsize
    if (rest and rest < count * _SPAN.itemsize + _DURATION.size) or zlib.crc32(data[_CHECKSUM.size :]) != checksum:
        return None
    vectors = np.frombuffer(data, _VALUE, count * dim, end).astype(np.float32).reshape(count, dim)
    return (width, height), np.frombuffer(data, _FACE, count, _HEAD.size), vectors


def clip_of(data: bytes) -> tuple[Clip | None, NDArray[np.void]]:
    """Return what a video has besides faces, and the spans of these, from bytes that `raw_faces` took; None and none for a photo."""
    _, count, dim, _, _ = _HEAD.unpack_from(data)
    end = _HEAD.size + count * (_FACE.itemsize + dim * _VALUE.itemsize)
    if len(data) == end:
        return None, np.zeros(0, _SPAN)
    spans = np.frombuffer(data, _SPAN, count, end)
    end += spans.nbytes
    damage = data[end + _DURATION.size :].decode("utf-8", "replace")
    return Clip(_DURATION.unpack_from(data, end)[0], damage or None), spans


def quality_of(
    size: float, sharpness: float, yaw: float, pitch: float, roll: float, edge_density: float, usable: float
) -> Quality:
    """Return what was measured of a face, from its packed figures; NaN stands for what was not."""
    return Quality(size, sharpness, yaw, pitch, roll, edge_density, None if isnan(usable) else usable)
