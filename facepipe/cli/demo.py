"""`facepipe demo`: the four steps on real portraits, in half a minute and without any photo of the user's."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.common import PlacePath, device_option, echo, json_option, note, out_console
from facepipe.cli.options import explain_option

if TYPE_CHECKING:
    from facepipe.embed.describer import Describer
    from facepipe.images.samples import DemoPicture
    from facepipe.outputs.steps import StepRow
    from facepipe.pipeline import Recognizer
    from facepipe.types import Described, Image, Recognized


#: Which pictures are drawn, by how many people are enrolled.
_SHOWN = {2: ("Collins turned", "Hopper dark", "flower"), 1: ("Hopper blurred",)}


@click.command()
@click.option(
    "--out",
    type=PlacePath(dir_okay=False),
    default=Path("facepipe-demo.png"),
    show_default=True,
    help="Where the picture of the four steps goes.",
)
@explain_option
@json_option
@device_option
def demo(out: Path, explain: Path | None, as_json: bool, device: str) -> int:
    """Enrol two public-domain portraits, recognise altered copies of them, and draw what each step does."""
    started = time.perf_counter()
    from facepipe.errors import ExitCode
    from facepipe.files.guard import check_outputs
    from facepipe.images import write_image
    from facepipe.images.samples import PEOPLE, portraits, probes
    from facepipe.loading import load_describer
    from facepipe.outputs.steps import draw_steps

    if explain is not None:
        from facepipe.explain.writing import check_suffix

        check_suffix(explain)
    check_outputs((out, explain))
    describer = load_describer("mini", device)
    pictures = list(probes())
    described = describer.describe([picture.image for picture in pictures])
    rows = []
    shown = []
    # Twice: with both people enrolled, and with one of them a stranger.
    for names in (PEOPLE, PEOPLE[:1]):
        with tempfile.TemporaryDirectory(prefix="facepipe-demo-") as folder:
            recognizer = _enrol(Path(folder), describer, {name: portraits()[name] for name in names})
            if explain is not None and names == PEOPLE:
                _explain(Path(folder), describer, next(p.image for p in pictures if p.image.path in _SHOWN[2]), explain)
        results = recognizer.decide(described)
        rows += [_row(names, picture, result) for picture, result in zip(pictures, results, strict=True)]
        wanted = _SHOWN[len(names)]
        for picture, photo, result in zip(pictures, described, results, strict=True):
            if picture.image.path in wanted:
                title = f"{picture.image.path}, a stranger here" if len(names) == 1 else picture.image.path
                shown.append(_steps(title, describer, photo, result))
    write_image(out, draw_steps(shown))
    seconds = time.perf_counter() - started
    right = sum(bool(row["right"]) for row in rows)
    if as_json:
        echo(
            json.dumps(
                {"schema_version": 1, "rows": rows, "right": right, "picture": str(out), "seconds": round(seconds, 2)}
            )
        )
    else:
        _print(rows)
        echo(f"{right} of {len(rows)} answers are right. {seconds:.1f} s. The four steps as a picture: {out}")
        if explain is not None:
            echo(f"Why one of the answers was given: {explain}")
    if right < len(rows):
        note("facepipe: the demo gave a wrong answer; please report it with the output of `facepipe doctor`")
        return ExitCode.UNPLANNED
    return ExitCode.OK


def _enrol(folder: Path, describer: Describer, people: dict[str, Image]) -> Recognizer:
    from facepipe.api import Gallery
    from facepipe.pipeline import Recognizer

    with Gallery(folder / "gallery") as gallery:
        for name, portrait in people.items():
            list(
                gallery.enroll(
                    portrait, name=name, detector=describer.detector, embedder=describer.embedder, keep_chips=True
                )
            )
        return Recognizer(gallery, detector=describer.detector, embedder=describer.embedder)


def _explain(folder: Path, describer: Describer, image: Image, out: Path) -> None:
    from facepipe.explain.story import explain
    from facepipe.gallery.store import GalleryStore

    with GalleryStore.open(folder / "gallery") as gallery:
        explain(image, gallery, out=out, detector=describer.detector, embedder=describer.embedder)


def _steps(title: str, describer: Describer, photo: Described, result: Recognized) -> StepRow:
    from facepipe.detect.detector import MtcnnDetector
    from facepipe.embed.alignment import align
    from facepipe.outputs.steps import StepRow

    detector = describer.detector
    assert isinstance(detector, MtcnnDetector) and photo.image is not None
    edges = detector.edges(photo.image).magnitude
    if not result.predictions:
        return StepRow(title, photo.image, edges)
    best = result.predictions[0]
    return StepRow(
        title,
        photo.image,
        edges,
        best.face,
        align(photo.image, [best.face], describer.embedder.template)[0],
        photo.embeddings.vectors[0],
        best.candidates,
        best.threshold,
        best.status,
        best.person,
        best.probability,
    )


def _row(enrolled: Sequence[str], picture: DemoPicture, result: Recognized) -> dict[str, Any]:
    best = max(result.predictions, key=lambda p: p.face.score, default=None)
    expected = picture.person if picture.person in enrolled else ("unknown" if picture.person else "no face")
    answer = "no face" if best is None else (best.person or str(best.status))
    return {
        "enrolled": list(enrolled),
        "picture": picture.image.path,
        "answer": answer,
        "similarity": None if best is None or best.similarity is None else round(best.similarity, 3),
        "right": answer == expected,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from itertools import groupby

    from rich.table import Table

    for names, group in groupby(rows, key=lambda row: " and ".join(row["enrolled"])):
        table = Table(title=f"Enrolled: {names}", title_justify="left")
        for heading in ("picture", "answer", "similarity", ""):
            table.add_column(heading, justify="right" if heading == "similarity" else "left", no_wrap=True)
        for row in group:
            similarity = "" if row["similarity"] is None else f"{row['similarity']:.3f}"
            table.add_row(row["picture"], row["answer"], similarity, "[green]✓[/]" if row["right"] else "[red]✗[/]")
        out_console().print(table)
