"""A gallery as one file that others can read: Parquet or SQLite, no pickle; and back again.

One row for each face: person, source, content (first 16 bytes of the photo's SHA-256), ordinal, box, score, landmarks,
quality, times, vector, and on request the chip. The model's fingerprint stands beside them, and import refuses another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.errors import GalleryModelError, InputError, UsageError
from facepipe.files.guard import MARK, own_path, require_outside
from facepipe.gallery.chips import StoredChip
from facepipe.gallery.names import new_name
from facepipe.gallery.people import names_by_id, open_source
from facepipe.gallery.storage.checksums import FACE_COLUMNS
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.soundness import is_sound_setting
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.types import UNIT_TOLERANCE, Face, Quality

FORMAT = "facepipe gallery 1"
SUFFIXES = (".parquet", ".sqlite")
_CHUNK = 8192
#: No value of an export is longer.
_LONGEST = 50_000_000
_TYPES: dict[str, Any] = {"TEXT": str, "BLOB": bytes, "INTEGER": int, "REAL": (int, float)}
#: Column -> SQLite type; `vector` and `landmarks` are little-endian float32 there, lists of floats in Parquet.
_COLUMNS = {
    "person": "TEXT NOT NULL",
    **dict.fromkeys(FACE_COLUMNS.split(", "), "REAL"),
    "vector": "BLOB NOT NULL",
    "chip": "BLOB",
    **dict.fromkeys(("chip_x", "chip_y", "chip_scale"), "REAL"),
} | {
    "source": "TEXT",
    "content": "BLOB",
    "ordinal": "INTEGER NOT NULL",
    "landmarks": "BLOB",
    "enrolled": "REAL NOT NULL",
}


def export_gallery(database: Database, path: Path, *, chips: bool = False) -> int:
    """Write all faces to `path`, unsealed, whole or not at all, for its owner alone; return how many.

    The suffix chooses the format. UsageError for another suffix and for a place in the gallery's own folder.
    """
    require_outside(database.folder, path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: unknown suffix: name it .parquet or .sqlite")
    facts = {"writer": MARK, "format": FORMAT, "fingerprint": database.fingerprint, "dim": str(database.dim)}
    write = _write_parquet if path.suffix == ".parquet" else _write_sqlite
    with database.read() as connection, own_path(path) as temporary:
        write(temporary, facts, _rows(database, chips), database.dim)
        return int(connection.execute("SELECT count(*) FROM vector").fetchone()[0])


def _rows(database: Database, chips: bool) -> Iterator[list[tuple[Any, ...]]]:
    """Yield rows in chunks, in the order of `_COLUMNS`."""
    codec = database.codec
    names = names_by_id(database)
    chip = "c.data, c.x, c.y, c.scale" if chips else "NULL, NULL, NULL, NULL"
    cursor = database.connection.execute(
        f"SELECT f.id, f.person_id, {FACE_COLUMNS}, v.data, {chip} FROM face f"
        " JOIN vector v ON v.face_id = f.id LEFT JOIN chip c ON c.face_id = f.id ORDER BY f.id"
    )
    while rows := cursor.fetchmany(_CHUNK):
        yield [
            (
                names[person_id],
                open_source(database, source, face_id, person_id),
                None if content is None else codec.unlookup(content, "content"),
                *facts,
                codec.open(vector, "vector.data", face_id, person_id),
                None if data is None else codec.open(data, "chip.data", face_id, person_id),
                x,
                y,
                scale,
            )
            for face_id, person_id, source, content, *facts, vector, data, x, y, scale in rows
        ]


def _write_sqlite(path: Path, facts: dict[str, str], chunks: Iterator[list[tuple[Any, ...]]], dim: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
        connection.execute(f"CREATE TABLE face ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})")
        marks = ", ".join("?" * len(_COLUMNS))
        for rows in chunks:
            connection.executemany(f"INSERT INTO face VALUES ({marks})", rows)
        connection.commit()


def _write_parquet(path: Path, facts: dict[str, str], chunks: Iterator[list[tuple[Any, ...]]], dim: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"TEXT": pa.string(), "INTEGER": pa.int64(), "REAL": pa.float64(), "BLOB": pa.binary()}
    fields = {name: kinds[kind.split()[0]] for name, kind in _COLUMNS.items()}
    fields |= {"vector": pa.list_(pa.float32(), dim), "landmarks": pa.list_(pa.float32())}
    schema = pa.schema(list(fields.items()), metadata={f"facepipe_{key}": value for key, value in facts.items()})
    with pq.ParquetWriter(path, schema) as writer:
        for rows in chunks:
            columns: dict[str, Any] = dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
            flat = np.frombuffer(b"".join(columns["vector"]), np.float32)
            columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)
            columns["landmarks"] = [None if b is None else np.frombuffer(b, np.float32) for b in columns["landmarks"]]
            writer.write_table(pa.table(columns, schema=schema))


def import_gallery(folder: Path, path: Path, secret: Secret | None = None) -> tuple[int, int]:
    """Add the faces of an exported file to the gallery in `folder`, made when missing, in one transaction.

    Returns how many were added, and how many were there before. GalleryModelError when the vectors are another model's,
    InputError when the file was not exported by facepipe or is damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    facts, rows = _read_parquet(path) if path.suffix == ".parquet" else _read_sqlite(path)
    model, dim = facts.get("fingerprint"), facts.get("dim")
    sound = isinstance(dim, str) and is_sound_setting("dim", dim)
    if (
        facts.get("format") != FORMAT
        or not isinstance(model, str)
        or not is_sound_setting("fingerprint", model)
        or not sound
    ):
        raise InputError(f"{path}: not an exported gallery: make one with facepipe gallery export")
    faces = [_checked_face(path, number, int(dim or 0), row) for number, row in enumerate(rows, 1)]
    # Only now: a file that cannot be read leaves no gallery behind.
    with GalleryStore.create_or_open(folder, model, int(dim or 0), secret or Secret.from_environment()) as gallery:
        if facts["fingerprint"] != gallery.fingerprint:
            raise GalleryModelError(
                f"{path}: holds vectors of {facts['fingerprint']}, the gallery {folder} holds {gallery.fingerprint}: "
                "import it into a gallery of its own and move that with facepipe gallery reembed"
            )
        ids = gallery.add(faces, "import")
    added = sum(face_id is not None for face_id in ids)
    return added, len(ids) - added


