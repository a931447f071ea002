"""`facepipe cluster`: whose faces belong together? Groups the faces of a pile, for `name`, `review` and `find`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.catalogs import catalog_argument, open_groups, the_catalog
from facepipe.cli.common import (
    FiniteRange,
    PlacePath,
    cell,
    echo,
    gallery_option,
    json_option,
    note,
    out_console,
    quiet_option,
)
from facepipe.cli.options import FOLDER
from facepipe.cli.process import settle
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from facepipe.groups.groups import Groups
    from facepipe.groups.values import Group, Grouped

#: Rows of the table when nobody asks for more.
_ROWS = 50


@click.command()
@catalog_argument
@click.option("--all", "everybody", is_flag=True, help="Group faces that are known already as well.")
@click.option(
    "--threshold",
    type=FiniteRange(-1.0, 1.0),
    default=None,
    help="Mean cosine down to which groups are joined; default: as measured for the network and so many people.",
)
@click.option(
    "--min-size", type=click.IntRange(min=1), default=2, show_default=True, help="Smallest group that is shown."
)
@click.option("--top", type=click.IntRange(min=1), default=_ROWS, show_default=True, help="Rows of the table.")
@click.option("--page", type=PlacePath(dir_okay=False), help="Write one HTML page with the faces.")
@click.option("--crops", type=FOLDER, help="Write the faces as pictures into this folder, a folder for each group.")
@gallery_option
@json_option
@quiet_option
def cluster(
    catalog: Path | None,
    everybody: bool,
    threshold: float | None,
    min_size: int,
    top: int,
    page: Path | None,
    crops: Path | None,
    gallery: Path,
    as_json: bool,
    quiet: bool,
) -> int:
    """Group the faces in CATALOG, of a scan or batch, by person. New photos join the groups that are there.

    Faces that somebody is named in are left out. Names and answers are kept in NAME.groups beside the catalog.
    """
    from facepipe.errors import ExitCode
    from facepipe.files.guard import check_outputs
    from facepipe.groups.export import require_folder, write_crops, write_page

    path = the_catalog(catalog)
    check_outputs((page,), (path,), gallery)
    if crops is not None:
        require_folder(crops, gallery)
    settle()
    with open_groups(path, gallery) as groups:
        counts = groups.refresh(all=everybody, threshold=threshold)
        everything = groups.table(state=None)
        parts = _parts(len(groups.pile), counts, everything)
        table = [group for group in everything if group.state == "open" and group.size >= min_size]
        if page is not None:
            write_page(page, groups, table)
        if crops is not None:
            write_crops(crops, groups, table)
        if as_json:
            echo(json.dumps(_document(groups, counts, parts, table), ensure_ascii=False))
        else:
            _print(groups, counts, parts, table, path, top)
    for written in (page, crops):
        if written is not None and not quiet:
            note(f"facepipe: written: {printable(written)}")
    return ExitCode.OK


def _parts(faces: int, counts: Grouped, groups: list[Group]) -> dict[str, int]:
    """Return what the faces of a catalog are, each counted once: the parts add up to `faces`."""
    open_ = [group.size for group in groups if group.state == "open"]
    parts = {
        "grouped": sum(size for size in open_ if size > 1),
        "alone": open_.count(1),
        "waiting": counts.waiting,
        "aside": sum(group.size for group in groups if group.state in {"ignored", "skipped"}),
    }
    return {"faces": faces, **parts, "known": faces - sum(parts.values())}


def _document(groups: Groups, counts: Grouped, parts: dict[str, int], table: list[Group]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "threshold": None if groups.threshold is None else round(groups.threshold, 4),
        **parts,
        "added": counts.added,
        "groups": [
            {
                "group": group.id,
                "faces": [
                    {
                        "path": printable(face.path),
                        "content": face.key.content,
                        "face": face.key.number + 1,
                        "box": [round(value, 2) for value in face.box],
                        "score": round(face.score, 4),
                        "taken": face.taken,
                        "status": face.status,
                    }
                    for face in groups.faces(group.id)
                ],
                "size": group.size,
                "photos": group.photos,
                "first": group.first,
                "last": group.last,
                "cohesion": round(group.cohesion, 4),
                "new": group.new,
                "suggestion": None if group.suggestion is None else group.suggestion[0],
                "probability": None if group.suggestion is None else round(group.suggestion[1], 4),
                "alike": [{"group": other, "cosine": round(cosine, 4)} for other, cosine in group.alike],
            }
            for group in table
        ],
    }


def _print(groups: Groups, counts: Grouped, parts: dict[str, int], table: list[Group], path: Path, top: int) -> None:
    from rich.table import Table

    from facepipe.outputs.table import percent

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("group", "faces", "photos", "taken", "alike", "who", "perhaps the same as"):
        shown.add_column(title, justify="right" if title in {"group", "faces", "photos", "alike"} else "left")
    for group in table[:top]:
        first, last = ((date or "")[:10] for date in (group.first, group.last))
        taken = first if first == last else f"{first} to {last}"
        who = "–" if group.suggestion is None else f"maybe {group.suggestion[0]}, {percent(group.suggestion[1])}"
        same = ", ".join(str(other) for other, _ in group.alike)
        row = (
            f"{group.id}{' new' * group.new}",
            str(group.size),
            str(group.photos),
            taken or "–",
            f"{group.cohesion:.2f}",
            who,
            same,
        )
        shown.add_row(*(cell(value) for value in row))
    if table:
        out_console().print(shown)
    several = sum(group.size > 1 for group in groups.table())
    told = (
        (parts["grouped"], f" in {plural(several, 'group')}"),
        (parts["alone"], " alone"),
        (parts["waiting"], " doubtful"),
        (parts["known"], " known"),
        (parts["aside"], " put off or needed by nobody"),
    )
    found = ", ".join(f"{count:,}{what}" for count, what in told if count) or "none to group"
    more = f"; the first {top:,} of {len(table):,} rows are shown: --top" if len(table) > top else ""
    echo(f"{plural(parts['faces'], 'face')}: {found}; threshold {groups.threshold or 0.0:.2f}{more}")
    if counts.lost:
        note(f"facepipe: {plural(counts.lost, 'answer')} had to go: the face is not found in its photo any more")
    if table:
        note(f'facepipe: facepipe name {table[0].id} "NAME" --catalog {printable(path)} says who a group is')
