"""`facepipe evaluate verify|identify`: error rates on your own photos, and how sure they are."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from facepipe.cli.common import (
    FiniteRange,
    PlacePath,
    device_option,
    echo,
    err_console,
    json_option,
    note,
    out_console,
    quiet_option,
)

if TYPE_CHECKING:
    from rich.table import Table

    from facepipe.evaluate.identify_report import IdentificationReport
    from facepipe.evaluate.photo_set import PhotoSet
    from facepipe.evaluate.verify import VerificationReport

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = PlacePath(dir_okay=False)
_FOLDER = PlacePath(file_okay=False)


@click.group()
def evaluate() -> None:
    """Measure error rates on labelled photos: verify (1:1) and identify (1:N, open set)."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """The options of both protocols."""

    model: str
    min_face: int
    device: str
    cache: Path | None
    sheet: Path | None
    replicates: int
    seed: int
    as_json: bool
    quiet: bool

    def embed(self, paths: Sequence[Path], rule: str) -> PhotoSet:
        """Embed photos; rule: which face of a photo is meant."""
        return embed(paths, self.model, rule, self.device, self.min_face, self.cache, self.quiet)


def measuring_options(command: _F) -> Callable[..., Any]:
    """Model, detection, cache, output of both protocols, given to the command as `measuring`."""

    @functools.wraps(command)
    def called(**values: Any) -> Any:
        own = {name: values.pop(name) for name in Measuring.__dataclass_fields__}
        return command(measuring=Measuring(**own), **values)

    for option in reversed(
        (
            click.option("--model", default="mini", show_default=True, envvar="FACEPIPE_MODEL", metavar="NAME",
                         help="Embedder to measure."),
            click.option("--min-face", type=click.IntRange(min=12), default=40, show_default=True,
                         envvar="FACEPIPE_MIN_FACE", help="Smallest face in pixels."),
            device_option,
            click.option("--cache", type=_FILE, help="Keep the embeddings in this .npz, for the next run."),
            click.option("--sheet", type=_FILE, help="Draw one sheet of curves and worst cases (.png, .svg, .pdf)."),
            click.option("--replicates", type=click.IntRange(min=100), default=1000, show_default=True,
                         help="Bootstrap draws of people behind the intervals."),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random draws."),
            json_option,
            quiet_option,
        )
    ):  # fmt: skip
        called = option(called)
    return called


@evaluate.command()
@click.option("--pairs", "pairs_file", type=_FILE, required=True, help="LFW's pairs.txt, or a CSV: a,b,same[,group].")
@click.option("--images", type=_FOLDER, required=True, help="Folder that the names in the pairs are relative to.")
@click.option("--face", type=click.Choice(["centre", "largest"]), default="centre", show_default=True,
              help="Which face of a photo is meant.")  # fmt: skip
@measuring_options
def verify(pairs_file: Path, images: Path, face: str, measuring: Measuring) -> None:
    """Verification: are two photos of one person? Accuracy, AUC, EER, TAR at FAR, with 95 % intervals over people.

    A photo in which no face is found counts against the model: its genuine pairs are misses at every threshold, and any of
    its pairs is a wrong decision in the accuracy. Its impostor pairs are left out of FAR.
    """
    from facepipe.evaluate.measure import measure_pairs
    from facepipe.evaluate.tables import verification_tables

    _check_outputs(measuring, (pairs_file,))
    report = measure_pairs(
        pairs_file, images, lambda paths: measuring.embed(paths, face), measuring.replicates, measuring.seed
    )
    if measuring.sheet:
        from facepipe.evaluate.sheet import verification_sheet

        verification_sheet(report, measuring.sheet, f"{measuring.model} on {pairs_file}")
    _answer(report, verification_tables(report.figures), measuring)


@evaluate.command()
@click.option("--people", type=_FOLDER, required=True, help="Folder with a folder of photos for each person.")
@click.option(
    "--enroll", "enroll_pattern", metavar="PATTERN", help="File names to enrol, such as 'enroll-*'; default: random."
)
@click.option(
    "--probe", "probe_pattern", metavar="PATTERN", help="File names to search with; default: all that are not enrolled."
)
@click.option("--enroll-count", type=click.IntRange(min=1), default=3, show_default=True,
              help="Photos enrolled for each person, without --enroll.")  # fmt: skip
@click.option("--known", type=FiniteRange(0.0, 1.0, min_open=True), default=1.0, show_default=True,
              help="Share of the people that is enrolled; the others search as strangers.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=None,
              help="Draw who is enrolled (and which photos) this often. [default: 10 when anything is random, else 1]")  # fmt: skip
@click.option("--strangers", type=_FOLDER, multiple=True, help="Folder of people who are not enrolled; repeatable.")
@click.option(
    "--relatives", type=_FOLDER, help="FAMILY/MEMBER/photos: how often are relatives of an enrolled person named?"
)
@click.option("--groups", "groups_file", type=_FILE, help="CSV path,group or person,group: break the errors down.")
@click.option("--fpir", type=FiniteRange(0.0, 1.0, min_open=True), default=0.01, show_default=True,
              help="FPIR of the tables by source, group, fusion and gallery size.")  # fmt: skip
@measuring_options
def identify(
    people: Path,
    enroll_pattern: str | None,
    probe_pattern: str | None,
    enroll_count: int,
    known: float,
    repeats: int | None,
    strangers: tuple[Path, ...],
    relatives: Path | None,
    groups_file: Path | None,
    fpir: float,
    measuring: Measuring,
) -> None:
    """Open-set identification in NIST FRTE's terms: FNIR at FPIR, rank-1, CMC, fusions, gallery sizes.

    A search by an enrolled person misses (FNIR) when another name comes first, the score is below the threshold, no face
    is found, or the person could not be enrolled. A stranger's photo without a face is left out of FPIR.
    """
    from facepipe.evaluate.measure import LabelledFolders, measure_people
    from facepipe.evaluate.splits import SplitRule
    from facepipe.evaluate.tables import identification_tables

    _check_outputs(measuring, () if groups_file is None else (groups_file,))
    if repeats is None:
        repeats = 1 if known == 1.0 and enroll_pattern is not None else 10
    report = measure_people(
        LabelledFolders(people, strangers, relatives, groups_file),
        SplitRule(enroll_pattern, probe_pattern, enroll_count, known, repeats, measuring.seed),
        lambda paths: measuring.embed(paths, "largest"),
        fpir,
        measuring.replicates,
    )
    if measuring.sheet:
        from facepipe.evaluate.sheet import identification_sheet

        identification_sheet(report, measuring.sheet, f"{measuring.model} on {people}")
    _answer(report, identification_tables(report.figures), measuring)


def _answer(
    report: VerificationReport | IdentificationReport,
    tables: Iterable[Table | str],
    measuring: Measuring,
) -> None:
    """Print a report, its warnings, and where its sheet is."""
    if measuring.as_json:
        echo(json.dumps(report.as_dict(), indent=2))
    else:
        console = out_console()
        if not console.is_terminal:  # into a pipe: lines are never folded to a width that nobody chose
            console.width = 10_000
        for table in tables:
            console.print(table, markup=False)
    if measuring.quiet:
        return
    for warning in report.warnings():
        note(f"facepipe: warning: {warning}")
    if measuring.sheet:
        note(f"facepipe: sheet written to {measuring.sheet}")


def embed(
    paths: Sequence[Path], model: str, face: str, device: str, min_face: float, cache: Path | None, quiet: bool
) -> PhotoSet:
    """Embed photos with a progress bar on a terminal; say how many failed."""
    from facepipe.single import embed_photos

    with _progress(len(set(paths)), quiet) as advance:
        photos = embed_photos(
            paths, model=model, face=face, device=device, min_face=min_face, cache=cache, progress=advance
        )
    if photos.failures and not quiet:
        first, reason = next(iter(photos.failures.items()))
        note(
            f"facepipe: {len(photos.failures)} of {len(set(paths))} photos failed to enrol, the first: {first}: {reason}"
        )
    return photos


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    console = err_console()
    if quiet or not console.is_terminal:
        yield lambda count: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("photos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("photos", total=total)
        yield lambda count: bar.advance(task, count)


def _check_outputs(measuring: Measuring, inputs: Sequence[Path]) -> None:
    from facepipe.files.guard import check_outputs

    sheet = measuring.sheet
    check_outputs((sheet, measuring.cache), inputs)
    if sheet:
        from facepipe.evaluate.sheet import check_sheet

        check_sheet(sheet)
