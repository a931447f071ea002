"""Sealing: everything that is stored is encrypted, or stored plain again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
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
    def text(value: str | bytes) -> str | bytes:
        return new.seal_text(old.open_text(value))

    def lookup(value: bytes) -> bytes:
        return new.lookup(old.unlookup(value))

    def blob(value: bytes) -> bytes:
        return new.seal(old.open(value))

    tables: list[tuple[str, str, dict[str, Callable[[Any], Any]]]] = [
        ("person", "id", {"name": text, "name_key": lookup}),
        ("subject", "person_id", {"name": text, "name_key": lookup}),
        ("face", "id", {"source": text, "content": lookup}),
        ("vector", "face_id", {"data": blob}),
        ("vector_next", "face_id", {"data": blob}),
        ("chip", "face_id", {"data": blob}),
        ("anchor", "id", {"source": text, "content": lookup, "vector": blob}),
    ]
    for table, key, columns in tables:
        for row_id, *stored in _by_id(connection, table, key, columns):
            values: dict[str, Any] = {}
            for (column, recode), value in zip(columns.items(), stored, strict=True):
                values[column] = None if value is None else recode(value)
                if recode is blob:
                    values["crc"] = vector_checksum(row_id, values[column])
            settings = ", ".join(f"{column} = ?" for column in values)
            connection.execute(f"UPDATE {table} SET {settings} WHERE {key} = ?", (*values.values(), row_id))
    for table in ("person", "face"):
        connection.execute(f"UPDATE {table} SET changed = ?", (generation,))


def _by_id(connection: sqlite3.Connection, table: str, key: str, columns: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Yield rows in chunks, so that updating them cannot disturb the reading."""
    last = -1
    while rows := connection.execute(
        f"SELECT {key}, {', '.join(columns)} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {_CHUNK}", (last,)
    ).fetchall():
        yield from rows
        last = rows[-1][0]
