"""What the first two steps found in a photo, as bytes for the ledger: exact, and checked when they are read back.

A head (checksum of all that follows it, faces, length of a vector, displayed width and height, decoded pixels), a row for each face,
the vectors; all little-endian. No pickle: opening somebody's ledger runs no code.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple, dataclass

import numpy as np

from facepipe.types import Face, Float32, Quality

_HEAD = struct.Struct("<6I")
_CHECKSUM = struct.Struct("<I")
#: Scores and figures of quality are Python's floats, which are rounded only in the records.
_FACE = np.dtype([("box", "<f4", (4,)), ("landmarks", "<f4", (5, 2)), ("score", "<f8"), ("quality", "<f8", (6,))])
_VALUE = np.dtype("<f4")


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What steps 1 and 2 found in a photo.

    size: displayed (width, height). pixels: as many as were decoded. faces: best score first. vectors: float32 (n, d), unit.
    """

    size: tuple[int, int]
    pixels: int
    faces: tuple[Face, ...]
    vectors: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """What an earlier run found out about a photo that did not change since; it is not read again for that.

    content: SHA-256 of its bytes. look: its faces. record: its result then. thumbnails: of how many of its faces there is one.
    made: the pictures that are asked for now were made of that result. wanted: its bytes may be needed for pictures or copies.
    """

    content: str
    look: Look
    record: str
    thumbnails: int = 0
    made: bool = False
    wanted: bool = False


def pack(look: Look) -> bytes:
    """Return a look as bytes."""
    rows = np.zeros(len(look.faces), _FACE)
    for row, face in zip(rows, look.faces, strict=True):
        row["box"], row["landmarks"], row["score"], row["quality"] = (
            face.box,
            face.landmarks,
            face.score,
            astuple(face.quality),
        )
    count, dim = look.vectors.shape
    head = _HEAD.pack(0, count, dim, *look.size, look.pixels)
    data = head[_CHECKSUM.size :] + rows.tobytes() + np.ascontiguousarray(look.vectors, _VALUE).tobytes()
    return _CHECKSUM.pack(zlib.crc32(data)) + data


def unpack(data: object) -> Look | None:
    """Return the look that was packed; None when the bytes are damaged, or no bytes at all."""
    if not isinstance(data, bytes) or len(data) < _HEAD.size:
        return None
    checksum, count, dim, width, height, pixels = _HEAD.unpack_from(data)
    end = _HEAD.size + count * _FACE.itemsize
    if len(data) != end + count * dim * _VALUE.itemsize or zlib.crc32(data[_CHECKSUM.size :]) != checksum:
        return None
    rows = np.frombuffer(data, _FACE, count, _HEAD.size)
    boxes, landmarks = rows["box"].astype(np.float32), rows["landmarks"].astype(np.float32)
    faces = tuple(
        Face(box, score, points, Quality(*quality))
        for box, score, points, quality in zip(
            boxes, rows["score"].tolist(), landmarks, rows["quality"].tolist(), strict=True
        )
    )
    vectors = np.frombuffer(data, _VALUE, count * dim, end).astype(np.float32).reshape(count, dim)
    return Look((width, height), pixels, faces, vectors)
