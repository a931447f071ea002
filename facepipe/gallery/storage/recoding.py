"""Rows whose values are stored anew: under another key, plain again, or for the person that a face now belongs to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.storage.codec import Codec

_CHUNK = 4096
_FACE_OWNER = "(SELECT person_id FROM face WHERE id = face_id)"
#: Table -> its key, the column or expression that holds the person, and how each column is stored.
_COLUMNS: dict[str, tuple[str, str, dict[str, str]]] = {
    "person": ("id", "id", {"name": "text", "name_key": "name"}),
    "subject": ("person_id", "person_id", {"name": "text", "name_key": "name"}),
    "face": ("id", "person_id", {"source": "text", "content": "content"}),
    "vector": ("face_id", _FACE_OWNER, {"data": "blob"}),
    "vector_next": ("face_id", _FACE_OWNER, {"data": "blob"}),
    "chip": ("face_id", _FACE_OWNER, {"data": "blob"}),
    "anchor": ("id", "person_id", {"source": "text", "content": "content", "vector": "blob"}),
}
#: A new vector takes the old one's place when all are there: it is sealed for that place from the start.
_PLACES = {"vector_next": "vector"}
_OF_A_FACE = ("vector", "vector_next", "chip", "face")


def recode(connection: sqlite3.Connection, old: Codec, new: Codec) -> None:
    """Store everything as `new` stores it; within `write`. The checksums of `person` and `face` are not its business."""
    for table, (key, owner, columns) in _COLUMNS.items():
        for row_id, person_id, *stored in _by_id(connection, table, key, (owner, *columns)):
            _store(connection, table, row_id, stored, (old, person_id), (new, person_id))


def hand_over(connection: sqlite3.Connection, codec: Codec, table: str, row_ids: Sequence[int], person_id: int) -> None:
    """Give faces or anchors (`table`), with all that belongs to them, to another person; within `write`."""
    tables = _OF_A_FACE if table == "face" else (table,)
    for row_id in row_ids:
        (owner,) = connection.execute(f"SELECT person_id FROM {table} WHERE id = ?", (row_id,)).fetchone()
        for each in tables if codec.sealed else ():
            key, _, columns = _COLUMNS[each]
            for stored in connection.execute(
                f"SELECT {', '.join(columns)} FROM {each} WHERE {key} = ?", (row_id,)
            ).fetchall():
                _store(connection, each, row_id, stored, (codec, owner), (codec, person_id))
        connection.execute(f"UPDATE {table} SET person_id = ? WHERE id = ?", (person_id, row_id))


def _store(
    connection: sqlite3.Connection,
    table: str,
    row_id: int,
    stored: Sequence[Any],
    old: tuple[Codec, int],
    new: tuple[Codec, int],
) -> None:
    key, _, columns = _COLUMNS[table]
    values: dict[str, Any] = {}
    for (column, kind), value in zip(columns.items(), stored, strict=True):
        before, after = ((f"{_PLACES.get(table, table)}.{column}", row_id, person_id) for _, person_id in (old, new))
        if value is None:
            values[column] = None
        elif kind == "text":
            values[column] = new[0].seal_text(old[0].open_text(value, *before), *after)
        elif kind == "blob":
            values[column] = new[0].seal(old[0].open(value, *before), *after)
            values["crc"] = vector_checksum(row_id, values[column])
        else:
            values[column] = new[0].lookup(old[0].unlookup(value, kind), kind)
    settings = ", ".join(f"{column} = ?" for column in values)
    connection.execute(f"UPDATE {table} SET {settings} WHERE {key} = ?", (*values.values(), row_id))


def _by_id(connection: sqlite3.Connection, table: str, key: str, columns: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Yield rows in chunks, so that updating them cannot disturb the reading."""
    last = -1
    while rows := connection.execute(
        f"SELECT {key}, {', '.join(columns)} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {_CHUNK}", (last,)
    ).fetchall():
        yield from rows
        last = rows[-1][0]
