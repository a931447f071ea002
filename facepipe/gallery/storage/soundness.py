"""Is this database one that facepipe made? It may come from somebody who means harm.

The schema must be exactly that of the migrations: no view in a table's place, no trigger, no other column. SQLite stores any type in
any column, so where something goes wrong the rows are looked at, and a row that facepipe would not have written is what is told.
"""

from __future__ import annotations

import json
import sqlite3
from functools import cache
from typing import Any

from facepipe.errors import GalleryDamagedError
from facepipe.gallery.storage.schema import MIGRATIONS, migrate

#: What Python's code runs into where a value has another type, length or range than it was written with.
SYMPTOMS = (ArithmeticError, AttributeError, AssertionError, LookupError, TypeError, ValueError)

_TIME = "BETWEEN 0 AND 253402300799"


def _number(*columns: str) -> str:
    return " AND ".join(f"({c} IS NULL OR typeof({c}) IN ('real', 'integer') AND abs({c}) < 1e9)" for c in columns)


def _ids(*columns: str) -> str:
    return " AND ".join(f"typeof({c}) = 'integer' AND {c} BETWEEN 0 AND 4611686018427387904" for c in columns)


_BOX = (
    f"{_number('x1', 'y1', 'x2', 'y2')} AND (x1 IS NULL) = (x2 IS NULL) AND (y1 IS NULL) = (y2 IS NULL)"
    " AND (x1 IS NULL OR x1 < x2 AND y1 < y2)"
)
_QUALITY = ("size", "sharpness", "yaw", "pitch", "roll", "edge_density")
#: In a sealed gallery text is ciphertext.
_TEXT_TYPE = "(SELECT CASE WHEN EXISTS (SELECT 1 FROM meta WHERE key = 'key') THEN 'blob' ELSE 'text' END)"
_TEXT = f"typeof({{0}}) = {_TEXT_TYPE} AND length({{0}}) BETWEEN 1 AND 4096"
_OPTIONAL_TEXT = f"({{0}} IS NULL OR typeof({{0}}) = {_TEXT_TYPE} AND length({{0}}) <= 65536)"

#: Table -> what holds for each of its rows.
_SOUND = {
    "meta": "typeof(key) = 'text' AND typeof(value) = 'text' AND length(value) < 10000000",
    "stamp": f"{_ids('generation', 'token')} AND typeof(at) = 'real' AND at {_TIME}",
    "person": f"{_ids('id', 'changed')} AND {_TEXT.format('name')} AND typeof(name_key) = 'blob' AND typeof(created) = 'real'"
    f" AND created {_TIME}",
    "face": f"{_ids('id', 'person_id', 'ordinal', 'changed')} AND {_OPTIONAL_TEXT.format('source')}"
    " AND (content IS NULL OR typeof(content) = 'blob' AND length(content) IN (16, 32))"
    f" AND {_BOX} AND {_number('score', *_QUALITY)} AND (score IS NULL OR score BETWEEN 0 AND 1)"
    " AND (landmarks IS NULL OR typeof(landmarks) = 'blob' AND length(landmarks) = 40)"
    f" AND (x1 IS NULL OR {' AND '.join(f'{c} IS NOT NULL' for c in ('y1', 'score', 'landmarks', *_QUALITY))})"
    f" AND typeof(enrolled) = 'real' AND enrolled {_TIME} AND (expires IS NULL OR typeof(expires) = 'real' AND expires {_TIME})",
    "vector": f"{_ids('face_id')} AND typeof(data) = 'blob' AND length(data) BETWEEN 4 AND 1000000 AND length(data) % 4 = 0",
    "vector_next": f"{_ids('face_id')} AND typeof(data) = 'blob' AND length(data) BETWEEN 4 AND 1000000 AND length(data) % 4 = 0",
    "chip": f"{_ids('face_id')} AND typeof(data) = 'blob' AND length(data) BETWEEN 1 AND 50000000 AND {_number('x', 'y', 'scale')}"
    " AND x IS NOT NULL AND y IS NOT NULL AND scale > 0",
    "anchor": f"{_ids('id', 'person_id')} AND {_OPTIONAL_TEXT.format('source')} AND (content IS NULL OR typeof(content) = 'blob')"
    f" AND {_BOX} AND (landmarks IS NULL OR typeof(landmarks) = 'blob' AND length(landmarks) = 40)"
    f" AND typeof(vector) = 'blob' AND length(vector) BETWEEN 4 AND 1000000"
    f" AND length(vector) % 4 = 0 AND typeof(created) = 'real' AND created {_TIME}",
    "gone": _ids("face_id", "generation"),
    "subject": f"{_ids('person_id')} AND {_TEXT.format('name')} AND typeof(name_key) = 'blob'",
    "journal": f"{_ids('id')} AND typeof(at) = 'real' AND at {_TIME} AND typeof(actor) = 'text' AND typeof(action) = 'text'"
    " AND (person_id IS NULL OR typeof(person_id) = 'integer') AND typeof(details) = 'text' AND json_type(details) = 'object'"
    " AND typeof(digest) = 'blob'",
}


