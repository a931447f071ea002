"""`facepipe verify A B`: do two photos show the same person? Answers like grep: 0 same, 1 different."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from facepipe.cli.common import FiniteRange, echo, json_option
from facepipe.cli.options import Looking, detect_options

if TYPE_CHECKING:
    from facepipe.detect.selection import FaceRule


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
@json_option
@detect_options
def verify(
    first: str,
    second: str,
    model: str,
    threshold: float | None,
    rule: FaceRule,
    as_json: bool,
    looking: Looking,
) -> int:
    """Say whether two photos show the same person: exit code 0 when they do, 1 when they do not."""
    from facepipe.cli.options import load_engines
    from facepipe.detect.selection import require_faces
    from facepipe.images import read_image
    from facepipe.models.registry import get_record
    from facepipe.predict.policy import policy_for

    limit = policy_for(get_record(model), 1, threshold=threshold).threshold
    images = [read_image(path, max_side=looking.read_side) for path in (first, second)]
    described = load_engines(model, looking, 2).describe(images)
    vectors = []
    for photo in described:
        (place,) = require_faces(photo.faces, rule, photo.path)
        vectors.append(photo.embeddings.vectors[place])
    similarity = float(vectors[0] @ vectors[1])
    same = similarity >= limit
    if as_json:
        facts = {"schema_version": 1, "a": first, "b": second, "same": same}
        echo(
            json.dumps(
                {
                    **facts,
                    "similarity": round(similarity, 4),
                    "threshold": limit,
                    "model": described[0].embeddings.fingerprint,
                }
            )
        )
    else:
        echo(f"{'same person' if same else 'different people'}: similarity {similarity:.3f}, threshold {limit:.3f}")
    return 0 if same else 1
