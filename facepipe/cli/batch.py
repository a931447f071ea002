"""`facepipe batch`: who is in these folders? Streams, resumes, and goes on past what is broken."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from facepipe.cli.batch_progress import progress, summary
from facepipe.cli.common import PlacePath, echo, note, quiet_option, without_sidecars
from facepipe.cli.options import (
    FOLDER,
    Deciding,
    Looking,
    csv_raw_option,
    exclude_option,
    list_options,
    listed,
    on_ray,
    picture_options,
    ray_option,
    recognition_options,
    shard_option,
    video_options,
)
from facepipe.text import plural

if TYPE_CHECKING:
    from facepipe.batch import Recognizer
    from facepipe.catalog.counts import Counts
    from facepipe.types import Sampling

#: A batch of few photos uses the engines for many as well: results do not change in their last digit as a folder grows.
_MANY = 1_000_000
#: Photos that are looked for in another catalog.
_LOOKED_FOR = 20


@click.command()
@click.argument("photos", nargs=-1, callback=without_sidecars, metavar="FOLDER|PHOTO|ARCHIVE|PATTERN...")
@click.option(
    "--out",
    required=True,
    type=PlacePath(dir_okay=False),
    envvar="FACEPIPE_OUT",
    help="Results: .jsonl, .csv or .parquet. Its catalog, NAME.catalog, lies beside it unless --catalog names another.",
)
@click.option(
    "--catalog",
    type=PlacePath(dir_okay=False),
    envvar="FACEPIPE_CATALOG",
    help="Catalog of a scan or batch to go on from, and to keep what is found in.",
)
@list_options
@exclude_option
@shard_option
@ray_option
@csv_raw_option
@picture_options(FOLDER, "Write copies with frames and names into this folder, of videos the best frame of each face.")
@click.option("--sort-into", type=FOLDER, help="Sort the photos into folders by who is in them.")
@click.option(
    "--sort-how",
    type=click.Choice(["link", "hardlink", "copy"]),
    default="link",
    show_default=True,
    help="What --sort-into makes: links or copies.",
)
@click.option(
    "--report",
    type=PlacePath(dir_okay=False),
    help="Write one HTML page: people with their faces, unknown ones, doubtful first, failures.",
)
@click.option(
    "--regions",
    type=click.Choice(["sidecar"]),
    default=None,
    help="Write who is where into photo.jpg.xmp beside each photo, for digiKam, Lightroom and others; what is there stays.",
)
@click.option(
    "--keep-embeddings/--no-keep-embeddings",
    default=None,
    help="Keep the faces' vectors in the catalog, so that a changed gallery or threshold needs no new scan of the photos; "
    "--no deletes those that are kept. Default: keep, unless the gallery is sealed.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    envvar="FACEPIPE_WORKERS",
    help="Threads that scan photos, or workers of --ray; default: one for each core.",
)
@click.option("--fail-on-empty", is_flag=True, help="Fail when there are no photos at all; otherwise it is only said.")
@click.option("--watch", is_flag=True, help="Continue as new photos arrive, until Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds between passes of --watch."
)
@recognition_options
@video_options
@quiet_option
def batch(
    photos: tuple[str, ...],
    out: Path,
    catalog: Path | None,
    files_from: IO[bytes] | None,
    separated_by_null: bool,
    exclude: tuple[str, ...],
    shard: str,
    ray: str | None,
    csv_raw: bool,
    annotate: Path | None,
    crops: Path | None,
    sort_into: Path | None,
    sort_how: Literal["link", "hardlink", "copy"],
    report: Path | None,
    regions: str | None,
    keep_embeddings: bool | None,
    workers: int | None,
    fail_on_empty: bool,
    watch: bool,
    every: float,
    sampling: Sampling,
    looking: Looking,
    deciding: Deciding,
    quiet: bool,
) -> int:
    """Name the people in many photos and videos.

    Folders are searched recursively, archives (zip, tar) are read without unpacking. Stopped at any moment, the same command
    continues where it was. Exit code 7 when some photos failed; they are in the results, and in NAME.failures.csv, with the reason.
    """
    from facepipe import batch as library
    from facepipe.catalog.remote import is_url
    from facepipe.catalog.shards import Shard
    from facepipe.cli import allocator, process
    from facepipe.errors import ExitCode, UsageError
    from facepipe.files.guard import require_outside
    from facepipe.outputs.results import check_suffix

    check_suffix(out)
    part = Shard.parse(shard)
    if not math.isfinite(every):
        raise UsageError("--every: expected a finite number of seconds")
    require_outside(deciding.gallery, out, annotate, crops, sort_into, report)
    roots = [*photos, *listed(files_from, separated_by_null)]
    if not roots:
        if files_from is None or fail_on_empty:
            raise UsageError("batch: no photos given; name a folder, or use --files-from")
        note("facepipe: no photos in the list")
        return ExitCode.OK
    if (watch or regions is not None) and any(map(is_url, roots)):
        raise UsageError(
            f"--{'watch' if watch else 'regions'}: is for files, not for photos in object stores; leave it out"
        )
    allocator.share_arenas()
    options = library.BatchOptions(
        workers=workers or process.cores(),
        shard=part,
        exclude=exclude,
        fail_on_empty=fail_on_empty,
        every=every if watch else None,
        give_back=allocator.give_back,
        tell=lambda line: note(f"facepipe: {line}"),
        progress=partial(progress, quiet=quiet),
    )
    sidecars = regions is not None
    outputs = library.Outputs(out, annotate, crops, sort_into, sort_how, report, csv_raw, sidecars, catalog)
    opener = _Opener(
        looking if ray is None else replace(looking, device="auto"),
        deciding,
        sampling,
        keep_embeddings,
        outputs.catalog_file(),
    )
    if not outputs.catalog_file().exists():
        _tell_of_catalog(roots, exclude)
    failed = 0
    try:
        with (
            on_ray(ray, looking.device, workers) as stream,
            closing(library.run(roots, outputs, opener, replace(options, stream=stream))) as passes,
        ):
            for counts in passes:
                failed = counts.failed + counts.unwritten + counts.cut_short
                _report(counts, out, quiet)
                if opener.nobody:
                    note(f"facepipe: {_next_step(deciding.gallery, outputs.catalog_file())}")
    except KeyboardInterrupt:
        note(f"facepipe: stopped; what was done is in {outputs.catalog_file()}: run the same command again to continue")
        raise
    return ExitCode.PARTIAL if failed else ExitCode.OK


class _Opener:
    """Opens the gallery and loads the networks, again when the gallery changed; see `facepipe.batch.Opener`.

    nobody: there is no gallery yet, and every face is unknown. One that was named is missed, and so is one that named people before.
    """

    def __init__(
        self, looking: Looking, deciding: Deciding, sampling: Sampling, keep: bool | None, catalog: Path
    ) -> None:
        self._looking, self._deciding, self._sampling = looking, deciding, sampling
        self._keep, self._catalog = keep, catalog
        self._generation = -1
        self.nobody = False

    def __call__(self, before: tuple[Recognizer, bool] | None, late: bool) -> tuple[Recognizer, bool]:
        from facepipe.cli.options import load_recognizer, load_without_gallery
        from facepipe.errors import GalleryMissingError
        from facepipe.gallery.storage.codec import Secret
        from facepipe.gallery.store import GalleryStore
        from facepipe.groups.said import call_people_as

        try:
            with GalleryStore.open(self._deciding.gallery, Secret.from_environment()) as gallery:
                generation, sealed = gallery.generation(), gallery.database.codec.sealed
                call_people_as(self._catalog, gallery)
        except GalleryMissingError:
            if self._must_be_there():
                raise
            if before is None or not self.nobody:
                nobody = load_without_gallery(self._looking, self._deciding, self._sampling, late=late)
                before = nobody, self._keep is not False
            self.nobody = True
            return before
        self.nobody = False
        keep = not sealed if self._keep is None else self._keep
        if before is not None and (generation, keep) == (self._generation, before[1]):
            return before
        self._generation = generation
        recognizer = load_recognizer(self._looking, self._deciding, self._sampling, _MANY, late=late)
        return recognizer, keep

    def _must_be_there(self) -> bool:
        """Say whether the missing gallery was named on the command line, or is that of an earlier run."""
        from facepipe.catalog.catalog import Catalog

        source = click.get_current_context().get_parameter_source("gallery")
        if source is click.core.ParameterSource.COMMANDLINE:
            return True
        path = self._catalog
        if self.nobody or not path.is_file() or not path.stat().st_size:
            return False
        with Catalog(path) as catalog:
            return bool(catalog.gallery)


def _tell_of_catalog(roots: Sequence[str], exclude: tuple[str, ...]) -> None:
    """Say so when the only catalog here has these photos: without it they are scanned again."""
    from facepipe.catalog.catalog import Catalog
    from facepipe.catalog.sources import find_sources
    from facepipe.cli.catalogs import catalogs_here
    from facepipe.errors import InputError
    from facepipe.images import Passing

    here = catalogs_here()
    if len(here) != 1:
        return
    sources = islice(find_sources(roots, (), Passing(exclude)), _LOOKED_FOR)
    with suppress(InputError), Catalog(here[0]) as catalog:  # one that cannot be read is not in the way
        if any(catalog.earlier_has(source.name) for source in sources):
            name = shlex.quote(str(here[0]))
            note(f"facepipe: {name} has these photos already: --catalog {name} goes on from it")


def _next_step(gallery: Path, catalog: Path) -> str:
    name = shlex.quote(str(catalog))
    return (
        f"nobody is enrolled yet (no gallery in {gallery}), so all faces are unknown; facepipe cluster {name} groups them by "
        "person, facepipe enroll puts people into the gallery; then run the same command again"
    )


def _report(counts: Counts, out: Path, quiet: bool) -> None:
    from facepipe.outputs.results import failures_path

    if counts.failed:
        note(f"facepipe: {counts.files(counts.failed)} failed; {failures_path(out)} lists them with the reason")
    if counts.cut_short:
        note(
            f"facepipe: {plural(counts.cut_short, 'video')} could not be read whole; {failures_path(out)} says from where on"
        )
    if counts.left:
        are = "is" if counts.left == 1 else "are"
        note(
            f"facepipe: {counts.files(counts.left)} of an earlier run {are} not among these any more: no longer in {out}"
        )
    if not quiet:
        echo(summary(counts, out))
