"""`facepipe identify`: who is in these pictures?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from facepipe.cli.common import (
    PlacePath,
    echo,
    no_lock_option,
    note,
    opened,
    out_console,
    progress_bar,
    quiet_option,
    without_sidecars,
)
from facepipe.cli.options import (
    FEW,
    Deciding,
    Looking,
    csv_raw_option,
    list_options,
    listed,
    picture_options,
    recognition_options,
    video_options,
)
from facepipe.text import printable

if TYPE_CHECKING:
    from facepipe.records import Record
    from facepipe.types import Image, Recognized, Sampling


@click.command()
@click.argument("images", nargs=-1, callback=without_sidecars, metavar="IMG...|-")
@list_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: a list, a record for each picture.")
@click.option("--jsonl", is_flag=True, help="Print one JSON record per line, as each picture is done.")
@click.option("--csv", is_flag=True, help="Print CSV, a row for each face.")
@csv_raw_option
@no_lock_option
@picture_options(
    PlacePath(),
    "Write copies with frames and names, of videos too, into this folder; or a copy of the one video into this file (.mp4).",
)
@recognition_options
@video_options
@quiet_option
def identify(
    images: tuple[str, ...],
    files_from: IO[bytes] | None,
    separated_by_null: bool,
    as_json: bool,
    jsonl: bool,
    csv: bool,
    csv_raw: bool,
    annotate: Path | None,
    crops: Path | None,
    sampling: Sampling,
    looking: Looking,
    deciding: Deciding,
    quiet: bool,
) -> int:
    """Say who is in pictures: known, unknown or ambiguous, for each face; and who is seen in videos, from when to when.

    `-` reads one picture from stdin.
    """
    from facepipe.cli.options import load_recognizer
    from facepipe.cli.process import cores
    from facepipe.cli.watching import Watched
    from facepipe.errors import ExitCode
    from facepipe.files.guard import require_outside
    from facepipe.images import is_video
    from facepipe.records import to_record
    from facepipe.types import Failed, Recognized

    require_outside(deciding.gallery, annotate, crops)
    _check_place(annotate, images)
    style = _style(json=as_json, jsonl=jsonl, csv=csv)
    paths = _checked(list(images), listed(files_from, separated_by_null))
    # A video is many frames, and the engines that start without torch work on one at a time.
    photos = sum(FEW + 1 if is_video(path) else 1 for path in paths)
    recognizer = load_recognizer(looking, deciding, sampling, photos)
    show = partial(_print_csv, raw=csv_raw) if style == "csv" else _PRINTERS[style]
    records = []
    failed = done = damaged = 0
    few = (len(paths) <= FEW and not any(map(is_video, paths))) or style == "jsonl"
    with progress_bar("identifying", len(paths), quiet=quiet or few) as progress:
        watched = Watched(progress)
        for image, result in recognizer.with_images(list(map(opened, paths)), workers=cores(), seen=watched.add):
            done += 1
            if isinstance(result, Failed):
                failed += 1
                if not quiet:
                    note(f"facepipe: {result.reason}")
            record = to_record(result, recognizer.matcher.fingerprint)
            if style == "jsonl":
                show([record])
            else:
                records.append(record)
            if image is not None:
                _write_pictures(image, record, annotate, crops)
            elif isinstance(result, Recognized):
                damaged += _tell_damage(result, quiet)
                watched.write(result.path, record, annotate, crops, looking.read_side)
            progress(watched.rest())
    if style != "jsonl":
        show(records)
    if failed:
        return ExitCode.INPUT if failed == done else ExitCode.PARTIAL
    return ExitCode.PARTIAL if damaged else ExitCode.OK


def _tell_damage(video: Recognized, quiet: bool) -> bool:
    """Say what of a video could not be read; return whether there is such."""
    if video.clip is None or video.clip.damage is None:
        return False
    if not quiet:
        note(f"facepipe: {printable(video.path)}: {video.clip.damage}; the answer holds what could be read")
    return True


def _style(**chosen: bool) -> str:
    """Return how to print. Errors: UsageError when two ways were chosen."""
    from facepipe.errors import UsageError

    styles = [name for name, wanted in chosen.items() if wanted]
    if len(styles) > 1:
        raise UsageError(f"identify: choose one of --{' and --'.join(styles)}")
    return styles[0] if styles else "table"


def _checked(named: list[str], found: list[str]) -> list[str]:
    """Return the pictures' paths: those named, and those of a list, in which a folder is searched.

    Errors: UsageError when there are none, and for what is a batch's.
    """
    from facepipe.catalog.remote import is_url
    from facepipe.errors import UsageError
    from facepipe.files.atomic import is_folder
    from facepipe.images.finding import is_archive

    if not named and not found:
        raise UsageError("identify: no picture given; name one, or use - for stdin, or --files-from")
    for path in named:
        kind = "a folder" if is_folder(path) else "an archive" if is_archive(path) and not is_url(path) else None
        if kind is not None:
            raise UsageError(f"{path}: {kind}; use `facepipe batch {shlex.quote(path)} --out results.jsonl`")
    return [*named, *found]


def _check_place(annotate: Path | None, images: Sequence[str]) -> None:
    """Refuse a file for copies where there is not just one video. Errors: UsageError."""
    from facepipe.errors import UsageError
    from facepipe.images import IMAGE_SUFFIXES, is_video

    if annotate is None or (len(images) == 1 and is_video(images[0]) and is_video(annotate.name)):
        return
    picture = Path(annotate.name).suffix.lower() in IMAGE_SUFFIXES and not annotate.is_dir()
    if is_video(annotate.name) or annotate.is_file() or picture:
        raise UsageError(
            f"--annotate {annotate}: one video goes into a video file; name a folder for photos and several videos"
        )


def _write_pictures(image: Image, record: Record, annotate: Path | None, crops: Path | None) -> None:
    from facepipe.images import write_image
    from facepipe.outputs.draw import draw_predictions, save_crops
    from facepipe.outputs.names import output_stem
    from facepipe.outputs.owned import claim_folder

    for folder in filter(None, (annotate, crops)):
        claim_folder(folder)
    if annotate:
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


def _print_csv(records: Sequence[Record], *, raw: bool) -> None:
    import io

    from facepipe.outputs.csvfile import CsvWriter

    text = io.StringIO()
    writer = CsvWriter(text, raw=raw)
    for record in records:
        writer.add(record)
    echo(text.getvalue().rstrip("\n"), exact=True)


_PRINTERS = {"table": _print_table, "json": _print_json, "jsonl": _print_lines}
