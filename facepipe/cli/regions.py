"""`facepipe regions`: who is where, in the files of photo programs. Photos are never written, only the sidecars beside them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.catalogs import open_groups, the_catalog
from facepipe.cli.common import PlacePath, cell, echo, json_option, note, out_console, quiet_option, without_sidecars
from facepipe.cli.options import Deciding, Looking, exclude_option, recognition_options
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from facepipe.errors import InputError
    from facepipe.outputs.sidecars import Change
    from facepipe.records import Record
    from facepipe.regions.tags import TaggedFace

#: So many sidecars that cannot be written are named.
_NAMED = 20
#: Columns of the terminal for a box, and for a path at least.
_BOX, _LEAST_PATH = 19, 16


@click.group()
def regions() -> None:
    """Read and write face regions: who is where, as digiKam, Lightroom, Picasa and Windows keep it in photos and sidecars."""


@regions.command()
@click.argument("photos", nargs=-1, required=True, callback=without_sidecars, metavar="PHOTO|FOLDER...")
@exclude_option
@json_option
def read(photos: tuple[str, ...], exclude: tuple[str, ...], as_json: bool) -> int:
    """Show who was tagged in photos, in their files or in photo.jpg.xmp or photo.xmp beside them."""
    from facepipe.errors import ExitCode, InputError
    from facepipe.records import dumps, readable
    from facepipe.regions.tags import read_tags, tagged_faces

    records: list[Record] = []
    rows: list[tuple[str, TaggedFace]] = []
    failed = done = 0
    for path, problem in _found(photos, exclude):
        done += 1
        try:
            if problem is not None:
                raise problem
            tags = read_tags(path)
        except InputError as error:
            failed += 1
            note(f"facepipe: {error}")
            reason = readable(str(error))
            records.append({"path": readable(path), "width": None, "height": None, "error": reason, "regions": []})
            continue
        for file, reason in tags.problems:
            note(f"facepipe: {file}: {reason}")
        faces = tagged_faces(tags)
        rows += [(path, face) for face in faces]
        width, height = tags.frame.displayed if faces else (None, None)
        found = [_as_record(face) for face in faces]
        records.append({"path": readable(path), "width": width, "height": height, "error": None, "regions": found})
    if as_json:
        echo(dumps({"schema_version": 1, "images": records}, indent=2))
    else:
        _print_table(rows)
        people = len({face.name for _, face in rows if face.name})
        counts = f"{plural(done, 'photo')}, {plural(len(rows), 'tagged face')}, {plural(people, 'person', 'people')}"
        echo(counts + (f"; {failed:,} failed" if failed else ""))
    return (ExitCode.INPUT if failed == done else ExitCode.PARTIAL) if failed else ExitCode.OK


def _found(photos: Iterable[str], exclude: tuple[str, ...]) -> Iterator[tuple[str, InputError | None]]:
    """Yield the photos of files and folders, and the places that cannot be searched, with the reason."""
    from facepipe.errors import InputError
    from facepipe.images import Passing, find_images, is_output

    passing = Passing(exclude)
    for root in photos:
        if root.lower().endswith(".xmp"):
            yield root, InputError(f"{root}: is a sidecar; name the photo that it lies beside")
            continue
        problems: list[InputError] = []
        for path in find_images([root], on_error=problems.append, skip=is_output, rules=passing.rules(root)):
            yield str(path), None
        yield from ((str(problem).split(": ", 1)[0], problem) for problem in problems)


def _as_record(face: TaggedFace) -> dict[str, Any]:
    from facepipe.records import readable, rounded

    name = None if face.name is None else readable(face.name)
    box = [rounded(value, 2) for value in face.box]
    return {"name": name, "box": box, "form": face.form, "file": readable(face.file), "own": face.own}


def _print_table(rows: list[tuple[str, TaggedFace]]) -> None:
    from rich.cells import cell_len
    from rich.table import Table

    from facepipe.outputs.table import shortened

    table = Table(box=None, pad_edge=False)
    for heading in ("photo", "who", "box (x1 y1 x2 y2)", "form", "from"):
        table.add_column(heading, justify="right" if heading.startswith("box") else "left", overflow="fold")
    cells = [
        (face.name or "(nobody named)", " ".join(f"{value:.0f}" for value in face.box), face.form, _where(path, face))
        for path, face in rows
    ]
    others = sum(max((cell_len(row[place]) for row in cells), default=0) for place in (0, 2, 3)) + _BOX + 2 * 4
    for (path, _), row in zip(rows, cells, strict=True):
        table.add_row(cell(shortened(printable(path), max(out_console().width - others, _LEAST_PATH))), *map(cell, row))
    if rows:
        out_console().print(table)


def _where(path: str, face: TaggedFace) -> str:
    """Return in which file a region is, in short: most often it is the sidecar that is called as the photo is."""
    file = "the photo" if face.file == path else "its sidecar" if face.file == f"{path}.xmp" else Path(face.file).name
    return file + ", by facepipe" * face.own


@regions.command()
@click.argument("results", nargs=-1, callback=without_sidecars, metavar="CATALOG|RESULTS.jsonl|PHOTO...")
@click.option(
    "--catalog", type=PlacePath(dir_okay=False), help="The catalog of a scan or batch, as other commands take it."
)
@recognition_options
@quiet_option
def write(results: tuple[str, ...], catalog: Path | None, looking: Looking, deciding: Deciding, quiet: bool) -> int:
    """Write who is in photos into photo.jpg.xmp beside each: of the CATALOG of a scan or batch, of its results, or looked up now.

    What is in a sidecar already stays. Written are people who are known, and those whom you named or confirmed in a catalog.
    """
    from facepipe.errors import UsageError
    from facepipe.files.atomic import is_folder
    from facepipe.images.finding import is_archive

    if catalog is not None:
        results = (*results, str(the_catalog(catalog)))
    if not results:
        raise UsageError("regions write: of what? Name a CATALOG, RESULTS.jsonl, or photos")
    for path in results:
        kind = "a folder" if is_folder(path) else "an archive" if is_archive(path) else None
        if kind is not None:
            raise UsageError(f"{path}: {kind}; use facepipe batch with --regions sidecar")
        if path.lower().endswith((".csv", ".parquet")):
            raise UsageError(f"{path}: regions are written from a batch's .catalog or .jsonl")
        if path.lower().endswith(".catalog") and (
            deciding.threshold is not None or deciding.margin is not None or deciding.repeat
        ):
            raise UsageError(
                f"{path}: --threshold, --margin and --repeat are for photos; use facepipe batch with --regions sidecar"
            )
    photos = [path for path in results if not path.lower().endswith((".jsonl", ".catalog"))]

    def records() -> Iterator[tuple[str, Record]]:
        for path in results:
            if path.lower().endswith(".catalog"):
                with open_groups(Path(path), deciding.gallery) as groups:
                    yield from groups.records()
            elif path not in photos:
                yield from _records_of(path, deciding.gallery)
        if photos:
            yield from _looked_up(photos, looking, deciding)

    return _changed(records(), quiet)


@regions.command()
@click.argument("photos", nargs=-1, required=True, callback=without_sidecars, metavar="PHOTO|FOLDER...")
@exclude_option
@quiet_option
def remove(photos: tuple[str, ...], exclude: tuple[str, ...], quiet: bool) -> int:
    """Take the regions that facepipe wrote out of the sidecars of photos. What others wrote stays."""
    return _changed(_found(photos, exclude), quiet)


def _records_of(results: str, gallery: Path) -> Iterator[tuple[str, Record]]:
    """Yield the photos in a batch's results, with what was said in the groups beside. Errors: InputError for what is no record."""
    from facepipe.errors import InputError
    from facepipe.regions.embedded import opened

    with opened(results) as file, _told_beside(Path(results), gallery) as told:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                yield record["path"] + "", told(record)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{results}, line {number}: not a record of facepipe's; run the batch again"
                ) from error


