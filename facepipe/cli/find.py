"""`facepipe find`: which photos show these people together? Prints paths, for a shell to go on with."""

from __future__ import annotations

from pathlib import Path

import click

from facepipe.cli import common
from facepipe.cli.catalogs import catalog_argument, open_groups
from facepipe.cli.common import gallery_option


@click.command()
@catalog_argument
@click.option("--with", "with_", multiple=True, metavar="NAME", help="This person is in the photo; may be given again.")
@click.option("--without", multiple=True, metavar="NAME", help="This person is not in it; may be given again.")
@click.option("--since", metavar="DATE", help="Taken on or after this year, month or day: 2019, 2019-07, 2019-07-04.")
@click.option("--until", metavar="DATE", help="Taken on or before it.")
@click.option("--unknown", is_flag=True, help="Somebody is in it whom nobody has named.")
@click.option("--group", type=int, metavar="GROUP", help="A face of this group of facepipe cluster is in it.")
@click.option("-0", "--null", "null", is_flag=True, help="End each path with NUL instead of a line break (xargs -0).")
@gallery_option
def find(
    catalog: Path | None,
    with_: tuple[str, ...],
    without: tuple[str, ...],
    since: str | None,
    until: str | None,
    unknown: bool,
    group: int | None,
    null: bool,
    gallery: Path,
) -> int:
    """Print the paths of photos in CATALOG, of a scan or batch, that show these people. Exit code 0, also when there are none."""
    from facepipe.errors import ExitCode, UsageError

    if not (with_ or without or since or until or unknown or group is not None):
        raise UsageError("find: whom? Give --with NAME, --without, --since, --until, --unknown or --group")
    with open_groups(catalog, gallery) as groups:
        found = groups.find(with_=with_, without=without, since=since, until=until, unknown=unknown, group=group)
        for path in found:
            if null:
                click.echo(f"{path}\0", file=common.answer_file(), nl=False)
            else:
                common.echo(path, exact=True)
    return ExitCode.OK
