"""`facepipe evaluate verify|identify`: error rates on your own photos, and how sure they are."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from facepipe.cli.common import (
    FiniteRange,
    device_option,
    echo,
    err_console,
    json_option,
    note,
    out_console,
    quiet_option,
)

if TYPE_CHECKING:
    from facepipe.evaluation.identify_report import IdentificationReport
    from facepipe.evaluation.photos import PhotoSet
    from facepipe.evaluation.protocols import PeopleSet
    from facepipe.evaluation.verify import VerificationReport
    from facepipe.pipeline import Extractor

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def evaluate() -> None:
    """Measure error rates on labelled photos: verify (1:1) and identify (1:N, open set)."""


def measuring_options(command: _F) -> _F:
    """Options of both protocols: model, detection, cache, output."""
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
        command = option(command)
    return command


@evaluate.command()
@click.option("--pairs", "pairs_file", type=_FILE, required=True, help="LFW's pairs.txt, or a CSV: a,b,same[,group].")
@click.option("--images", type=_FOLDER, required=True, help="Folder that the names in the pairs are relative to.")
@click.option("--face", type=click.Choice(["centre", "largest"]), default="centre", show_default=True,
              help="Which face of a photo is meant.")  # fmt: skip
@measuring_options
def verify(
    pairs_file: Path,
    images: Path,
    face: str,
    model: str,
    min_face: int,
    device: str,
    cache: Path | None,
    sheet: Path | None,
    replicates: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Verification: are two photos of one person? Accuracy, AUC, EER, TAR at FAR, with 95 % intervals over people.

    A photo in which no face is found counts against the model: its genuine pairs are misses at every threshold, and any of
    its pairs is a wrong decision in the accuracy. Its impostor pairs are left out of FAR.
    """
    from facepipe.errors import NoFaceError
    from facepipe.evaluation.protocols import read_pairs
    from facepipe.evaluation.verify import evaluate_pairs

    _check_sheet(sheet)
    pairs = read_pairs(pairs_file, images, seed=seed)
    extractor, options = load_engines(model, device, min_face)
    photos = embed(pairs.photos, extractor, face, cache, options, quiet)
    try:
        report = evaluate_pairs(pairs, photos, replicates, seed)
    except ValueError as error:
        raise NoFaceError(f"{pairs_file}: {error}; are these the right photos?") from error
    if sheet:
        from facepipe.evaluation.sheet import verification_sheet

        verification_sheet(report, sheet, f"{model} on {pairs_file}")
    if as_json:
        echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print_verification(report)
    for row in report.groups:
        if row.warning and not quiet:
            note(f"facepipe: warning: {row.warning}")
    _note_sheet(sheet, quiet)


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
@click.option("--strangers", type=_FOLDER, multiple=True, help="Folder of people who are in no gallery; repeatable.")
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
    model: str,
    min_face: int,
    device: str,
    cache: Path | None,
    sheet: Path | None,
    replicates: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Open-set identification in NIST FRTE's terms: FNIR at FPIR, rank-1, CMC, fusions, gallery sizes.

    A search by an enrolled person misses (FNIR) when another name comes first, the score is below the threshold, no face
    is found, or the person could not be enrolled. A stranger's photo without a face is left out of FPIR.
    """
    from facepipe.evaluation.identify import evaluate_people
    from facepipe.evaluation.people import faces_of
    from facepipe.evaluation.protocols import (
        SplitRule,
        read_families,
        read_groups,
        read_people,
        read_strangers,
        splits,
    )
    from facepipe.evaluation.trials import run_trials

    _check_sheet(sheet)
    if repeats is None:
        repeats = 1 if known == 1.0 and enroll_pattern is not None else 10
    rule = SplitRule(enroll_pattern, probe_pattern, enroll_count, known, repeats, seed)
    known_people = read_people(people)
    trials_of = list(splits(known_people, rule))
    outsiders = [(folder.name, read_strangers(folder)) for folder in strangers]
    families = list(read_families(relatives).values()) if relatives else []
    group_of = read_groups(groups_file) if groups_file else {}
    sets = [known_people, *(s for _, s in outsiders), *families]
    extractor, options = load_engines(model, device, min_face)
    photos = embed(
        [path for one in sets for own in one.photos for path in own], extractor, "largest", cache, options, quiet
    )
    parts = iter(_divide(sets, photos))
    whole = faces_of(known_people, next(parts))
    stranger_faces = [(name, faces_of(one, next(parts))) for name, one in outsiders]
    trials, related = run_trials(
        whole, trials_of, stranger_faces, [faces_of(one, next(parts)) for one in families], seed
    )
    report = evaluate_people(
        trials,
        related,
        len(known_people),
        sum(len(numbers) for numbers in trials_of[0].probes),
        photos.fingerprint,
        trials.group_names(group_of) if group_of else (),
        fpir,
        replicates,
        seed,
    )
    if sheet:
        from facepipe.evaluation.sheet import identification_sheet

        identification_sheet(report, sheet, f"{model} on {people}")
    if as_json:
        echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print_identification(report)
    if not quiet:
        for warning in (
            *(r.warning for r in (*report.sources, report.relatives) if r),
            *(g.warning for g in report.groups),
        ):
            if warning:
                note(f"facepipe: warning: {warning}")
    _note_sheet(sheet, quiet)


def load_engines(model: str, device: str, min_face: int) -> tuple[Extractor, str]:
    """Load detector and embedder; the text names what else changes an embedding, for the cache."""
    from facepipe.pipeline import load_extractor
    from facepipe.stages.detect import DetectOptions

    options = DetectOptions(min_face=min_face)
    return load_extractor(model, device, options), repr(options)


def embed(
    paths: Sequence[Path], extractor: Extractor, rule: str, cache: Path | None, options: str, quiet: bool
) -> PhotoSet:
    """Embed photos with a progress bar on a terminal; say how many failed."""
    from facepipe.evaluation.photos import embed_photos

    with _progress(len(set(paths)), quiet) as advance:
        photos = embed_photos(paths, extractor, rule, cache, advance, options)
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


def _divide(sets: Sequence[PeopleSet], photos: PhotoSet) -> Iterator[PhotoSet]:
    start = 0
    for one in sets:
        count = sum(len(own) for own in one.photos)
        yield photos.take(range(start, start + count))
        start += count


def _check_sheet(sheet: Path | None) -> None:
    if sheet:
        from facepipe.evaluation.sheet import check_sheet

        check_sheet(sheet)


def _note_sheet(sheet: Path | None, quiet: bool) -> None:
    if sheet and not quiet:
        note(f"facepipe: sheet written to {sheet}")


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _span(pair: tuple[float, float] | None, digits: int = 2) -> str:
    return "" if pair is None else f"{100 * pair[0]:.{digits}f} to {100 * pair[1]:.{digits}f} %"


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _print_verification(report: VerificationReport) -> None:
    console = out_console()
    found = report.intervals
    table = _table(f"Verification, {len(report.pairs)} pairs", "figure", "value", "95 % over people", "threshold")
    folds = len(report.fold_accuracy)
    table.add_row(
        f"accuracy ({folds} folds)" if folds > 1 else "accuracy (threshold chosen on the same pairs)",
        f"{_percent(report.accuracy)} ± {100 * report.accuracy_sd:.2f}",
        _span(found.get("accuracy")),
        "",
    )
    table.add_row("AUC", f"{report.auc:.5f}", "{:.5f} to {:.5f}".format(*found["auc"]), "")
    table.add_row("EER", _percent(report.eer), _span(found["eer"]), f"{report.eer_threshold:.4f}")
    for key, value in report.tar_at_far.items():
        table.add_row(
            f"TAR at FAR {key}",
            _percent(value),
            _span(found[f"tar_at_far_{key}"]),
            f"{report.threshold_at_far[key]:.4f}",
        )
    for key, missing in report.needs.items():
        table.add_row(f"TAR at FAR {key}", f"needs {missing:,} impostor pairs more", "", "")
    console.print(table)
    console.print(
        f"{report.genuine} genuine and {report.impostor} impostor pairs of {len(report.photos)} photos; "
        f"{report.failed_photos} photos failed to enrol, in {report.failed_pairs} pairs"
    )
    if report.groups:
        rows = _table("By group, at the whole's threshold", "group", "pairs", "accuracy", "EER", "TAR", "FAR", "95 %")
        for row in report.groups:
            mark = "[red]![/] " if row.warning else ""
            rows.add_row(
                mark + row.group, str(row.pairs), _percent(row.accuracy), _percent(row.eer), _percent(row.tar),
                _percent(row.far), _span(row.far_interval),
            )  # fmt: skip
        console.print(rows)


def _print_identification(report: IdentificationReport) -> None:
    console = out_console()
    found = report.intervals
    title = (
        f"Open-set identification: {report.enrolled} of {report.people} people enrolled, {report.strangers} strangers"
    )
    table = _table(title, "figure", "value", "95 % over people", "threshold")
    table.add_row("rank-1", _percent(report.rank1), _span(found["rank1"]), "")
    for rank in (5, 10):
        if len(report.cmc) >= rank:
            table.add_row(f"CMC rank-{rank}", _percent(float(report.cmc[rank - 1])), "", "")
    for key, value in report.fnir_at_fpir.items():
        table.add_row(
            f"FNIR at FPIR {100 * float(key):g} %", _percent(value), _span(found[f"fnir_at_fpir_{key}"]),
            f"{report.threshold_at_fpir[key]:.4f}",
        )  # fmt: skip
    for key, missing in report.needs.items():
        table.add_row(f"FNIR at FPIR {100 * float(key):g} %", f"needs {missing:,} strangers more", "", "")
    console.print(table)
    console.print(
        f"{report.mated} mated and {report.non_mated} non-mated searches in {report.repeats} repetitions; "
        f"{report.failed_to_enrol} photos failed to enrol, {report.people_not_enrolled} people could not be enrolled"
    )
    table = _table("False positives by source", "source", "people", "searches", "FPIR", "95 % over people")
    for row in (*report.sources, *((report.relatives,) if report.relatives else ())):
        table.add_row(row.name, str(row.people), str(row.searches), _percent(row.fpir), _span(row.interval))
    console.print(table)
    table = _table(
        "Fusion of a person's faces, and margin", "fusion", "margin", "threshold", "FNIR", "rank-1", "ambiguous"
    )
    for one in report.fusions:
        table.add_row(
            one.fusion, f"{one.margin:.2f}", f"{one.threshold:.4f}", _percent(one.fnir), _percent(one.rank1),
            _percent(one.ambiguous),
        )  # fmt: skip
    console.print(table)
    table = _table(
        "By gallery size", "people", "threshold", "FNIR", "rank-1", "FPIR at last threshold", "if independent"
    )
    for size in report.sizes:
        table.add_row(
            str(size.gallery_size), f"{size.threshold:.4f}", _percent(size.fnir), _percent(size.rank1),
            _percent(size.fpir_at_full_threshold), _percent(size.independent_fpir),
        )  # fmt: skip
    console.print(table)
    if report.groups:
        table = _table("By group", "group", "mated", "FNIR", "non-mated", "FPIR", "95 %")
        for group in report.groups:
            mark = "[red]![/] " if group.warning else ""
            table.add_row(
                mark + group.group, str(group.mated), _percent(group.fnir), str(group.non_mated), _percent(group.fpir),
                _span(group.fpir_interval),
            )  # fmt: skip
        console.print(table)