@contextmanager
def _told_beside(results: Path, gallery: Path) -> Iterator[Callable[[Record], Record]]:
    """Yield what gives a record the names that the user gave, where a batch's results have groups beside them."""
    from facepipe.catalog.catalog import Catalog
    from facepipe.catalog.store import catalog_path
    from facepipe.errors import GalleryMissingError
    from facepipe.gallery.storage.codec import Secret
    from facepipe.gallery.store import GalleryStore
    from facepipe.groups.said import Said, call_people_as
    from facepipe.groups.store import groups_path

    place = catalog_path(results)
    if not (place.is_file() and groups_path(place).is_file()):
        yield lambda record: record
        return
    with suppress(GalleryMissingError), GalleryStore.open(gallery, Secret.from_environment()) as store:
        call_people_as(place, store)
    said = Said(place)
    with Catalog(place) as catalog:

        def told(record: Record) -> Record:
            found = catalog.decided(record["path"])
            return record if found is None else said.told(found[0], record)

        yield told


def _looked_up(photos: list[str], looking: Looking, deciding: Deciding) -> Iterator[tuple[str, Record]]:
    from facepipe.cli.options import load_recognizer
    from facepipe.records import to_record
    from facepipe.types import Sampling

    recognizer = load_recognizer(looking, deciding, Sampling(), len(photos))
    for path, result in zip(photos, recognizer(photos), strict=True):
        yield path, to_record(result)


def _changed(photos: Iterable[tuple[str, Record | InputError | None]], quiet: bool) -> int:
    """Bring the sidecars of photos up to date, and say what came out.

    photos: with their records; None takes the regions out, an error is why a photo cannot be used.
    """
    from facepipe.errors import ExitCode, FacepipeError, InputError
    from facepipe.outputs.sidecars import change_for

    counts: Counter[str] = Counter()
    for path, record in photos:
        try:
            if isinstance(record, Exception):
                raise record
            if record is not None and record.get("error") is not None:
                raise InputError(str(record["error"]))
            change = change_for(path, record)
            if change is not None:
                change.make()
            counts[_outcome(path, record, change)] += 1
        except FacepipeError as error:
            counts["failed"] += 1
            if counts["failed"] <= _NAMED:
                note(f"facepipe: {error}")
    if counts["failed"] > _NAMED:
        note(f"facepipe: {counts['failed'] - _NAMED:,} more could not be written")
    if not quiet:
        parts = [f"{counts[kind]:,} {words}" for kind, words in _OUTCOMES.items() if counts[kind]]
        without = f"; {plural(counts['none'], 'photo')} without one" if counts["none"] else ""
        echo(f"sidecars: {', '.join(parts) or 'none'}{without}")
    if not counts["failed"]:
        return ExitCode.OK
    return ExitCode.INPUT if counts["failed"] == counts.total() else ExitCode.PARTIAL


#: What became of a sidecar, and how that is said.
_OUTCOMES = {
    "new": "written",
    "changed": "changed",
    "removed": "removed",
    "cleared": "kept with what others wrote",
    "same": "as they were",
    "failed": "failed",
}


def _outcome(photo: str, record: Record | None, change: Change | None) -> str:
    """Return what became of a photo's sidecar: a key of `_OUTCOMES`, or `none` where there is none."""
    from facepipe.regions.tags import sidecar_of

    if change is None:
        return "same" if os.path.lexists(sidecar_of(photo)) else "none"
    if change.after is None:
        return "removed"
    if record is None:
        return "cleared"
    return "new" if change.before is None else "changed"
