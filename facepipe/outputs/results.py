"""The output of a batch, written from its catalog: JSON lines, CSV or Parquet, by the file's suffix, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from facepipe.errors import UsageError
from facepipe.files.atomic import atomic_file, remove_file
from facepipe.outputs import csvfile, parquet

SUFFIXES = (".jsonl", ".csv", ".parquet")


def check_suffix(out: Path) -> None:
    """Raise UsageError when the suffix names no format; asked before hours of work, not after."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: unknown format; end the name with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def write_output(out: Path, records: Iterable[str], *, csv_raw: bool = False) -> None:
    """Write the records, each one line of JSON, in the format that the suffix names. Errors: OutputError, UsageError.

    csv_raw: text in CSV as it is, formulas and control characters as well.
    """
    check_suffix(out)
    suffix = out.suffix.lower()
    if suffix == ".jsonl":
        with atomic_file(out) as file:
            for record in records:
                file.write(f"{record}\n".encode())
        return
    found = map(json.loads, records)
    if suffix == ".csv":
        csvfile.write_csv(out, found, raw=csv_raw)
    else:
        parquet.write_parquet(out, found)


def failures_path(out: Path) -> Path:
    """Return where the list of failed photos lies: beside the output."""
    return out.with_name(f"{out.stem}.failures.csv")


def write_failures(out: Path, failures: Iterable[tuple[str, str]], *, csv_raw: bool = False) -> None:
    """List the photos that failed beside the output; where none did, no list stays from an earlier run."""
    if found := list(failures):
        csvfile.write_failures(failures_path(out), found, raw=csv_raw)
    else:
        remove_file(failures_path(out))


def write_report(path: Path, photos: Iterable[tuple[dict[str, Any], list[bytes]]], seconds: float, fresh: int) -> None:
    """Write the HTML page of a batch from its records and thumbnails, whole or not at all.

    seconds: how long the batch took. fresh: how many photos it scanned.
    """
    from facepipe.outputs.html import HtmlReport

    report = HtmlReport(path)
    for record, thumbnails in photos:
        report.add(record, thumbnails if len(thumbnails) == len(record["faces"]) else ())
    report.finish(seconds=seconds, fresh=fresh)
