"""Reports as tables for people, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from facepipe.evaluate.identify_report import IdentificationFigures
from facepipe.evaluate.verify import VerificationFigures
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _span(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{100 * pair[0]:.2f} to {100 * pair[1]:.2f} %"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _name(name: str, warning: str | None = None) -> Text:
    """Return a name that somebody chose as it is, not as markup; marked where there is a warning."""
    from rich.text import Text

    return Text.assemble(("! ", "red") if warning else "", Text(printable(name)))


def verification_tables(found: VerificationFigures) -> Iterator[Table | str]:
    """Yield what a verification report comes to: tables, and sentences between them."""
    spans, folds = found.intervals_95, len(found.accuracy_by_fold)
    name = f"accuracy ({folds} folds)" if folds > 1 else "accuracy (threshold chosen on the same pairs)"
    rows = [
        (name, f"{_percent(found.accuracy)} ± {100 * found.accuracy_sd:.2f}", _span(spans.get("accuracy")), ""),
        ("AUC", f"{found.auc:.5f}", "{:.5f} to {:.5f}".format(*spans["auc"]), ""),
        ("EER", _percent(found.eer), _span(spans["eer"]), f"{found.eer_threshold:.4f}"),
    ]
    for key, tar in found.tar_at_far.items():
        threshold = f"{found.threshold_at_far[key]:.4f}"
        rows.append((f"TAR at FAR {key}", _percent(tar), _span(spans[f"tar_at_far_{key}"]), threshold))
    for key, missing in found.more_impostor_pairs_needed.items():
        rows.append((f"TAR at FAR {key}", f"needs {plural(missing, 'impostor pair')} more", "", ""))
    title = f"Verification, {plural(found.pairs, 'pair')}"
    yield _table(title, ("figure", "value", "95 % over people", "threshold"), rows)
    yield (
        f"{found.genuine:,} genuine and {found.impostor:,} impostor pairs of {plural(found.photos, 'photo')}; "
        f"{plural(found.failed_to_enrol, 'photo')} failed to enrol, in {plural(found.failed_pairs, 'pair')}"
    )
    if found.groups:
        columns = ("group", "pairs", "accuracy", "EER", "TAR", "FAR", "95 %")
        groups = (
            (_name(row.group, row.warning), str(row.pairs), _percent(row.accuracy), _percent(row.eer), _percent(row.tar),
             _percent(row.far), _span(row.far_interval_95))
            for row in found.groups
        )  # fmt: skip
        yield _table("By group, at the overall threshold", columns, groups)


def identification_tables(found: IdentificationFigures) -> Iterator[Table | str]:
    """Yield what an open-set report comes to: tables, and sentences between them."""
    spans = found.intervals_95
    rows = [("rank-1", _percent(found.rank1), _span(spans["rank1"]), "")]
    rows += [(f"CMC rank-{k}", _percent(found.cmc[k - 1]), "", "") for k in (5, 10) if len(found.cmc) >= k]
    for key, fnir in found.fnir_at_fpir.items():
        name, threshold = f"FNIR at FPIR {100 * float(key):g} %", f"{found.threshold_at_fpir[key]:.4f}"
        rows.append((name, _percent(fnir), _span(spans[f"fnir_at_fpir_{key}"]), threshold))
    for key, missing in found.more_strangers_needed.items():
        rows.append((f"FNIR at FPIR {100 * float(key):g} %", f"needs {plural(missing, 'stranger')} more", "", ""))
    people = f"{found.enrolled} of {found.people} people enrolled, {plural(found.strangers, 'stranger')}"
    title = f"Open-set identification: {people}"
    yield _table(title, ("figure", "value", "95 % over people", "threshold"), rows)
    yield (
        f"{found.mated_searches:,} mated and {found.non_mated_searches:,} non-mated searches "
        f"in {plural(found.repeats, 'repetition')}; {plural(found.failed_to_enrol, 'photo')} failed to enrol, "
        f"{plural(found.people_not_enrolled, 'person', 'people')} could not be enrolled"
    )
    if not found.fnir_at_fpir:
        yield "Too few strangers for a rate of false names: no tables by source, fusion, gallery size and group."
        return
    yield _table(
        "False positives by source",
        ("source", "people", "searches", "FPIR", "95 % over people"),
        (
            (_name(row.source), str(row.people), str(row.searches), _percent(row.fpir), _span(row.fpir_interval_95))
            for row in (*found.by_source, *((found.relatives,) if found.relatives else ()))
        ),
    )
    yield _table(
        "Fusion of a person's faces, and margin",
        ("fusion", "margin", "threshold", "FNIR", "rank-1", "ambiguous"),
        (
            (row.fusion, f"{row.margin:.2f}", f"{row.threshold:.4f}", *map(_percent, (row.fnir, row.rank1, row.ambiguous)))
            for row in found.fusions
        ),
    )  # fmt: skip
    yield _table(
        "By gallery size",
        ("people", "threshold", "FNIR", "rank-1", "FPIR at last threshold", "if independent"),
        (
            (str(row.gallery_size), f"{row.threshold:.4f}",
             *map(_percent, (row.fnir, row.rank1, row.fpir_at_full_threshold, row.independent_fpir)))
            for row in found.gallery_sizes
        ),
    )  # fmt: skip
    if found.groups:
        groups = (
            (_name(row.group, row.warning), str(row.mated_searches), _percent(row.fnir), str(row.non_mated_searches),
             _percent(row.fpir), _span(row.fpir_interval_95))
            for row in found.groups
        )  # fmt: skip
        yield _table("By group", ("group", "mated", "FNIR", "non-mated", "FPIR", "95 %"), groups)
