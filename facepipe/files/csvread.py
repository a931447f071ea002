"""Lists that people make: CSV files as they come out of editors and spreadsheets, and what is wrong with them in one line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from facepipe.errors import InputError
from facepipe.text import printable

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a CSV file. line: where it ends in the file, from 1."""

    line: int
    cells: list[str]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file in UTF-8, each with its end, without the mark that may stand at the start.

    InputError says which line is not, or why the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{printable(path)}: cannot be read ({reason}); check the path") from error
    advice = "save it as CSV UTF-8"
    if data.startswith(_UTF16) or b"\0" in data:
        raise InputError(f"{printable(path)}, line 1: is UTF-16 or not text; {advice}")
    try:
        return list(io.StringIO(data.decode("utf-8-sig"), newline=""))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{printable(path)}, line {line}: is not UTF-8 (perhaps Latin-1 or Windows-1252); {advice}, or convert it with "
            "iconv -f WINDOWS-1252 -t UTF-8"
        ) from error


def read_csv(path: Path, columns: str) -> Iterator[Row]:
    """Yield the rows of a CSV file, blank lines left out. columns: what is expected, for messages, such as `path,name`.

    InputError names the line that cannot be read, also where a spreadsheet separated the columns otherwise.
    """
    lines = read_lines(path)
    reader = csv.reader(lines, strict=True)
    try:
        for number, cells in enumerate(row for row in reader if row):
            if number == 0 and len(cells) == 1:
                _require_commas(path, cells[0], columns)
            yield Row(reader.line_num, cells)
    except csv.Error as error:
        raise InputError(
            f"{printable(path)}, line {reader.line_num}: cannot be read as CSV ({error}); expected {columns}"
        ) from error


def read_table(path: Path, needed: Sequence[str], columns: str) -> list[tuple[int, dict[str, str]]]:
    """Return the rows below a header, each with its line and its cells by column; names of columns in small letters.

    A row that is shorter than the header has empty cells. needed: columns that must be there. InputError as `read_csv`,
    and when a column is missing or a row has more cells than the header.
    """
    rows = list(read_csv(path, columns))
    header = [cell.strip().lower() for cell in rows[0].cells] if rows else []
    if not set(needed) <= set(header):
        got = printable(",".join(header)[:60]) or "an empty file"
        raise InputError(f"{printable(path)}, line 1: expected a header with {columns}, got {got}")
    for row in rows[1:]:
        if len(row.cells) > len(header):
            raise InputError(
                f"{printable(path)}, line {row.line}: {len(row.cells)} cells under {len(header)} columns; put text with commas "
                "in double quotes"
            )
    padding = [""] * len(header)
    return [
        (row.line, dict(zip(header, (cell.strip() for cell in [*row.cells, *padding]), strict=False)))
        for row in rows[1:]
    ]


def _require_commas(path: Path, first: str, columns: str) -> None:
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if mark in first:
            raise InputError(
                f"{printable(path)}, line 1: columns are separated by {name}, expected commas: {columns}; export it with commas"
            )
