"""`facepipe gallery erase|seal|unseal|log|export|import`: privacy, and carrying a gallery elsewhere."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.common import PlacePath, echo, gallery_option, json_option, no_lock_option, note, quiet_option
from facepipe.cli.gallery_people import echo_json, open_database, table
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from facepipe.gallery.storage.codec import Secret


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gallery_option
@json_option
def erase(name: str, yes: bool, gallery: Path, as_json: bool) -> int:
    """Erase NAME without a trace: vectors, chips, paths, mentions, from every file of the gallery.

    Works for people who were removed before, too. What lies elsewhere is yours to delete: photos, exports, audit pages,
    backups, and freed blocks of the disk.
    """
    from facepipe.errors import ExitCode, UsageError
    from facepipe.gallery.privacy.erasing import erase as run_erase
    from facepipe.gallery.privacy.erasing import known_as

    with open_database(gallery) as database:
        known_as(database, name)
        if not yes:
            try:
                yes = click.confirm(printable(f"Erase {name} from {gallery}? This cannot be undone."), err=True)
            except click.Abort as abort:
                if isinstance(abort.__context__, EOFError):
                    raise UsageError(f"{name}: not erased: there is no terminal to ask on; use --yes") from abort
                note(f"{name}: not erased; --yes does not ask")
                return ExitCode.INTERRUPTED
        if not yes:
            note(f"{name}: not erased")
            return ExitCode.OK
        count = run_erase(database, name)
    if as_json:
        echo_json(faces=count)
    else:
        echo(f"erased: {plural(count, 'face')}; no byte of it is left in {gallery}")
    return ExitCode.OK


@click.command()
@click.option(
    "--key-file",
    type=PlacePath(dir_okay=False),
    help="Seal with this key file (64 hexadecimal digits); default: a passphrase, asked or from FACEPIPE_NEW_PASSPHRASE.",
)
@gallery_option
@json_option
@quiet_option
def seal(key_file: Path | None, gallery: Path, as_json: bool, quiet: bool) -> None:
    """Encrypt names, paths, vectors and chips; a sealed gallery gets a new key.

    Commands find the key in FACEPIPE_PASSPHRASE or FACEPIPE_KEY_FILE. Without it nothing opens: keep it safe.
    """
    from facepipe.gallery.privacy.sealing import seal as run_seal

    with open_database(gallery) as database:
        run_seal(database, _new_secret(key_file))
    variable = "FACEPIPE_PASSPHRASE" if key_file is None else "FACEPIPE_KEY_FILE"
    if as_json:
        echo_json(sealed=True, key=variable)
    elif not quiet:
        note(f"{gallery}: sealed; from now on set {variable}")


def _new_secret(key_file: Path | None) -> Secret:
    from facepipe.errors import UsageError
    from facepipe.gallery.storage.codec import Secret

    if key_file is not None:
        return Secret.key_file(key_file)
    text = os.environ.get("FACEPIPE_NEW_PASSPHRASE")
    if text is None:
        if not sys.stdin.isatty():
            raise UsageError(
                "there is no terminal to ask for a passphrase: set FACEPIPE_NEW_PASSPHRASE, or give --key-file"
            )
        text = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return Secret.passphrase(text)


@click.command()
@gallery_option
@json_option
@quiet_option
def unseal(gallery: Path, as_json: bool, quiet: bool) -> None:
    """Store names, paths, vectors and chips without encryption again."""
    from facepipe.gallery.privacy.sealing import unseal as run_unseal

    with open_database(gallery) as database:
        run_unseal(database)
    if as_json:
        echo_json(sealed=False)
    elif not quiet:
        note(f"{gallery}: no longer sealed")


@click.command()
@click.option("--identify", type=click.Choice(["on", "off"]), help="Also log `identify`; off by default.")
@gallery_option
@json_option
def log(identify: str | None, gallery: Path, as_json: bool) -> None:
    """Show who did what and when, oldest first. People have the name of today, erased people none."""
    from facepipe.gallery.journal import journal_entries, set_identify_log

    with open_database(gallery) as database:
        if identify is not None:
            set_identify_log(database, identify == "on")
        entries = list(journal_entries(database))
    if as_json:
        echo_json(entries=entries)
        return
    rows = [
        [_moment(e["at"]), e["actor"], e["action"], _called(e["person_id"], e["person"]), _details(e)] for e in entries
    ]
    table(["when", "who", "what", "person", "details"], rows)


def _moment(seconds: float) -> str:
    """Return a time as people here write it, with the offset from UTC."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _called(person_id: int | None, name: str | None) -> str:
    return "-" if person_id is None else name or f"person {person_id} (erased)"


def _details(entry: dict[str, Any]) -> str:
    """Return what else a journal entry says, in words."""
    told = []
    if "into" in entry:
        told.append(f"into {_called(entry['into'], entry['into_person'])}")
    if isinstance(entry.get("faces"), int):
        told.append(plural(entry["faces"], "face"))
    told += [f"{key} {entry[key]}" for key in ("state", "unknown", "kind", "dropped") if key in entry]
    return ", ".join(told)


@click.command("export")
@click.argument("path", type=PlacePath(dir_okay=False))
@click.option("--chips", is_flag=True, help="Include the stored chips.")
@gallery_option
@no_lock_option
@json_option
@quiet_option
def export_file(path: Path, chips: bool, gallery: Path, as_json: bool, quiet: bool) -> None:
    """Write the gallery to one file that others can read: .parquet or .sqlite."""
    from facepipe.files.guard import check_outputs
    from facepipe.gallery.portable import export_gallery

    check_outputs((path,), gallery=gallery)
    with open_database(gallery) as database:
        sealed = database.codec.sealed
        count = export_gallery(database, path, chips=chips)
    if sealed and not quiet:
        note(f"{path}: is not sealed, although the gallery is")
    if as_json:
        echo_json(path=str(path), faces=count)
    else:
        echo(f"{plural(count, 'face')} written to {path}")


@click.command("import")
@click.argument("path", type=PlacePath(dir_okay=False))
@gallery_option
@json_option
def import_file(path: Path, gallery: Path, as_json: bool) -> None:
    """Add the faces of an exported file; vectors of another model are refused."""
    from facepipe.gallery.portable import import_gallery

    added, there = import_gallery(gallery, path)
    if as_json:
        echo_json(added=added, already=there)
    else:
        echo(f"{plural(added, 'face')} added, {there} there already")