def _read_sqlite(path: Path) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            kinds = dict(connection.execute("SELECT name, type FROM sqlite_master WHERE name IN ('meta', 'face')"))
            if set(kinds.values()) != {"table"}:  # a view could run for ever
                raise InputError(f"{path}: not an exported gallery: make one with facepipe gallery export")
            facts = dict(connection.execute("SELECT key, value FROM meta").fetchall())
            if facts.get("format") != FORMAT:
                return facts, []
            return facts, connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM face").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as an exported gallery ({error})") from error


def _read_parquet(path: Path) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        facts = {
            key.decode().removeprefix("facepipe_"): value.decode()
            for key, value in metadata.items()
            if key.startswith(b"facepipe_")
        }
        if facts.get("format") != FORMAT:
            return facts, []
        columns = {name: table[name].to_pylist() for name in _COLUMNS if name not in {"vector", "landmarks"}}
        flat = table["vector"].combine_chunks()
        vectors = flat.values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(table), -1)
        columns["vector"] = [vector.tobytes() for vector in vectors]
        columns["landmarks"] = [
            None if points is None else np.array(points, np.float32).tobytes()
            for points in table["landmarks"].to_pylist()
        ]
    except (pa.ArrowException, AttributeError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as an exported gallery ({error})") from error
    return facts, list(zip(*(columns[name] for name in _COLUMNS), strict=True))


def _checked_face(path: Path, number: int, dim: int, row: tuple[Any, ...]) -> NewFace:
    """Return the face of a row; InputError when it holds anything but what an export writes there."""
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    for name, value in values.items():
        kind, _, needed = _COLUMNS[name].partition(" ")
        wrong = value is None and bool(needed)
        if value is not None:
            wrong = not isinstance(value, _TYPES[kind]) or (kind == "REAL" and not abs(value) < 1e12)
        if wrong:
            raise InputError(f"{path}: row {number} is damaged ({name} cannot be {value!r:.40}): export it again")
    try:
        return _new_face(dim, values)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{path}: row {number} is damaged ({error}): export it again") from error


def _new_face(dim: int, values: dict[str, Any]) -> NewFace:
    vector = np.frombuffer(values["vector"], np.float32)
    if vector.shape != (dim,) or not abs(float(np.linalg.norm(vector)) - 1.0) <= UNIT_TOLERANCE:
        raise ValueError(f"the vector does not have unit length and {dim} numbers")
    if values["content"] is not None and len(values["content"]) != 16:
        raise ValueError("content is not the first half of a SHA-256")
    times = (values["enrolled"], values["expires"] or 0.0)
    if not 0 <= values["ordinal"] < 2**31 or not all(0 <= time < 253402300800 for time in times):
        raise ValueError("a number or time is out of range")
    face = None
    if values["x1"] is not None:
        if None in [values[name] for name in list(_COLUMNS)[4:16]]:
            raise ValueError("a face without some of its figures")
        quality = Quality(*(values[name] for name in ("size", "sharpness", "yaw", "pitch", "roll", "edge_density")))
        box = np.array([values[name] for name in ("x1", "y1", "x2", "y2")], np.float32)
        face = Face(box, values["score"], np.frombuffer(values["landmarks"], np.float32).reshape(5, 2), quality)
    chip = None
    if values["chip"] is not None:
        chip = StoredChip(values["chip"], values["chip_x"], values["chip_y"], values["chip_scale"])
    return NewFace(
        new_name(values["person"]),
        vector,
        source=values["source"],
        content=None if values["content"] is None else values["content"].hex(),
        ordinal=values["ordinal"],
        face=face,
        chip=chip,
        expires=values["expires"],
        enrolled=values["enrolled"],
    )
