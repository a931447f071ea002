"""`facepipe enroll`: put people into the gallery."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe.cli.catalogs import catalog_option
from facepipe.cli.common import (
    PlacePath,
    cell,
    echo,
    gallery_option,
    model_option,
    note,
    out_console,
    progress_bar,
    quiet_option,
    without_sidecars,
)
from facepipe.cli.options import FEW, Looking, detect_options, exclude_option, face_option, video_options
from facepipe.text import files, plural

if TYPE_CHECKING:
    from facepipe.api import Gallery
    from facepipe.detect.selection import FaceRule
    from facepipe.gallery.enrolment.intake import EnrollOutcome
    from facepipe.types import Sampling

#: So many pairs of people who look alike are named.
_PAIRS = 3
_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0, "y": 365 * 86400.0}


@click.command()
@click.argument("photos", nargs=-1, callback=without_sidecars, type=PlacePath(), metavar="FOLDER|IMG|CSV...")
@click.option("--name", help="Name of the person, for photos that are not in a folder with the person's name.")
@click.option(
    "--from-regions",
    is_flag=True,
    help="Enrol everybody whom digiKam, Lightroom, Picasa or Windows tagged in the photos: their face regions have the names.",
)
@click.option(
    "--faces",
    "choice",
    type=click.Choice(["clear", "largest", "only", "all"]),
    default="clear",
    show_default=True,
    help="Which face to take of a photo with several; clear: one must be far larger than the others.",
)
@face_option
@click.option(
    "--group", type=int, metavar="GROUP", help="Enrol a group of facepipe cluster as --name, as facepipe name does."
)
@catalog_option
@click.option("--accept-poor", is_flag=True, help="Enrol faces that are small, blurred or turned away, too.")
@click.option(
    "--force", is_flag=True, help="Enrol a face even if it looks like somebody else, or unlike its person's others."
)
@click.option(
    "--keep-chips", is_flag=True, help="Store a small picture of each face: needed by reembed and audit pages."
)
@click.option("--retain", metavar="TIME", help="Let the faces expire after a time such as 90d, 12w or 2y.")
@exclude_option
@click.option("--jsonl", is_flag=True, help="Print a JSON record for each photo as soon as it is safely stored.")
@gallery_option
@model_option
@detect_options
@video_options
@quiet_option
def enroll(
    photos: tuple[Path, ...],
    name: str | None,
    from_regions: bool,
    choice: FaceRule,
    number: int | None,
    group: int | None,
    catalog: Path | None,
    accept_poor: bool,
    force: bool,
    keep_chips: bool,
    retain: str | None,
    exclude: tuple[str, ...],
    jsonl: bool,
    gallery: Path,
    model: str | None,
    looking: Looking,
    sampling: Sampling,
    quiet: bool,
) -> int:
    """Enrol people: folders named like the people in them, photos with --name, or a CSV file of path,name.

    Of a video the best frames of the one person in it are enrolled. With --from-regions the photos, or folders of them, tell
    themselves who is where.
    """
    from facepipe.api import Gallery
    from facepipe.errors import UsageError
    from facepipe.gallery.enrolment.intake import collect_photos
    from facepipe.gallery.enrolment.tagged import tagged_photos
    from facepipe.images import Passing

    if group is not None:
        return _enroll_group(group, name, photos, catalog, gallery)
    if not photos:
        raise click.UsageError("Missing argument 'FOLDER|IMG|CSV...'.")
    seconds = _seconds(retain)
    passing = Passing(exclude)
    if from_regions and name is not None:
        raise UsageError("--from-regions takes the names from the photos: leave --name out")
    if from_regions:
        with progress_bar("reading tags", None, quiet=quiet) as progress:
            collected, astray = tagged_photos(photos, passing, progress)
    else:
        collected, astray = collect_photos(photos, name, passing)
    outcomes = list(astray)
    with (
        _counted(outcomes),
        Gallery(gallery, model=model) as store,
        progress_bar("enrolling", len(collected), quiet=quiet) as progress,
    ):
        found = store.enroll(
            collected,
            faces=number or choice,
            accept_poor=accept_poor,
            force=force,
            keep_chips=keep_chips,
            retain=seconds,
            quick=len(collected) <= FEW,
            progress=progress,
            **asdict(looking),
            **asdict(sampling),
        )
        for outcome in found:
            outcomes.append(outcome)
            if jsonl:
                _print_line(outcome)
        if not quiet:
            fresh = {outcome.person for outcome in outcomes if outcome.face_ids}
            _tell_look_alikes(store, fresh)
            _tell_needs(store, fresh)
    if jsonl:
        for outcome in astray:
            _print_line(outcome)
    else:
        _print_summary(outcomes, "tagged face" if from_regions else "photo")
    if passed := passing.told():
        note(f"passed over: {passed}")
    return _exit_code(outcomes)


def _enroll_group(group: int, name: str | None, photos: Sequence[Path], catalog: Path | None, gallery: Path) -> int:
    from facepipe.cli.name import name_group

    if name is None or photos:
        raise click.UsageError("--group goes with --name, and without photos: they are in the catalog")
    return name_group(group, name, catalog, gallery, most=20)


def _seconds(text: str | None) -> float | None:
    """Read a time such as 90d."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)([hdwy])", text)
    if not match:
        raise click.BadParameter(f"{text!r}: expected a number and h, d, w or y, such as 90d", param_hint="--retain")
    if not int(match.group(1)):
        raise click.BadParameter(f"{text!r}: the faces would expire at once: give at least 1h", param_hint="--retain")
    return int(match.group(1)) * _SECONDS[match.group(2)]


