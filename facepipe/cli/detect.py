"""`facepipe detect`: step 1 alone, to look at what it finds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.common import PlacePath, cell, echo, json_option, note, opened, out_console, without_sidecars
from facepipe.cli.options import FEW, Looking, detect_options

if TYPE_CHECKING:
    from facepipe.types import Face


@click.command()
@click.argument("images", nargs=-1, callback=without_sidecars, required=True, metavar="IMG...|-")
@click.option("--edges", type=PlacePath(), help="Write the edge map of the (only) picture to this file.")
@click.option(
    "--annotate",
    type=PlacePath(),
    help="Write the picture with its faces drawn: a file, or a folder for several.",
)
@json_option
@detect_options
def detect(
    images: tuple[str, ...],
    edges: Path | None,
    annotate: Path | None,
    as_json: bool,
    looking: Looking,
) -> int:
    """Find the faces in pictures: boxes, landmarks, and how usable each face is.

    `-` reads one picture from stdin.
    """
    from facepipe import single
    from facepipe.errors import ExitCode, InputError, UsageError
    from facepipe.files.guard import check_outputs
    from facepipe.images import read_image, write_image
    from facepipe.outputs.draw import draw_edges, draw_faces
    from facepipe.records import dumps, face_record

    if edges and len(images) > 1:
        raise UsageError("--edges takes one picture at a time")
    check_outputs((edges, annotate), images)
    if annotate and len(images) > 1 and annotate.suffix.lower() in {".jpg", ".jpeg", ".png"}:
        raise UsageError(f"--annotate {annotate}: several pictures need a folder")
    quick = len(images) <= FEW
    records: list[dict[str, Any]] = []
    failed = 0
    for path in images:
        try:
            image = read_image(opened(path), max_side=looking.read_side)
        except InputError as error:
            if len(images) == 1:
                raise
            note(f"facepipe: {error}")
            records.append({"path": path, "width": None, "height": None, "error": str(error), "faces": []})
            failed += 1
            continue
        faces = single.detect(image, quick=quick, **asdict(looking))
        found = [face_record(face) for face in faces]
        records.append({"path": path, "width": image.width, "height": image.height, "error": None, "faces": found})
        if edges:
            write_image(edges, draw_edges(single.edges(image, quick=quick, **asdict(looking))))
        if annotate:
            whole = image if image.enlarge is None else image.enlarge(max(image.width, image.height))
            write_image(_target(annotate, path, several=len(images) > 1), draw_faces(whole, found))
        if not as_json:
            _print_table(path, faces)
    if as_json:
        echo(dumps({"schema_version": 1, "images": records}, indent=2))
    if failed:
        return ExitCode.INPUT if failed == len(images) else ExitCode.PARTIAL
    return ExitCode.OK


def _target(annotate: Path, path: str, *, several: bool) -> Path:
    """Return where the picture with the faces of a photo goes: into a folder when there are several, or it is one."""
    from facepipe.files.atomic import make_folder
    from facepipe.outputs.names import output_stem

    if not several and not annotate.is_dir():
        return annotate
    make_folder(annotate)
    return annotate / f"{output_stem(path)}.jpg"


def _print_table(path: str, faces: tuple[Face, ...]) -> None:
    from rich.table import Table

    table = Table(title=cell(f"{path}: {len(faces)} face{'' if len(faces) == 1 else 's'}"), title_justify="left")
    for heading in ("face", "box (x1 y1 x2 y2)", "score", "size", "sharpness", "yaw", "pitch", "roll", "edges"):
        table.add_column(heading, justify="right")
    for number, face in enumerate(faces, 1):
        q = face.quality
        table.add_row(
            str(number),
            " ".join(f"{v:.0f}" for v in face.box),
            f"{face.score:.3f}",
            f"{q.size:.0f} px",
            f"{q.sharpness:.0f}",
            f"{q.yaw:+.0f}°",
            f"{q.pitch:+.0f}°",
            f"{q.roll:+.0f}°",
            f"{q.edge_density:.0%}",
        )
    out_console().print(table)
