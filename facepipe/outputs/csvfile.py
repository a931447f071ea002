"""Results as CSV: a row for each face, and one for each photo without a face, so that no photo is missing.

Names and paths are anybody's. A spreadsheet takes a cell that begins with = + - or @ for a formula: such text is written with an
apostrophe in front (OWASP, "CSV Injection"). Control characters are written as escapes, so that a row is a line. `raw` does neither.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TextIO

from facepipe.files.atomic import atomic_file
from facepipe.files.guard import own_file
from facepipe.records import SCHEMA_VERSION, Record, dumps, track_of
from facepipe.text import printable, without_path

#: What a spreadsheet takes for the beginning of a formula; the wide forms where it works in Japanese or Chinese.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

#: Name of each column, and of its Parquet type. face counts from 1 in each photo and is empty where there is none. Only videos have
#: duration, damage, and of each face from, to, best_frame and frames; see `facepipe.records`.
COLUMNS: dict[str, str] = {
    "path": "text",
    "width": "integer",
    "height": "integer",
    "error": "text",
    "rotate": "integer",
    "face": "integer",
    **dict.fromkeys(("x1", "y1", "x2", "y2", "score"), "number"),
    "status": "text",
    "person": "text",
    **dict.fromkeys(("similarity", "probability", "threshold"), "number"),
    "candidates": "candidates",
    "suggestion": "text",
    **dict.fromkeys(("size", "sharpness", "yaw", "pitch", "roll", "edge_density", "usable"), "number"),
    **{f"{landmark}_{axis}": "number" for landmark in LANDMARKS for axis in "xy"},
    **dict.fromkeys(("turn", "enhanced"), "integer"),
    **dict.fromkeys(("duration", "from", "to", "best_frame"), "number"),
    "frames": "integer",
    "damage": "text",
    "model": "text",
    "schema_version": "integer",
}


def face_rows(record: Record) -> list[Record]:
    """Return a photo as flat rows with the keys of `COLUMNS`, in their order; a missing value is None."""
    photo = {name: record[name] for name in ("path", "width", "height", "error", "model")}
    photo.update({name: record.get(name) for name in ("duration", "damage")})
    photo["schema_version"], photo["rotate"] = SCHEMA_VERSION, record.get("rotate", 0)
    rows: list[Record] = []
    for number, face in enumerate(record["faces"], 1):
        values = dict(photo, face=number, **dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True)))
        for landmark, (x, y) in zip(LANDMARKS, face["landmarks"], strict=True):
            values[f"{landmark}_x"], values[f"{landmark}_y"] = x, y
        values.update({"usable": None, **face["quality"]})
        values["turn"], values["enhanced"] = face.get("turn", 0), int(face.get("enhanced", False))
        values["suggestion"] = face.get("suggestion")
        track = track_of(record, number - 1) or {}
        values.update({name: track.get(name) for name in ("from", "to", "best_frame", "frames")})
        for name in ("score", "status", "person", "similarity", "probability", "threshold", "candidates"):
            values[name] = face[name]
        rows.append({name: values[name] for name in COLUMNS})
    return rows or [{name: photo.get(name) for name in COLUMNS}]


class CsvWriter:
    """Writes rows to an open text file as photos come; the header first. Candidates are a JSON list in one cell.

    raw: text as it is.
    """

    def __init__(self, file: TextIO, *, raw: bool = False) -> None:
        self._rows = _Rows(file, raw)
        self._rows.write(COLUMNS)

    def add(self, record: Record) -> None:
        """Write one photo's rows."""
        for row in face_rows(record):
            if row["candidates"] is not None:
                row["candidates"] = dumps(row["candidates"])
            self._rows.write(row.values())


class _Rows:
    """Writes rows of CSV, each ended by a line feed."""

    def __init__(self, file: TextIO, raw: bool) -> None:
        self._file, self._raw = file, raw
        self._row = io.StringIO()
        # With this end the module quotes a cell with a bare carriage return as well.
        self._writer = csv.writer(self._row, lineterminator="\r\n")

    def write(self, cells: Iterable[object]) -> None:
        """Write one row."""
        self._writer.writerow(cell if self._raw or not isinstance(cell, str) else _harmless(cell) for cell in cells)
        self._file.write(self._row.getvalue().removesuffix("\r\n") + "\n")
        self._row.seek(0)
        self._row.truncate()


def _harmless(text: str) -> str:
    """Return text on one line that no spreadsheet computes."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(path: str | os.PathLike[str], records: Iterable[Record], *, raw: bool = False) -> None:
    """Write photos as one CSV file, UTF-8, whole or not at all, in place of any file of this name; OutputError when refused."""
    with atomic_file(path) as binary, _text(binary, "surrogateescape" if raw else "strict") as file:
        writer = CsvWriter(file, raw=raw)
        for record in records:
            writer.add(record)


def write_failures(path: str | os.PathLike[str], failures: Iterable[tuple[str, str]], *, raw: bool = False) -> None:
    """Write the photos that failed as CSV with the columns path and error, whole or not at all, over no other file."""
    with own_file(path) as binary, _text(binary, "surrogateescape" if raw else "backslashreplace") as file:
        rows = _Rows(file, raw)
        rows.write(("path", "error"))
        for name, reason in failures:
            rows.write((name, without_path(reason, name)))


@contextlib.contextmanager
def _text(file: BinaryIO, errors: str = "strict") -> Iterator[TextIO]:
    """Write text to a binary file that stays open."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors=errors, newline="")
    yield text
    text.detach()
