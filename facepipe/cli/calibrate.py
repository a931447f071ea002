"""`facepipe calibrate`: the threshold for this gallery, and what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from facepipe.cli.common import (
    FiniteRange,
    PlacePath,
    device_option,
    echo,
    gallery_option,
    json_option,
    note,
    quiet_option,
)


@click.command()
@gallery_option
@click.option("--strangers", type=PlacePath(file_okay=False), multiple=True,
              help="Photos of people who are not in the gallery: a folder each, or a photo each; repeatable.")  # fmt: skip
@click.option("--fpir", type=FiniteRange(0.0, 1.0, min_open=True, max_open=True), default=0.01, show_default=True,
              help="Wanted share of strangers' faces that get a name.")  # fmt: skip
@click.option("--confidence", type=FiniteRange(0.5, 1.0, max_open=True), default=0.95, show_default=True,
              help="Confidence of the stated upper bound.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Keep the upper bound within --fpir, not only the expected rate.")
@click.option("--no-enrolled", is_flag=True, help="Do not count enrolled people as each other's impostors.")
@click.option("--known-share", type=FiniteRange(0.0, 1.0, min_open=True, max_open=True), default=0.5,
              show_default=True, help="Expected share of faces that belong to enrolled people, for the probabilities.")  # fmt: skip
@click.option(
    "--margin",
    type=FiniteRange(0.0, 2.0),
    default=None,
    help="Lead over the second person; default: from the model's record.",
)
@click.option("--min-face", type=click.IntRange(min=12), default=40, show_default=True, envvar="FACEPIPE_MIN_FACE",
              help="Smallest face in pixels.")  # fmt: skip
@device_option
@click.option("--cache", type=PlacePath(dir_okay=False), help="Keep the strangers' embeddings in this .npz.")
@click.option("--dry-run", is_flag=True, help="Measure and print, store nothing.")
@click.option(
    "--clear", is_flag=True, help="Remove the gallery's calibration; the thresholds of the model's record apply again."
)
@json_option
@quiet_option
def calibrate(
    gallery: Path,
    strangers: tuple[Path, ...],
    no_enrolled: bool,
    min_face: int,
    device: str,
    cache: Path | None,
    dry_run: bool,
    clear: bool,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Choose the gallery's threshold for a wanted false positive rate (FPIR), at this gallery's size.

    Measured on your strangers and on enrolled people among themselves. A target that so few people cannot support is
    refused, with the number needed.
    """
    from facepipe.api import Gallery
    from facepipe.cli.evaluate import embed
    from facepipe.files.guard import check_outputs
    from facepipe.loading import record_of

    check_outputs((cache,), gallery=gallery)
    with Gallery.open(gallery) as opened:
        if clear:
            opened.set_calibration(None)
            if not quiet:
                note("facepipe: the calibration is removed; the thresholds of the model's record apply again")
            return
        found = opened.calibrate(
            strangers,
            **asked,
            enrolled=not no_enrolled,
            keep=not dry_run,
            embed=lambda paths: embed(paths, record_of(opened).name, "largest", device, min_face, cache, quiet),
        ).as_dict()
    if as_json:
        echo(json.dumps(found, indent=2))
    else:
        for line in describe(found):
            echo(line)
    if not quiet:
        for text in found["notes"]:
            note(f"facepipe: {text}")


def describe(calibration: dict[str, Any]) -> list[str]:
    """Say in a few lines what a stored calibration promises; `gallery show` prints the same."""
    sources = ", ".join(f"{count} {name}" for name, count in calibration["sources"].items())
    lines = [
        f"threshold {calibration['threshold']:.4f}, margin {calibration['margin']:.2f}, "
        f"for {calibration['gallery_size']} people, {calibration['date']}",
        f"of 100 strangers {100 * calibration['expected_fpir']:.2f} are expected to get a name (asked: "
        f"{100 * calibration['target_fpir']:g}); with {100 * calibration['confidence']:g} % certainty at most "
        f"{100 * calibration['fpir_bound']:.2f}",
        f"measured on {calibration['impostor_people']} people: {sources}",
    ]
    if calibration["record_threshold"] is not None:
        lines.append(f"the model's record has {calibration['record_threshold']:.4f} for a gallery of this size")
    if calibration["curve"]:
        ece = calibration["curve_ece"]
        lines.append(
            f"probabilities: {calibration['curve_method']}, from {calibration['curve_people']} enrolled people and the strangers, "
            f"when {100 * calibration['known_share']:g} % of faces are of enrolled people"
            + ("" if ece is None else f"; calibration error {ece:.3f} on people held out")
        )
    return lines
