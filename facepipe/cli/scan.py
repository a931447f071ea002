"""`facepipe scan`: find and describe the faces of a pile of photos, for `cluster`, `review`, `find` and later batches."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from facepipe.cli.batch_progress import progress
from facepipe.cli.common import PlacePath, echo, model_option, note, quiet_option, without_sidecars
from facepipe.cli.options import (
    Looking,
    detect_options,
    exclude_option,
    list_options,
    listed,
    on_ray,
    ray_option,
    shard_option,
    video_options,
)
from facepipe.text import duration, files, plural, printable

if TYPE_CHECKING:
    from facepipe.types import Sampling


@click.command()
@click.argument("photos", nargs=-1, callback=without_sidecars, metavar="FOLDER|PHOTO|ARCHIVE|PATTERN...")
@click.option(
    "--catalog",
    required=True,
    type=PlacePath(dir_okay=False),
    envvar="FACEPIPE_CATALOG",
    help="What is found is kept here; results.jsonl.catalog is what batch --out results.jsonl goes on from.",
)
@list_options
@exclude_option
@shard_option
@ray_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    envvar="FACEPIPE_WORKERS",
    help="Threads that scan photos, or workers of --ray; default: one for each core.",
)
@model_option
@detect_options
@video_options
@quiet_option
def scan(
    photos: tuple[str, ...],
    catalog: Path,
    files_from: IO[bytes] | None,
    separated_by_null: bool,
    exclude: tuple[str, ...],
    shard: str,
    ray: str | None,
    workers: int | None,
    model: str | None,
    sampling: Sampling,
    looking: Looking,
    quiet: bool,
) -> int:
    """Find the faces in many photos and videos, and keep them in a catalog. Needs no gallery.

    Stopped at any moment, the same command continues where it was. Exit code 7 when some photos failed.
    """
    from facepipe.batch import named, thumbnails_of
    from facepipe.catalog.catalog import Catalog
    from facepipe.catalog.scan import ScanOptions
    from facepipe.catalog.shards import Shard
    from facepipe.catalog.sources import count_sources, find_sources, no_such_root, none_exists
    from facepipe.cli import allocator, process
    from facepipe.errors import ExitCode, InputError, UsageError
    from facepipe.images import Passing
    from facepipe.loading import detect_options as detection
    from facepipe.loading import load_describer
    from facepipe.models.registry import DEFAULT_EMBEDDER

    part = Shard.parse(shard)
    roots = [*photos, *listed(files_from, separated_by_null)]
    if not roots:
        raise UsageError("scan: no photos given; name a folder, or use --files-from")
    if none_exists(roots):
        raise InputError(
            f"{named(roots)}: no such file or folder; check the path" if len(roots) > 1 else no_such_root(roots[0])
        )
    allocator.share_arenas()
    facts = asdict(looking)
    facts["device"] = looking.device if ray is None else "auto"  # the cluster has the device
    describer = load_describer(
        model or DEFAULT_EMBEDDER, facts.pop("device"), detection(**facts), late=ray is not None or catalog.exists()
    )
    describer.sampling = sampling
    passing = Passing(exclude)
    try:
        with (
            on_ray(ray, looking.device, workers) as stream,
            Catalog(catalog, write=True) as opened,
            progress(part.count(count_sources(roots, (), Passing(exclude))), quiet=quiet) as show,
        ):
            options = ScanOptions(workers or process.cores(), allocator.give_back, thumbnails_of, part, stream)
            counts = opened.scan(find_sources(roots, (), passing), describer, options, show=show)
            failures = list(opened.failures())
            damaged = list(opened.damages())
            faces = opened.count_faces()
    except KeyboardInterrupt:
        note(f"facepipe: stopped; what was done is in {catalog}: run the same command again to continue")
        raise
    for _, reason in (*failures, *damaged):
        note(f"facepipe: {reason}")
    if counts.left:
        are = "is" if counts.left == 1 else "are"
        note(
            f"facepipe: {counts.files(counts.left)} of an earlier scan {are} not among these any more: cluster and find leave "
            "them out; to have all, name all folders in one scan"
        )
    if not quiet:
        scanned = f"{counts.files(counts.fresh)} scanned in {duration(counts.at('scan', counts.found).seconds)}"
        echo(f"{files(counts.found, counts.videos)}, {scanned}, {len(failures):,} failed")
        echo(f"{plural(faces, 'face')}")
        if passed := passing.told():
            echo(f"passed over: {passed}")
        echo(f"catalog: {printable(catalog)}; facepipe cluster {printable(catalog)} groups the faces by person")
    return ExitCode.PARTIAL if failures or damaged else ExitCode.OK
