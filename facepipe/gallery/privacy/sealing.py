"""Sealing: everything that is stored is encrypted, or stored plain again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from typing import Any

from facepipe.gallery.privacy.erasing import scrub
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.storage.codec import Codec, SealedCodec, Secret, wrap_key
from facepipe.gallery.storage.database import Database

_CHUNK = 4096


def seal(database: Database, secret: Secret) -> None:
    """Seal the gallery with a new data key under `secret`: a plain one for the first time, a sealed one anew (rotation).

    One transaction: it is sealed with the old key or with the new one, never with both.
    """
    data_key = os.urandom(32)
    _recode(database, SealedCodec(data_key), wrap_key(secret, data_key))


def unseal(database: Database) -> None:
    """Store names, vectors and chips as they are again."""
    _recode(database, Codec(), None)


def _recode(database: Database, new: Codec, record: str | None) -> None:
    old = database.codec
    with database.lock("seal"):
        with database.write("seal") as generation:
            _recode_rows(database.connection, old, new, generation)
            database.set_meta("key", record)
            database.set_meta("scrub", "seal")
            database.log("seal" if new.sealed else "unseal")
        database.codec = new
        database.key_record = record
        scrub(database)


def _recode_rows(connection: sqlite3.Connection, old: Codec, new: Codec, generation: int) -> None:
    def text(value: str | bytes | None) -> str | bytes | None:
        return None if value is None else new.seal_text(old.open_text(value))

    def lookup(value: bytes | None) -> bytes | None:
        return None if value is None else new.lookup(old.unlookup(value))

    def blob(value: bytes) -> bytes:
        return new.seal(old.open(value))

    for row_id, name, key in _by_id(connection, "person", "name, name_key"):
        connection.execute(
            "UPDATE person SET name = ?, name_key = ?, changed = ? WHERE id = ?",
            (text(name), lookup(key), generation, row_id),
        )
    for row_id, name, key in _by_id(connection, "subject", "name, name_key", "person_id"):
        connection.execute(
            "UPDATE subject SET name = ?, name_key = ? WHERE person_id = ?", (text(name), lookup(key), row_id)
        )
    for row_id, source, content in _by_id(connection, "face", "source, content"):
        connection.execute(
            "UPDATE face SET source = ?, content = ?, changed = ? WHERE id = ?",
            (text(source), lookup(content), generation, row_id),
        )
    for table in ("vector", "chip", "vector_next"):
        for row_id, data in _by_id(connection, table, "data", "face_id"):
            sealed = blob(data)
            connection.execute(
                f"UPDATE {table} SET data = ?, crc = ? WHERE face_id = ?",
                (sealed, vector_checksum(row_id, sealed), row_id),
            )
    for row_id, source, content, vector in _by_id(connection, "anchor", "source, content, vector"):
        sealed = blob(vector)
        connection.execute(
            "UPDATE anchor SET source = ?, content = ?, vector = ?, crc = ? WHERE id = ?",
            (text(source), lookup(content), sealed, vector_checksum(row_id, sealed), row_id),
        )


def _by_id(connection: sqlite3.Connection, table: str, columns: str, key: str = "id") -> Iterator[tuple[Any, ...]]:
    """Yield rows in chunks, so that updating them cannot disturb the reading."""
    last = -1
    while rows := connection.execute(
        f"SELECT {key}, {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {_CHUNK}", (last,)
    ).fetchall():
        yield from rows
        last = rows[-1][0]