@contextlib.contextmanager
def _counted(outcomes: list[EnrollOutcome]) -> Iterator[None]:
    """Say how many faces are in when the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        enrolled = sum(bool(outcome.face_ids) for outcome in outcomes)
        note(f"interrupted: {plural(enrolled, 'face')} enrolled so far; run the same command again for the others")
        raise


def _tell_look_alikes(store: Gallery, fresh: set[str]) -> None:
    """Tell of people whose names a reader may take for one: they differ in case or blanks only, or as \u00df and ss do."""
    from facepipe.gallery.names import gallery_command, look_alike
    from facepipe.gallery.people import people

    if not fresh:
        return
    groups: dict[str, list[str]] = {}
    for person in people(store.database):
        groups.setdefault(look_alike(person.name), []).append(person.name)
    for names in groups.values():
        if len(names) > 1 and fresh & set(names):
            shown = " and ".join(repr(name) for name in names)
            joined = gallery_command(store.folder, "merge", *names, "--into", names[0])
            note(f"facepipe: {shown} are {len(names)} people; if they are one: {joined}")


def _tell_needs(store: Gallery, fresh: set[str]) -> None:
    """Tell of enrolled people whose photos the network can hardly tell apart, where one of them is new, and what names need now."""
    from facepipe.gallery.needs import needs_of

    needs = needs_of(store) if fresh and store.exists else None
    if needs is None:
        return
    for one, other in [pair for pair in needs.alike if fresh & set(pair)][:_PAIRS]:
        note(
            f"facepipe: {one} and {other} are hard to tell apart by their photos; more and different photos of both help"
        )
    if (line := needs.told()) is not None:
        note(f"facepipe: {line}")


def _print_line(outcome: EnrollOutcome) -> None:
    facts: dict[str, Any] = {"path": outcome.path, "person": outcome.person, "status": str(outcome.status)}
    echo(
        json.dumps(
            {**facts, "reason": outcome.reason or None, "faces": outcome.face_ids, "rotate": outcome.rotate},
            ensure_ascii=False,
        )
    )


def _print_summary(outcomes: list[EnrollOutcome], each: str) -> None:
    from rich.table import Table

    from facepipe.gallery.enrolment.intake import GOOD

    told = plural(len(outcomes), each) if each != "photo" else _files([outcome.path for outcome in outcomes])
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.person or "(nobody)", Counter())["in" if outcome.status in GOOD else "out"] += 1
    table = Table(box=None, pad_edge=False)
    table.add_column("person")
    table.add_column(f"{'photos and frames' if 'video' in told else 'photos'} in the gallery", justify="right")
    table.add_column("left out", justify="right")
    for person, count in sorted(counts.items()):
        table.add_row(cell(person), str(count["in"]), str(count["out"] or ""))
    out_console().print(table)
    for outcome in outcomes:
        if outcome.reason:
            note(f"{outcome.path}: {outcome.status}: {outcome.reason}")
    by_status = Counter(str(outcome.status) for outcome in outcomes)
    echo(f"{told}: {', '.join(f'{count} {status}' for status, count in by_status.most_common())}")


def _files(paths: Sequence[str]) -> str:
    """Return how many photos and videos these are; of a video each frame that was chosen is there, or the whole of it."""
    from facepipe.images import is_video

    sources = [path.partition("#t=") for path in paths]
    filmed = [path for path, _, _ in sources if is_video(path)]
    videos, frames = len(set(filmed)), sum(bool(time) and is_video(path) for path, time, _ in sources)
    return files(len(paths) - len(filmed) + videos, videos) + (f" ({plural(frames, 'frame')})" if frames else "")


def _exit_code(outcomes: list[EnrollOutcome]) -> int:
    """Return 0 when every photo is in the gallery, 7 when some are, and when none is, why the first is not."""
    from facepipe.errors import ExitCode
    from facepipe.gallery.enrolment.intake import GOOD, EnrollStatus

    good = sum(outcome.status in GOOD for outcome in outcomes)
    if good == len(outcomes):
        return ExitCode.OK
    if good:
        return ExitCode.PARTIAL
    unread = {EnrollStatus.UNREADABLE, EnrollStatus.NO_NAME}
    return ExitCode.INPUT if all(outcome.status in unread for outcome in outcomes) else ExitCode.NO_FACE
