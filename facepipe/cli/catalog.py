"""`facepipe catalog`: looks after what scans and batches found. Each verb loads when it is called."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from facepipe.cli.common import PlacePath, echo, note
from facepipe.text import files, plural, printable


@click.group()
def catalog() -> None:
    """Look after what scans and batches found."""


@catalog.command()
@click.argument("parts", nargs=-1, required=True, type=PlacePath(), metavar="CATALOG...")
@click.option("--out", required=True, type=PlacePath(dir_okay=False), help="The new catalog, NAME.catalog.")
def merge(parts: tuple[Path, ...], out: Path) -> int:
    """Make one catalog of several: of the parts of a scan (--shard), or of piles that were scanned apart.

    A batch of the same photos that goes on from it scans nothing again. The parts stay as they are.
    """
    from facepipe.catalog.merge import merge_catalogs
    from facepipe.catalog.store import SUFFIX
    from facepipe.cli.catalogs import the_catalog
    from facepipe.errors import ExitCode

    made = merge_catalogs([the_catalog(part) for part in parts], out)
    for path in made.stopped:
        note(
            f"facepipe: {printable(path)}: its scan did not come to its end; what is missing is scanned by the next batch"
        )
    if made.missing:
        numbers = ", ".join(map(str, made.missing))
        note(f"facepipe: not among these: shard {numbers}; their photos are scanned by the next batch")
    echo(f"{files(made.photos, made.videos)} of {plural(len(parts), 'catalog')}, {made.failed:,} failed")
    results = out.name.removesuffix(SUFFIX)
    name = shlex.quote(str(out))
    how = (
        f"--out {shlex.quote(str(out.with_name(results)))}"
        if Path(results).suffix
        else f"--catalog {name} --out results.jsonl"
    )
    echo(f"catalog: {printable(out)}; facepipe batch PHOTOS {how} goes on from it")
    return ExitCode.OK
