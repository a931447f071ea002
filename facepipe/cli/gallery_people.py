"""`facepipe gallery list|show|rename|merge|split|remove|stats`. None of them loads numpy before it needs it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.common import (
    PlacePath,
    cell,
    echo,
    gallery_option,
    json_option,
    no_lock_option,
    note,
    out_console,
    quiet_option,
)
from facepipe.text import plural

if TYPE_CHECKING:
    from facepipe.gallery.storage.database import Database

SCHEMA_VERSION = 1


@contextmanager
def open_database(folder: Path, *, accept_loss: bool = False) -> Iterator[Database]:
    """Open a gallery's database for the length of a command."""
    from facepipe.gallery.storage.database import Database

    database = Database.open(folder, accept_loss=accept_loss)
    try:
        with database.blamed():
            yield database
    finally:
        database.close()


def echo_json(**document: Any) -> None:
    """Print one JSON document."""
    echo(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2, ensure_ascii=False))


def day(seconds: float | None) -> str:
    """Return a time as a date, a dash for None."""
    return "-" if seconds is None else time.strftime("%Y-%m-%d", time.localtime(seconds))


def table(headings: list[str], rows: list[list[str]]) -> None:
    """Print rows under headings."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    out_console().print(made)


@click.command("list")
@gallery_option
@no_lock_option
@json_option
def list_people(gallery: Path, as_json: bool) -> None:
    """List the people, how many faces each has, and when the last was added."""
    from facepipe.gallery.people import people

    with open_database(gallery) as database:
        found = people(database)
        rows = [[p.name, str(p.faces), day(p.last)] for p in found]
    if as_json:
        echo_json(
            people=[{"name": p.name, "faces": p.faces, "first": p.first, "last": p.last} for p in found],
        )
        return
    table(["person", "faces", "last added"], rows)


@click.command()
@click.argument("name", required=False)
@click.option(
    "--sheet",
    type=PlacePath(dir_okay=False),
    help="Write a contact sheet of the faces (PNG or JPEG): from stored chips, else from the photos.",
)
@gallery_option
@no_lock_option
@json_option
def show(name: str | None, sheet: Path | None, gallery: Path, as_json: bool) -> None:
    """Show a person's faces: ids, photos, sizes. Without NAME: the gallery, its calibration and what that promises."""
    from facepipe.files.guard import check_outputs
    from facepipe.gallery.people import faces_of

    check_outputs((sheet,), gallery=gallery)
    if name is None:
        if sheet is not None:
            raise click.UsageError("--sheet shows one person's faces: whose? facepipe gallery show NAME --sheet FILE")
        _show_gallery(gallery, as_json)
        return
    with open_database(gallery) as database:
        faces = faces_of(database, name)
        if sheet is not None:
            from facepipe.gallery.care.contact_sheet import write_sheet

            check_outputs((sheet,), (face.source for face in faces if face.source is not None))
            missing = write_sheet(database, faces, sheet)
            note(
                f"{sheet}: {plural(len(faces) - missing, 'face')}"
                + (f", {missing} without chip or photo" if missing else "")
            )
        rows = [
            [
                str(face.id),
                "-" if face.size is None else f"{face.size:.0f}",
                "-" if face.sharpness is None else f"{face.sharpness:.0f}",
                "-" if face.yaw is None else f"{face.yaw:.0f}",
                day(face.enrolled),
                day(face.expires),
                "yes" if face.chip else "no",
                face.source or "-",
            ]
            for face in faces
        ]
    if as_json:
        echo_json(name=name, faces=[asdict(face) for face in faces])
        return
    table(["id", "size", "sharpness", "yaw", "added", "expires", "chip", "photo"], rows)


