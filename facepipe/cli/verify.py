"""`facepipe verify A B`: do two photos show the same person? Answers like grep: 0 same, 1 different."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facepipe.cli.common import FiniteRange, echo, json_option, note, opened
from facepipe.cli.options import Looking, detect_options, explain_option

if TYPE_CHECKING:
    from facepipe.detect.selection import FaceChoice, FaceRule


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--model", default="mini", show_default=True, envvar="FACEPIPE_MODEL", metavar="NAME", help="Embedder.")
@click.option(
    "--threshold",
    type=FiniteRange(-1.0, 1.0),
    default=None,
    envvar="FACEPIPE_THRESHOLD",
    help="Cosine at which they are the same.",
)
@click.option(
    "--faces",
    "rule",
    type=click.Choice(["clear", "largest", "only"]),
    default="clear",
    show_default=True,
    help="Which face to take of a photo with several.",
)
@click.option(
    "--face",
    "numbers",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="NUMBER",
    help="The face of this number, as facepipe detect shows it; given twice, for A and for B.",
)
@explain_option
@json_option
@detect_options
def verify(
    first: str,
    second: str,
    model: str,
    threshold: float | None,
    rule: FaceRule,
    numbers: tuple[int, ...],
    explain: Path | None,
    as_json: bool,
    looking: Looking,
) -> int:
    """Say whether two photos show the same person: exit code 0 when they do, 1 when they do not.

    `-` reads one of them from stdin.
    """
    from facepipe import single
    from facepipe.errors import UsageError
    from facepipe.images.inputs import as_image
    from facepipe.outputs.table import percent

    if len(numbers) > 2:
        raise UsageError("verify: --face is given once, or twice, for A and for B")
    faces: FaceChoice | tuple[FaceChoice, FaceChoice] = rule
    if numbers:
        faces = numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
    if explain is not None:
        from facepipe.explain.pair import explain_pair
        from facepipe.explain.writing import check_suffix
        from facepipe.files.guard import check_outputs

        check_suffix(explain)
        check_outputs((explain,), (first, second))
    options = {"model": model, **asdict(looking)}
    a, b = (as_image(opened(path), max_side=looking.read_side) for path in (first, second))
    found = single.verify(a, b, threshold=threshold, faces=faces, quick=explain is None, **options)
    if explain is not None:
        explain_pair(a, b, found, out=explain, **options)
        note(f"explanation: {explain}")
    if as_json:
        facts = {"schema_version": 1, "a": first, "b": second, "same": found.same}
        probability = None if found.probability is None else round(found.probability, 4)
        figures = {"similarity": round(found.similarity, 4), "threshold": found.threshold, "probability": probability}
        echo(json.dumps(facts | figures | {"close": found.close, "model": found.model}))
    else:
        answer = "same person" if found.same else "different people"
        sure = "" if found.probability is None else f" ({percent(found.probability)} sure that they are one person)"
        doubt = f"; too close to tell{sure}: compare other photos" if found.close else ""
        echo(f"{answer}: similarity {found.similarity:.3f}, threshold {found.threshold:.3f}{doubt}")
    return 0 if found.same else 1
