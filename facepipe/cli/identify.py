"""`facepipe identify`: who is in these pictures?"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from facepipe.cli.common import echo, note, out_console, quiet_option
from facepipe.cli.options import Deciding, Looking, recognition_options
from facepipe.cli.photos import list_options, listed, picture_options

if TYPE_CHECKING:
    from facepipe.pipeline import Recognizer
    from facepipe.records import Record
    from facepipe.types import Failed, Image, Recognized


@click.command()
@click.argument("images", nargs=-1, metavar="IMG...|-")
@list_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: a list, a record for each picture.")
@click.option("--jsonl", is_flag=True, help="Print one JSON record per line, as each picture is done.")
@click.option("--csv", is_flag=True, help="Print CSV, a row for each face.")
@picture_options
@recognition_options
@quiet_option
def identify(
    images: tuple[str, ...],
    files_from: IO[bytes] | None,
    separated_by_null: bool,
    as_json: bool,
    jsonl: bool,
    csv: bool,
    annotate: Path | None,
    crops: Path | None,
    looking: Looking,
    deciding: Deciding,
    quiet: bool,
) -> int:
    """Say who is in pictures: known, unknown or ambiguous, for each face. `-` reads one picture from stdin."""
    from facepipe.catalog.sources import is_archive
    from facepipe.cli.options import load_recognizer
    from facepipe.errors import ExitCode, UsageError
    from facepipe.files.guard import require_outside

    require_outside(deciding.gallery, annotate, crops)
    styles = [name for name, chosen in (("json", as_json), ("jsonl", jsonl), ("csv", csv)) if chosen]
    if len(styles) > 1:
        raise UsageError(f"identify: choose one of --{' and --'.join(styles)}")
    style = styles[0] if styles else "table"
    paths = [*images, *listed(files_from, separated_by_null)]
    if not paths:
        raise UsageError("identify: no picture given; name one, or use - for stdin, or --files-from")
    for path in paths:
        kind = "a folder" if Path(path).is_dir() else "an archive" if is_archive(path) else None
        if kind is not None:
            raise UsageError(f"{path}: {kind}; use `facepipe batch {shlex.quote(path)} --out results.jsonl`")
    from facepipe.records import to_record
    from facepipe.types import Failed

    recognizer = load_recognizer(looking, deciding, len(paths))
    show = _PRINTERS[style]
    records = []
    failed = 0
    for image, result in _results(recognizer, paths, looking):
        if isinstance(result, Failed):
            failed += 1
            if not quiet:
                note(f"facepipe: {result.reason}")
        record = to_record(result)
        if style == "jsonl":
            show([record])
        else:
            records.append(record)
        if image is not None:
            _write_pictures(image, record, annotate, crops)
    if style != "jsonl":
        show(records)
    if failed:
        return ExitCode.INPUT if failed == len(paths) else ExitCode.PARTIAL
    return ExitCode.OK


def _results(
    recognizer: Recognizer, paths: list[str], looking: Looking
) -> Iterator[tuple[Image | None, Recognized | Failed]]:
    from facepipe.errors import InputError
    from facepipe.images import read_image, read_image_bytes
    from facepipe.types import Failed

    for path in paths:
        try:
            if path == "-":
                if sys.stdin is None:
                    raise InputError("-: standard input is closed; pipe a picture into it")
                image = read_image_bytes(sys.stdin.buffer.read(), "-", max_side=looking.read_side)
            else:
                image = read_image(path, max_side=looking.read_side)
        except InputError as error:
            yield None, Failed(path, str(error))
            continue
        yield image, recognizer.recognize([image])[0]


def _write_pictures(image: Image, record: Record, annotate: Path | None, crops: Path | None) -> None:
    from facepipe.files.atomic import make_folder
    from facepipe.images import write_image
    from facepipe.outputs.draw import draw_predictions, save_crops
    from facepipe.outputs.names import output_stem

    if annotate:
        make_folder(annotate)
        write_image(annotate / f"{output_stem(image.path)}.jpg", draw_predictions(image, record))
    if crops:
        save_crops(crops, image, record)


def _print_table(records: Sequence[Record]) -> None:
    from facepipe.outputs.table import print_photos

    print_photos(out_console(), records)


def _print_json(records: Sequence[Record]) -> None:
    from facepipe.records import dumps

    echo(dumps(records, indent=2))


def _print_lines(records: Sequence[Record]) -> None:
    from facepipe.records import dumps

    for record in records:
        echo(dumps(record))


def _print_csv(records: Sequence[Record]) -> None:
    import io

    from facepipe.outputs.csvfile import CsvWriter

    text = io.StringIO()
    writer = CsvWriter(text)
    for record in records:
        writer.add(record)
    echo(text.getvalue().rstrip("\n"), exact=True)


_PRINTERS = {"table": _print_table, "json": _print_json, "jsonl": _print_lines, "csv": _print_csv}
