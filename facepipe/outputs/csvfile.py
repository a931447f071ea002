"""Results as CSV: a row for each face, and one for each photo without a face, so that no photo is missing.

Cells are exact: a spreadsheet should import them as text, since a name may begin with `=`.
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
from facepipe.records import SCHEMA_VERSION, Record, dumps

LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

#: Name of each column, and of its Parquet type. face counts from 1 in each photo and is empty where there is none.
COLUMNS: dict[str, str] = {
    "path": "text",
    "width": "integer",
    "height": "integer",
    "error": "text",
    "face": "integer",
    **dict.fromkeys(("x1", "y1", "x2", "y2", "score"), "number"),
    "status": "text",
    "person": "text",
    **dict.fromkeys(("similarity", "probability", "threshold"), "number"),
    "candidates": "candidates",
    **dict.fromkeys(("size", "sharpness", "yaw", "pitch", "roll", "edge_density"), "number"),
    **{f"{landmark}_{axis}": "number" for landmark in LANDMARKS for axis in "xy"},
    "model": "text",
    "schema_version": "integer",
}


def face_rows(record: Record) -> list[Record]:
    """Return a photo as flat rows with the keys of `COLUMNS`, in their order; a missing value is None."""
    photo = {name: record[name] for name in ("path", "width", "height", "error", "model")}
    photo["schema_version"] = SCHEMA_VERSION
    rows: list[Record] = []
    for number, face in enumerate(record["faces"], 1):
        values = dict(photo, face=number, **dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True)))
        for landmark, (x, y) in zip(LANDMARKS, face["landmarks"], strict=True):
            values[f"{landmark}_x"], values[f"{landmark}_y"] = x, y
        values.update(face["quality"])
        for name in ("score", "status", "person", "similarity", "probability", "threshold", "candidates"):
            values[name] = face[name]
        rows.append({name: values[name] for name in COLUMNS})
    return rows or [{name: photo.get(name) for name in COLUMNS}]


class CsvWriter:
    """Writes rows to an open text file as photos come; the header first. Candidates are a JSON list in one cell."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        self._writer.writeheader()

    def add(self, record: Record) -> None:
        """Write one photo's rows."""
        for row in face_rows(record):
            if row["candidates"] is not None:
                row["candidates"] = dumps(row["candidates"])
            self._writer.writerow(row)


def write_csv(path: str | os.PathLike[str], records: Iterable[Record]) -> None:
    """Write photos as one CSV file, UTF-8, whole or not at all, in place of any file of this name; OutputError when refused."""
    with atomic_file(path) as binary, _text(binary) as file:
        writer = CsvWriter(file)
        for record in records:
            writer.add(record)


def write_failures(path: str | os.PathLike[str], failures: Iterable[tuple[str, str]]) -> None:
    """Write the photos that failed as CSV with the columns path and error, whole or not at all, over no other file."""
    with own_file(path) as binary, _text(binary, "backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "error"))
        writer.writerows(failures)


@contextlib.contextmanager
def _text(file: BinaryIO, errors: str = "strict") -> Iterator[TextIO]:
    """Write text to a binary file that stays open."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors=errors, newline="")
    yield text
    text.detach()
