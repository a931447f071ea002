"""`facepipe calibrate`: the threshold for this gallery, and what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.common import FiniteRange, device_option, echo, gallery_option, json_option, note, quiet_option

if TYPE_CHECKING:
    from facepipe.models.registry import ModelRecord


@click.command()
@gallery_option
@click.option("--strangers", type=click.Path(path_type=Path, file_okay=False), multiple=True,
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
@click.option(
    "--cache", type=click.Path(path_type=Path, dir_okay=False), help="Keep the strangers' embeddings in this .npz."
)
@click.option("--dry-run", is_flag=True, help="Measure and print, store nothing.")
@click.option(
    "--clear", is_flag=True, help="Remove the gallery's calibration; the thresholds of the model's record apply again."
)
@json_option
@quiet_option
def calibrate(
    gallery: Path,
    strangers: tuple[Path, ...],
    fpir: float,
    confidence: float,
    strict: bool,
    no_enrolled: bool,
    known_share: float,
    margin: float | None,
    min_face: int,
    device: str,
    cache: Path | None,
    dry_run: bool,
    clear: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Choose the gallery's threshold for a wanted false positive rate (FPIR), at this gallery's size.

    Measured on your strangers and on enrolled people among themselves. A target that so few people cannot support is
    refused, with the number needed.
    """
    from facepipe.evaluate.calibration import calibrate_gallery
    from facepipe.files.guard import check_outputs
    from facepipe.gallery.codec import Secret
    from facepipe.gallery.store import Gallery
    from facepipe.models.registry import records

    check_outputs((cache,), gallery=gallery)
    with Gallery.open(gallery, Secret.from_environment()) as opened:
        if clear:
            opened.set_calibration(None)
            if not quiet:
                note("facepipe: the calibration is removed; the thresholds of the model's record apply again")
            return
        snapshot = opened.snapshot()
        record = next((r for r in records() if r.fingerprint == snapshot.fingerprint), None)
        outside = _embed_strangers(
            strangers, record.name if record else None, snapshot.fingerprint, device, min_face, cache, quiet
        )
        own_margin, own_threshold = _of_record(record, len(snapshot.persons), fpir)
        found = calibrate_gallery(
            snapshot.fingerprint,
            snapshot.persons,
            snapshot.vectors,
            snapshot.owners,
            outside,
            own_margin if margin is None else margin,
            fpir,
            confidence,
            strict,
            not no_enrolled,
            known_share,
            own_threshold,
        ).as_dict()
        if not dry_run:
            opened.set_calibration(found)
    if as_json:
        echo(json.dumps(found, indent=2))
    else:
        for line in describe(found):
            echo(line)
    if not quiet:
        for text in found["notes"]:
            note(f"facepipe: {text}")


def _of_record(record: ModelRecord | None, people: int, fpir: float) -> tuple[float, float | None]:
    """Return the margin of a model's record, and its threshold for a gallery of this size where it was measured for the FPIR."""
    from facepipe.models.statistics import load_statistics
    from facepipe.predict.policy import policy_for

    if record is None:
        return 0.0, None
    statistics = load_statistics(record)
    if statistics is None:
        return record.margin or 0.0, None
    measured = 0.001 <= fpir <= 0.1
    return statistics.margin, policy_for(record, people, target_fpir=fpir).threshold if measured else None


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


def _embed_strangers(
    folders: tuple[Path, ...],
    model: str | None,
    fingerprint: str,
    device: str,
    min_face: int,
    cache: Path | None,
    quiet: bool,
) -> list[tuple[str, Any, Any]]:
    """Return for each folder its name, vectors, and whose they are."""
    if not folders:
        return []
    from facepipe.cli.evaluate import embed, load_engines
    from facepipe.errors import GalleryModelError
    from facepipe.evaluate.labelled import faces_of
    from facepipe.evaluate.protocols import read_strangers

    if model is None:
        raise GalleryModelError(
            f"the gallery was made by {fingerprint}, and no model on this machine matches that: "
            "strangers cannot be embedded; see `facepipe models list`"
        )
    describer, options = load_engines(model, device, min_face)
    parts = []
    for folder in folders:
        people = read_strangers(folder)
        photos = embed([path for own in people.photos for path in own], describer, "largest", cache, options, quiet)
        faces = faces_of(people, photos)
        parts.append((str(folder), photos.vectors[photos.found], faces.owner[photos.found]))
    return parts
