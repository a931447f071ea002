"""What makes a row of the gallery trustworthy: checksums, the chain of the journal, and names in one form."""

from __future__ import annotations

import hashlib
import unicodedata
import zlib
from typing import Any

from facepipe.errors import UsageError
from facepipe.text import printable

CRC_OF_PERSON = "checksum(id, name, name_key, created, changed)"
CRC_OF_FACE = (
    "checksum(id, person_id, source, content, ordinal, x1, y1, x2, y2, score, landmarks, size, sharpness, yaw, pitch,"
    " roll, edge_density, enrolled, expires, changed)"
)


def checksum(*values: Any) -> int:
    """Return the CRC-32 of a row's values (numbers, text, bytes, None)."""
    return zlib.crc32(repr(values).encode())


def vector_checksum(row_id: int, data: bytes) -> int:
    """Return the CRC-32 of a blob and the id of the row that it belongs to."""
    return zlib.crc32(data, row_id & 0xFFFFFFFF)


def journal_digest(previous: bytes, entry: tuple[Any, ...]) -> bytes:
    """Return the hash that chains an entry to the one before it."""
    return hashlib.sha256(previous + repr(entry).encode()).digest()


def normal_name(name: str) -> str:
    """Return a person's name in the form in which names are compared: NFC without outer blanks.

    UsageError when it cannot be a name: a line break at its end is a mistake, not a blank.
    """
    cleaned = unicodedata.normalize("NFC", name).strip()
    if not cleaned or len(cleaned) > 200 or any(unicodedata.category(c) in {"Cc", "Cs"} for c in name):
        raise UsageError(f"'{printable(name[:200])}' is not a name: give 1 to 200 printable characters")
    return cleaned


def new_name(name: str) -> str:
    """Return a name that is to be given to somebody, in its normal form; other blanks become plain ones.

    UsageError when it cannot be a name, or holds what nobody can see: two people would look the same in every list.
    """
    cleaned = normal_name("".join(" " if unicodedata.category(char) == "Zs" else char for char in name))
    shown = printable(cleaned)
    if shown != cleaned:
        raise UsageError(f"'{shown}' is not a name: it holds invisible characters (the escapes): give it without them")
    return cleaned
