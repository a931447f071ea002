"""Checksums of rows and vectors, and the digests that chain the journal."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

CRC_OF_PERSON = "checksum(id, name, name_key, created, changed)"
#: What is known of a face, as columns of its table; `size` to `edge_density` are the fields of `Quality`.
FACE_COLUMNS = (
    "source, content, ordinal, x1, y1, x2, y2, score, landmarks, size, sharpness, yaw, pitch, roll, edge_density,"
    " enrolled, expires"
)
CRC_OF_FACE = f"checksum(id, person_id, {FACE_COLUMNS}, changed)"


def checksum(*values: Any) -> int:
    """Return the CRC-32 of a row's values (numbers, text, bytes, None)."""
    return zlib.crc32(repr(values).encode())


def vector_checksum(row_id: int, data: bytes) -> int:
    """Return the CRC-32 of a blob and the id of the row that it belongs to."""
    return zlib.crc32(data, row_id & 0xFFFFFFFF)


def journal_digest(previous: bytes, entry: tuple[Any, ...]) -> bytes:
    """Return the hash that chains an entry to the one before it."""
    return hashlib.sha256(previous + repr(entry).encode()).digest()