@cache
def _expected() -> dict[tuple[str, str], str | None]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(connection)
        return _schema(connection)
    finally:
        connection.close()


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str | None]:
    return {(kind, name): sql for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")}


def require_known_schema(connection: sqlite3.Connection, *, whole: bool = False) -> None:
    """GalleryDamagedError when the database holds a table, view, trigger or index that facepipe did not make.

    whole: and when one is missing: asked when all migrations have run.
    """
    expected, found = _expected(), _schema(connection)
    strange = [key for key, sql in found.items() if key not in expected or expected[key] != sql]
    missing = [key for key in expected if whole and key not in found]
    for (kind, name), what in [(key, "is not as facepipe made it") for key in strange] + [
        (key, "is missing") for key in missing
    ]:
        raise GalleryDamagedError(f"the {kind} {name[:60]!r} of the database {what}")


def fault_in_rows(connection: sqlite3.Connection) -> str | None:
    """Return what is wrong with the first row that facepipe would not have written, None when all are sound."""
    newest = MIGRATIONS[-1][0]
    for table, holds in _SOUND.items():
        key = "key" if table == "meta" else "rowid"
        try:
            row = connection.execute(f"SELECT {key} FROM {table} WHERE ({holds}) IS NOT 1 LIMIT 1").fetchone()
        except sqlite3.Error as error:
            return f"the table {table!r} cannot be read ({error}; schema {newest})"
        if row is not None:
            return f"row {row[0]!r:.40} of the table {table!r} holds a value that cannot be there"
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        return f"row {row_id} of the table {table!r} refers to a missing {parent}"
    return fault_in_settings(connection)


def fault_in_settings(connection: sqlite3.Connection) -> str | None:
    """Return which setting holds what facepipe would not have written, None when all are sound."""
    for key, value in connection.execute("SELECT key, value FROM meta"):
        if not isinstance(key, str) or not isinstance(value, str) or not is_sound_setting(key, value):
            return f"the setting {key!r:.40} holds a value that cannot be there"
    return None


def is_sound_setting(key: str, text: str) -> bool:
    """Say whether a setting holds what facepipe writes there."""
    try:
        return _SETTINGS[key](text) if key in _SETTINGS else True
    except (*SYMPTOMS, RecursionError):
        return False


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdecimal() and 0 <= int(text) <= most


def _is_calibration(text: str) -> bool:
    found: dict[str, Any] = json.loads(text)
    curve = found.get("curve")
    numbers = [*map(float, (found["threshold"], found["margin"], found["target_fpir"], found["gallery_size"]))]
    if curve is not None:
        numbers += map(float, [*curve["similarity"], *curve["probability"]])
    return isinstance(found["model"], str) and all(abs(number) < 1e9 for number in numbers)


def _is_key(text: str) -> bool:
    record: dict[str, Any] = json.loads(text)
    if record["kind"] == "passphrase":
        bytes.fromhex(record["salt"])
        # What facepipe writes, and some years of growth; more would let somebody else's gallery take all memory.
        bounds = (("n", 2**18), ("r", 16), ("p", 4))
        if not all(isinstance(record[name], int) and 1 <= record[name] <= most for name, most in bounds):
            return False
    if record.get("version", 1) not in (1, 2):
        return False
    return record["kind"] in ("passphrase", "key-file") and len(bytes.fromhex(record["key"])) == 60


def _is_choice(text: str) -> bool:
    chosen: dict[str, Any] = json.loads(text)
    uri = chosen.get("uri", "-")  # of a vector database
    sound = isinstance(uri, str) and uri.isascii() and uri.isprintable() and 0 < len(uri) <= 500
    return sound and isinstance(chosen["kind"], str) and 0 <= float(chosen["min_recall"]) <= 1


_SETTINGS = {
    "dim": lambda text: text != "0" and _is_number(text, 100_000),
    "fingerprint": lambda text: 0 < len(text) <= 200 and text.isprintable(),
    "gone_since": lambda text: _is_number(text, 2**62),
    "calibration": _is_calibration,
    "key": _is_key,
    "index": _is_choice,
}