@click.command()
@click.argument("name")
@click.argument("new_name")
@gallery_option
@json_option
@quiet_option
def rename(name: str, new_name: str, gallery: Path, as_json: bool, quiet: bool) -> None:
    """Give the person NAME the name NEW_NAME."""
    from facepipe.gallery import people

    with open_database(gallery) as database:
        people.rename(database, name, new_name)
    _done(as_json, quiet, f"{name} is now {new_name}", renamed=name, to=new_name)


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--into", required=True, metavar="NAME", help="Who they are; may be one of them, or new.")
@gallery_option
@json_option
@quiet_option
def merge(names: tuple[str, ...], into: str, gallery: Path, as_json: bool, quiet: bool) -> None:
    """Make one person of NAMES. A photo that several of them have is kept once."""
    from facepipe.gallery import people

    with open_database(gallery) as database:
        moved = people.merge(database, names, into)
    _done(as_json, quiet, f"{plural(moved, 'face')} moved to {into}", merged=list(names), into=into, moved=moved)


@click.command()
@click.argument("name")
@click.argument("faces", nargs=-1, required=True, type=int)
@click.option("--into", required=True, metavar="NAME", help="Who these faces are; may be new.")
@gallery_option
@json_option
@quiet_option
def split(name: str, faces: tuple[int, ...], into: str, gallery: Path, as_json: bool, quiet: bool) -> None:
    """Move FACES (ids, as `gallery show NAME` lists them) of the person NAME to another person."""
    from facepipe.gallery import people

    with open_database(gallery) as database:
        moved = people.split(database, name, faces, into)
    _done(as_json, quiet, f"{plural(moved, 'face')} moved from {name} to {into}", split=name, into=into, moved=moved)


@click.command()
@click.argument("name")
@click.option(
    "--face", "faces", multiple=True, type=int, help="Remove only this face (id); may be given several times."
)
@gallery_option
@json_option
@quiet_option
def remove(name: str, faces: tuple[int, ...], gallery: Path, as_json: bool, quiet: bool) -> None:
    """Remove the person NAME, or some faces. For removal without a trace: `facepipe gallery erase`."""
    from facepipe.gallery import people

    with open_database(gallery) as database:
        count = people.remove(database, name, list(faces) or None)
    _done(as_json, quiet, f"{name}: {plural(count, 'face')} removed", removed=name, faces=count)


@click.command()
@gallery_option
@no_lock_option
@json_option
def stats(gallery: Path, as_json: bool) -> None:
    """Count people, faces and bytes; say which model made the gallery and whether it is sealed."""
    from facepipe.gallery import people

    with open_database(gallery) as database:
        facts = people.stats(database)
    if as_json:
        echo_json(**facts)
        return
    facts["bytes"] = ", ".join(f"{name} {size:,}" for name, size in facts["bytes"].items())
    spread = facts["faces_per_person"]
    facts["faces_per_person"] = "-" if spread is None else f"{spread['min']} to {spread['max']}"
    table(["", ""], [[key.replace("_", " "), str(value)] for key, value in facts.items()])


def _show_gallery(gallery: Path, as_json: bool) -> None:
    from facepipe.cli.calibrate import describe
    from facepipe.gallery import people
    from facepipe.gallery.needs import needs_of
    from facepipe.gallery.store import GalleryStore

    with GalleryStore.open(gallery) as opened:
        facts, calibration, needs = people.stats(opened.database), opened.calibration(), needs_of(opened)
    if as_json:
        echo_json(**facts, calibration=calibration, needs=None if needs is None else asdict(needs))
        return
    echo(f"{plural(facts['people'], 'person', 'people')}, {plural(facts['faces'], 'face')}, made by {facts['model']}")
    if calibration is None:
        echo("not calibrated: the thresholds of the model's record apply; `facepipe calibrate` measures this gallery")
        if needs is not None and (line := needs.told()) is not None:
            echo(line)
    else:
        for line in describe(calibration):
            echo(line)


def _done(as_json: bool, quiet: bool, text: str, **document: Any) -> None:
    """Say that a change is on the disk."""
    if as_json:
        echo_json(**document)
    elif not quiet:
        note(text)
