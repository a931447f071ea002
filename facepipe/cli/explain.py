"""`facepipe explain`: why does this face get this name?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.common import PlacePath, cell, echo, no_lock_option, note, opened, out_console
from facepipe.cli.options import Deciding, Looking, face_option, recognition_options

if TYPE_CHECKING:
    from facepipe.records import Record


@click.command()
@click.argument("photo", metavar="PHOTO|-")
@face_option
@click.option("--against", metavar="NAME", help="A person of the gallery: why is it not this one?")
@click.option(
    "--out", type=PlacePath(dir_okay=False), help="Write the explanation with its pictures: .html, .png or .json."
)
@no_lock_option
@recognition_options
def explain(
    photo: str,
    number: int | None,
    against: str | None,
    out: Path | None,
    looking: Looking,
    deciding: Deciding,
) -> None:
    """Say why a face gets its name, step by step; without --face the largest one of the photo."""
    from facepipe.explain.story import explain as explained
    from facepipe.explain.writing import check_suffix
    from facepipe.files.guard import check_outputs
    from facepipe.gallery.store import GalleryStore

    if out is not None:
        check_suffix(out)
        check_outputs((out,), (photo,), deciding.gallery)
    chosen = {name: value for name, value in asdict(deciding).items() if name != "gallery"}
    with GalleryStore.open(deciding.gallery) as gallery:
        made = explained(
            opened(photo),
            gallery,
            face=number or "largest",
            against=against,
            out=out,
            tell=note,
            **asdict(looking),
            **chosen,
        )
    show(made.facts)
    if out is not None:
        echo(f"explanation: {out}")


def show(facts: Record) -> None:
    """Print what an explanation says, a line for each step."""
    from facepipe.explain.reasons import figure
    from facepipe.text import printable

    detect, match, predict = facts["detect"], facts["match"], facts["predict"]
    which = f", face {facts['face']} of {facts['faces']}" if facts["faces"] > 1 else ""
    echo(f"{printable(facts['path'])}{which}: {printable(facts['sentence'])}")
    rows: list[tuple[str, str]] = []
    if detect["kept"] is not None:
        first, second, third = detect["kept"]
        text = f"{detect['searched']:,} of {detect['windows']:,} windows searched; the three networks kept {first}, {second}, {third}"
        rows.append(("1 detect", text))
    limit = detect["limit"]
    said = "; ".join(detect["faults"]) or (
        "nothing limits it" if limit is None else f"limited most by {figure(limit['figure'], limit['value'])}"
    )
    rows.append(("", f"score {facts['answer']['score']:.3f}; quality: {said.replace('_', ' ')}"))
    layers = facts["embed"]["layers"]
    rows.append(
        ("2 embed", f"{facts['embed']['dim']} numbers" + (f"; {len(layers)} layers looked at" if layers else ""))
    )
    for number, one in enumerate(match["candidates"]):
        near = _photo(one["nearest"]) + ("" if one["farthest"] is None else f" to {_photo(one['farthest'])}")
        photos = "1 photo" if one["photos"] == 1 else f"{one['photos']:,} photos together"
        rows.append(("3 match" if not number else "", f"{one['person']} {one['similarity']:.3f}, {photos}: {near}"))
    rows.append(("4 predict", predict["turns"]))
    rows.append(("", predict["hangs_on"]))
    kept = [f"{name} {_answered(facts['answer'], one)}" for name, one in predict["copies"].items()]
    rows.append(("", f"copies: {', '.join(kept)}"))
    if facts["against"] is not None:
        rows.append(("against", facts["against"]["sentence"]))
    rows += [("missing", line) for line in facts["missing"]]
    print_rows(rows)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print headings and texts side by side."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in rows:
        table.add_row(cell(heading), cell(text))
    out_console().print(table)


def _photo(one: Mapping[str, Any]) -> str:
    return f"{one['photo']} {one['similarity']:.2f}"


def _answered(answer: Mapping[str, Any], copy: Mapping[str, Any]) -> str:
    if copy["status"] is None:
        return "no face found"
    if (copy["status"], copy["person"]) == (answer["status"], answer["person"]):
        return "the same"
    return str(copy["person"] or copy["status"])
