"""`facepipe name`: a group of faces gets a name, and its best faces are enrolled."""

from __future__ import annotations

from pathlib import Path

import click

from facepipe.cli.catalogs import catalog_option, open_groups, require_grouped, the_catalog
from facepipe.cli.common import echo, gallery_option
from facepipe.cli.process import settle


@click.command()
@click.argument("group", type=int, required=False)
@click.argument("person", metavar="NAME", required=False)
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Faces that are enrolled at most, the best and most different ones; all are remembered.",
)
@click.option("--undo", is_flag=True, help="Take back the last answer, in the gallery too.")
@catalog_option
@gallery_option
def name(group: int | None, person: str | None, most: int, undo: bool, catalog: Path | None, gallery: Path) -> int:
    """Say that GROUP, a number of facepipe cluster's table, is NAME."""
    from facepipe.errors import ExitCode, UsageError

    if undo:
        if group is not None:
            raise UsageError("name --undo takes back the last answer: it takes no group")
        settle()
        with open_groups(catalog, gallery) as groups:
            echo(f"taken back: {groups.undo()}")
        return ExitCode.OK
    if group is None or person is None:
        raise click.UsageError("Missing argument 'GROUP' or 'NAME'.")
    return name_group(group, person, catalog, gallery, most)


def name_group(group: int, person: str, catalog: Path | None, gallery: Path, most: int) -> int:
    """Name a group and say what was done; what `facepipe enroll --group` does too."""
    from facepipe.errors import ExitCode

    settle()
    with open_groups(catalog, gallery) as groups:
        require_grouped(groups, the_catalog(catalog))
        last = max((answer.number for answer in groups.answers(1)), default=0)
        if groups.name(group, person, most=most) <= last:
            echo(f"group {group} is {groups.group(group).person} already")
        else:
            echo(f"{groups.answers(1)[0].text}; facepipe name --undo takes it back")
    return ExitCode.OK
