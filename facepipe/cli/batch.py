"""`facepipe batch`: who is in these folders? Streams, resumes, and goes on past what is broken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from facepipe.cli.batch_progress import progress, summary
from facepipe.cli.common import echo, note, quiet_option
from facepipe.cli.options import FOLDER, Deciding, Looking, list_options, listed, picture_options, recognition_options
from facepipe.text import plural

if TYPE_CHECKING:
    from facepipe.catalog.job import Counts
    from facepipe.catalog.ledger import Ledger
    from facepipe.catalog.pictures import SideOutput
    from facepipe.catalog.stream import StreamOptions
    from facepipe.pipeline import Recognizer

#: A batch of few photos uses the engines for many as well: results do not change in their last digit as a folder grows.
_MANY = 1_000_000
#: When nothing that was asked for is there, so many are named.
_NAMED = 20


@click.command()
@click.argument("photos", nargs=-1, metavar="FOLDER|PHOTO|ARCHIVE|PATTERN...")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="FACEPIPE_OUT",
    help="Results: .jsonl, .csv or .parquet. Its ledger, NAME.ledger, lies beside it.",
)
@list_options
@picture_options
@click.option("--sort-into", type=FOLDER, help="Sort the photos into folders by who is in them.")
@click.option(
    "--sort-how",
    type=click.Choice(["link", "hardlink", "copy"]),
    default="link",
    show_default=True,
    help="What --sort-into puts there.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one HTML page: people with their faces, unknown ones, doubtful first, failures.",
)
@click.option(
    "--keep-embeddings/--no-keep-embeddings",
    default=None,
    help="Keep the faces' vectors in the ledger, so that a changed gallery or threshold needs no second look at the photos; "
    "--no deletes those that are kept. Default: keep, unless the gallery is sealed.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    envvar="FACEPIPE_WORKERS",
    help="Threads that look at photos; default: one for each core.",
)
@click.option("--watch", is_flag=True, help="Go on as new photos arrive, until Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds between looks of --watch."
)
@recognition_options
@quiet_option
def batch(
    photos: tuple[str, ...],
    out: Path,
    files_from: IO[bytes] | None,
    separated_by_null: bool,
    annotate: Path | None,
    crops: Path | None,
    sort_into: Path | None,
    sort_how: str,
    report: Path | None,
    keep_embeddings: bool | None,
    workers: int | None,
    watch: bool,
    every: float,
    looking: Looking,
    deciding: Deciding,
    quiet: bool,
) -> int:
    """Name the people in many photos.

    Folders are searched recursively, archives (zip, tar) are read without unpacking. Stopped at any moment, the same command
    goes on where it was. Exit code 7 when some photos failed; they are in the results, and in NAME.failures.csv, with the reason.
    """
    from facepipe.errors import UsageError
    from facepipe.files.guard import require_outside
    from facepipe.outputs.results import check_suffix

    check_suffix(out)
    if not math.isfinite(every):
        raise UsageError("--every: expected a finite number of seconds")
    require_outside(deciding.gallery, out, annotate, crops, sort_into, report)
    roots = [*photos, *listed(files_from, separated_by_null)]
    if not roots:
        raise UsageError("batch: no photos given; name a folder, or use --files-from")
    return _run(
        roots,
        out,
        looking,
        deciding,
        _Sides(annotate, crops, sort_into, sort_how, report),
        keep_embeddings,
        workers,
        every if watch else None,
        quiet,
    )


class _Sides:
    """What is asked for besides the results."""

    def __init__(
        self, annotate: Path | None, crops: Path | None, sort_into: Path | None, sort_how: str, report: Path | None
    ) -> None:
        self.annotate, self.crops, self.sort_into, self.sort_how = annotate, crops, sort_into, sort_how
        self.report = report

    def facts(self) -> list[str | int | None]:
        """What of it a result must be made again for; a folder that was deleted and made anew is another one."""
        from facepipe.outputs.owned import mark_stamp

        folders = (self.annotate, self.crops, self.sort_into)
        how = None if self.sort_into is None else self.sort_how
        return [
            *(None if path is None else str(path.resolve()) for path in folders),
            *(mark_stamp(path) for path in self.folders()),
            self.report is not None,
            how,
        ]

    def folders(self) -> list[Path]:
        """The folders that are written."""
        return [path for path in (self.annotate, self.crops, self.sort_into) if path is not None]

    def build(self) -> list[SideOutput]:
        from facepipe.outputs.sides import Annotated, Crops, Sorted

        sides: list[SideOutput] = []
        if self.annotate is not None:
            sides.append(Annotated(self.annotate))
        if self.crops is not None:
            sides.append(Crops(self.crops))
        if self.sort_into is not None:
            sides.append(Sorted(self.sort_into, self.sort_how))  # type: ignore[arg-type]
        return sides


def _run(
    roots: list[str],
    out: Path,
    looking: Looking,
    deciding: Deciding,
    sides: _Sides,
    keep: bool | None,
    workers: int | None,
    every: float | None,
    quiet: bool,
) -> int:
    from facepipe import threads
    from facepipe.catalog.ledger import Ledger, ledger_path
    from facepipe.catalog.sources import count_sources, find_sources, none_exists
    from facepipe.catalog.stream import StreamOptions
    from facepipe.cli.options import load_recognizer
    from facepipe.errors import ExitCode, InputError, UsageError
    from facepipe.outputs.owned import all_gone, check_files, check_folders, mark_folders, named, sweep
    from facepipe.text import printable

    started = time.time()
    check_files(out, sides.report, roots)
    gallery = _state(deciding)
    if none_exists(roots):
        *others, last = [f"{printable(root)}: no such file or folder; check the path" for root in roots[:_NAMED]]
        for text in others:
            note(f"facepipe: {text}")
        more = len(roots) - _NAMED
        raise InputError(last + (f"; {more:,} more are not there either" if more > 0 else ""))
    check_folders(sides.folders(), roots)
    # Without a ledger there is something to look at; then what is missing is said before anything is written.
    recognizer = load_recognizer(looking, deciding, photos=_MANY, late=ledger_path(out).exists())
    options = StreamOptions(workers or threads.cores(), looking.read_side)
    with Ledger(ledger_path(out)) as ledger:

        def begin() -> None:
            mark_folders(sides.folders())
            keeps = not gallery.sealed if keep is None else keep
            look = _look_facts(looking, recognizer) if keeps else None
            facts = _facts(looking, recognizer, deciding, gallery.generation, sides)
            changed = ledger.begin_pass(facts, look)
            if not keeps and (forgotten := ledger.forget_looks()):
                note(f"facepipe: the embeddings of {plural(forgotten, 'photo')} were deleted from {ledger.path}")
            _say_why(changed, ledger)

        def missing() -> str | None:
            return all_gone(ledger, find_sources(roots, sides.folders()), roots, out)

        if (problem := missing()) is not None:
            raise UsageError(problem)
        begin()
        sweep(out, sides.report, sides.folders(), started)
        try:
            with progress(count_sources(roots, sides.folders()), quiet) as show:
                counts = _pass(recognizer, roots, ledger, options, sides, out, show)
            if counts.found or every is not None:
                _report(counts, out, quiet)
            else:
                raise InputError(f"no photos found in {named(roots)}; name a folder with pictures in it")
            while every is not None:
                time.sleep(every)
                told = problem is not None
                if (problem := missing()) is not None:
                    if not told:
                        note(f"facepipe: {problem}; waiting for them")
                    continue
                if (now := _state(deciding)) != gallery:
                    gallery, recognizer = now, load_recognizer(looking, deciding, photos=_MANY, late=True)
                begin()
                counts = _pass(recognizer, roots, ledger, options, sides, out, retry_failed=False)
                if _is_new(counts):
                    _report(counts, out, quiet)
        except KeyboardInterrupt:
            note(f"facepipe: stopped; what was done is in {ledger.path}: run the same command again to go on")
            raise
    return ExitCode.PARTIAL if counts.failed else ExitCode.OK


def _pass(
    recognizer: Recognizer,
    roots: list[str],
    ledger: Ledger,
    options: StreamOptions,
    sides: _Sides,
    out: Path,
    show: Callable[[Counts], None] = lambda counts: None,
    retry_failed: bool = True,
) -> Counts:
    """Go over the input once and bring the output up to date."""
    from facepipe.catalog.job import run_batch
    from facepipe.catalog.sources import find_sources
    from facepipe.outputs.results import write_failures, write_output, write_report

    sources, asked = find_sources(roots, sides.folders()), sides.report is not None
    counts = run_batch(recognizer, sources, ledger, options, sides.build(), show, retry_failed, thumbnails=asked)
    if _is_new(counts) or retry_failed:
        write_output(out, ledger.records())
        write_failures(out, ledger.failures())
        if sides.report is not None:
            looked_at = counts.found - counts.resumed - counts.compared
            write_report(sides.report, ledger.records_with_thumbnails(), counts.seconds, looked_at)
        ledger.finish_pass()
    if ledger.damaged:
        note(
            f"facepipe: {ledger.path}: the faces of {plural(ledger.damaged, 'photo')} are damaged in it; they were found again"
        )
    return counts


def _is_new(counts: Counts) -> bool:
    """Say whether a pass changed the results."""
    return bool(counts.fresh or counts.compared or counts.gone or counts.left)


@dataclass(frozen=True, slots=True)
class _GalleryState:
    """What of the gallery may change while a batch watches. generation: number of its last write. sealed: encrypted."""

    generation: int
    sealed: bool


def _state(deciding: Deciding) -> _GalleryState:
    from facepipe.gallery.codec import Secret
    from facepipe.gallery.store import Gallery

    with Gallery.open(deciding.gallery, Secret.from_environment()) as gallery:
        return _GalleryState(gallery.generation(), gallery.database.codec.sealed)


def _look_facts(looking: Looking, recognizer: Recognizer) -> dict[str, Any]:
    """Return everything that steps 1 and 2 depend on besides the photo; device and engine change rounding only."""
    from facepipe import __version__
    from facepipe.models.registry import get_record

    return {
        "version": __version__,
        "detector": get_record("mtcnn").fingerprint,
        "model": recognizer.matcher.fingerprint,
        "min_face": looking.min_face,
        "min_score": looking.min_score,
        "max_side": looking.max_side,
    }


def _facts(
    looking: Looking, recognizer: Recognizer, deciding: Deciding, generation: int, sides: _Sides
) -> dict[str, Any]:
    """Return everything that a result depends on besides the photo; the device does not change the names."""
    from facepipe import __version__

    return {
        "version": __version__,
        "model": recognizer.matcher.fingerprint,
        "gallery": str(deciding.gallery.resolve()),
        "generation": generation,
        "policy": asdict(recognizer.policy),
        "min_face": looking.min_face,
        "min_score": looking.min_score,
        "max_side": looking.max_side,
        "sides": sides.facts(),
    }


#: What is said of a fact that changed. The first four may change the policy too, which is then not worth a word.
_CHANGES = {
    "version": "facepipe is another version",
    "model": "the model is another one",
    "gallery": "the gallery is another one",
    "generation": "the gallery changed",
    "policy": "--threshold, --margin, --top-k, --repeat or the calibration changed",
    "min_face": "--min-face changed",
    "min_score": "--min-score changed",
    "max_side": "--max-side changed",
    "sides": "--annotate, --crops, --sort-into, --sort-how, --report or one of their folders changed",
}


#: Facts that steps 1 and 2 depend on.
_LOOKS = frozenset({"version", "model", "min_face", "min_score", "max_side"})


def _say_why(changed: tuple[str, ...], ledger: Ledger) -> None:
    """Say why what an earlier run did is done again, and whether that means to look at the photos or only to compare their faces."""
    if not changed or not ledger.earlier():
        return
    told = [name for name in _CHANGES if name in changed]
    if "gallery" in told and "generation" in told:
        told.remove("generation")
    if "policy" in told and told[0] in ("version", "model", "gallery", "generation"):
        told.remove("policy")
    reasons = ", ".join(_CHANGES[name] for name in told)
    known, photos = ledger.known_looks()
    if known:
        whose = "all photos" if known == photos else plural(known, "photo")
        others = "" if known == photos else ", all other photos are looked at again"
        what = f"the faces of {whose} are compared again{others}"
    elif not photos or not _LOOKS.isdisjoint(changed):
        what = "all photos are looked at again"
    else:
        what = "all photos are looked at again, for their embeddings were not kept"
    note(f"facepipe: {reasons} since the earlier run: {what}")


def _report(counts: Counts, out: Path, quiet: bool) -> None:
    from facepipe.outputs.results import failures_path

    if counts.failed:
        note(f"facepipe: {plural(counts.failed, 'photo')} failed; {failures_path(out)} lists them with the reason")
    if counts.left:
        are = "is" if counts.left == 1 else "are"
        note(
            f"facepipe: {plural(counts.left, 'photo')} of an earlier run {are} not among these any more: no longer in {out}"
        )
    if not quiet:
        echo(summary(counts, out))
