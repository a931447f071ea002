"""Reports as tables for people, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from facepipe.evaluate.identify_report import IdentificationReport
from facepipe.evaluate.verify import VerificationReport
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _span(pair: tuple[float, float] | None, digits: int = 2) -> str:
    return "" if pair is None else f"{100 * pair[0]:.{digits}f} to {100 * pair[1]:.{digits}f} %"


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _name(name: str) -> Text:
    """Return a name that somebody chose as it is, not as markup."""
    from rich.text import Text

    return Text(printable(name))


def _group(name: str, warning: str | None) -> Text:
    from rich.text import Text

    return Text.assemble(("! ", "red") if warning else "", _name(name))


def verification_tables(report: VerificationReport) -> Iterator[Table | str]:
    """Yield what a verification report comes to: tables, and sentences between them."""
    found = report.intervals
    table = _table(
        f"Verification, {plural(len(report.pairs), 'pair')}", "figure", "value", "95 % over people", "threshold"
    )
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
        table.add_row(f"TAR at FAR {key}", f"needs {plural(missing, 'impostor pair')} more", "", "")
    yield table
    yield (
        f"{report.genuine:,} genuine and {report.impostor:,} impostor pairs of {plural(len(report.photos), 'photo')}; "
        f"{plural(report.failed_photos, 'photo')} failed to enrol, in {plural(report.failed_pairs, 'pair')}"
    )
    if report.groups:
        rows = _table("By group, at the whole's threshold", "group", "pairs", "accuracy", "EER", "TAR", "FAR", "95 %")
        for row in report.groups:
            rows.add_row(
                _group(row.group, row.warning), str(row.pairs), _percent(row.accuracy), _percent(row.eer), _percent(row.tar),
                _percent(row.far), _span(row.far_interval),
            )  # fmt: skip
        yield rows


def identification_tables(report: IdentificationReport) -> Iterator[Table | str]:
    """Yield what an open-set report comes to: tables, and sentences between them."""
    found = report.intervals
    title = f"Open-set identification: {report.enrolled} of {report.people} people enrolled, {plural(report.strangers, 'stranger')}"
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
        table.add_row(f"FNIR at FPIR {100 * float(key):g} %", f"needs {plural(missing, 'stranger')} more", "", "")
    yield table
    yield (
        f"{report.mated:,} mated and {report.non_mated:,} non-mated searches in {plural(report.repeats, 'repetition')}; "
        f"{plural(report.failed_to_enrol, 'photo')} failed to enrol, "
        f"{plural(report.people_not_enrolled, 'person', 'people')} could not be enrolled"
    )
    if not report.fnir_at_fpir:
        yield "Too few strangers for a rate of false names: no tables by source, fusion, gallery size and group."
        return
    table = _table("False positives by source", "source", "people", "searches", "FPIR", "95 % over people")
    for row in (*report.sources, *((report.relatives,) if report.relatives else ())):
        table.add_row(_name(row.name), str(row.people), str(row.searches), _percent(row.fpir), _span(row.interval))
    yield table
    table = _table(
        "Fusion of a person's faces, and margin", "fusion", "margin", "threshold", "FNIR", "rank-1", "ambiguous"
    )
    for one in report.fusions:
        table.add_row(
            one.fusion, f"{one.margin:.2f}", f"{one.threshold:.4f}", _percent(one.fnir), _percent(one.rank1),
            _percent(one.ambiguous),
        )  # fmt: skip
    yield table
    table = _table(
        "By gallery size", "people", "threshold", "FNIR", "rank-1", "FPIR at last threshold", "if independent"
    )
    for size in report.sizes:
        table.add_row(
            str(size.gallery_size), f"{size.threshold:.4f}", _percent(size.fnir), _percent(size.rank1),
            _percent(size.fpir_at_full_threshold), _percent(size.independent_fpir),
        )  # fmt: skip
    yield table
    if report.groups:
        table = _table("By group", "group", "mated", "FNIR", "non-mated", "FPIR", "95 %")
        for group in report.groups:
            table.add_row(
                _group(group.group, group.warning), str(group.mated), _percent(group.fnir), str(group.non_mated),
                _percent(group.fpir), _span(group.fpir_interval),
            )  # fmt: skip
        yield table
