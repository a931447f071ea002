"""The sheet of an open-set identification report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facepipe.evaluate import metrics
from facepipe.evaluate.identify import GRID
from facepipe.evaluate.identify_report import IdentificationFigures, IdentificationReport
from facepipe.evaluate.sheet.canvas import (
    BEHIND,
    BLUE,
    GREY,
    INK,
    RED,
    TONES,
    histogram,
    mark_rates,
    panels,
    percent_axis,
    rate_curve,
    sheet_figure,
    threshold_lines,
)
from facepipe.evaluate.sheet.cases import draw_cases
from facepipe.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def identification_sheet(report: IdentificationReport, out: Path, title: str) -> None:
    """Draw an identification report into `out` (.png, .svg or .pdf), written whole or not at all."""
    found = report.figures
    with sheet_figure(out, title, _identification_line(found), rows=4) as (figure, grid):
        _search_scores(figure.add_subplot(grid[0, 4:8]), report)
        _cmc(figure.add_subplot(grid[0, 8:12]), found)
        are = "is" if found.strangers == 1 else "are"
        few = f"{plural(found.strangers, 'stranger')} {are} too few for a rate of false names"
        needed = f"{min(found.more_strangers_needed.values(), default=0):,} more are needed for an FPIR of 10 %"
        wanted = (
            (grid[0, 0:4], "DET: misses against false names", partial(_fnir_fpir, report)),
            (grid[1, 0:4], "FNIR by gallery size", partial(_by_size, found)),
            (grid[1, 4:8], "Fusion of a person's faces, and margin", partial(_by_fusion, found)),
            (grid[1, 8:12], "FPIR by source", partial(_by_source, found)),
        )
        panels(figure, wanted, None if found.fnir_at_fpir else (few, needed))
        for row, name, cases, colour in (
            (2, "Strangers with the highest scores: stranger, and whose name it would get", report.false_names, RED),
            (3, "Enrolled people who were hardest to recognise: probe, and who came first", report.missed, BLUE),
        ):
            draw_cases(figure, grid[row, :], name, cases, colour)


def _identification_line(found: IdentificationFigures) -> str:
    rates = [
        f"rank-1 {100 * found.rank1:.1f} %",
        *(f"FNIR {100 * v:.1f} % at FPIR {100 * float(k):g} %" for k, v in found.fnir_at_fpir.items()),
    ]
    return (
        f"{',  '.join(rates)}      {found.enrolled} of {found.people} people enrolled, "
        f"{plural(found.strangers, 'stranger')}, {plural(found.repeats, 'repetition')}, "
        f"{plural(found.failed_to_enrol, 'photo')} failed to enrol; "
        "bands: 95 % over people"
    )


def _fnir_fpir(report: IdentificationReport, axes: Axes) -> None:
    outside, hits = report.searches.strangers(), report.searches.hits()
    lowest = 1.0 / report.figures.strangers
    thresholds = np.unique(outside)[::-1]
    fpir = metrics.accepted_share(outside, thresholds)
    fnir = 1.0 - metrics.accepted_share(hits, thresholds)
    kept = fpir >= lowest / 2
    rate_curve(axes, fpir[kept], fnir[kept], lowest, GRID, report.grid_band)
    mark_rates(axes, report.figures.fnir_at_fpir, (7, 6))
    axes.set(ylim=(0, None), title="DET: misses against false names")
    axes.set(xlabel="FPIR: strangers who get a name", ylabel="FNIR: enrolled people missed")


def _search_scores(axes: Axes, report: IdentificationReport) -> None:
    searches = report.searches
    series = [(searches.top[searches.mated & searches.right], BLUE, "enrolled, right name first")]
    for number, name in enumerate(searches.sources):
        chosen = searches.impostor & (searches.source == number)
        if chosen.any():
            series.append((searches.top[chosen], TONES[(number - 1) % len(TONES)], name))
    if report.relative_searches is not None:
        series.append((report.relative_searches.top, GREY, "relatives of the enrolled"))
    histogram(axes, series)
    threshold_lines(axes, report.figures.threshold_at_fpir, "FPIR", ("0.1", "0.01"))
    axes.set(xlabel="similarity of the best candidate", title="Scores of searches")


def _cmc(axes: Axes, found: IdentificationFigures) -> None:
    ranks = np.arange(1, len(found.cmc) + 1)
    axes.plot(ranks, found.cmc, color=BLUE, linewidth=2, marker="o", markersize=4)
    axes.annotate(
        f"rank-1 {100 * found.rank1:.1f} %", (1, found.rank1), (9, -16), textcoords="offset points", color=INK
    )
    axes.set(xlabel="rank", ylabel="enrolled people found by this rank", title="CMC, closed set")
    axes.set_xlim(0.5, len(ranks) + 0.5)
    axes.set_ylim(max(0.0, found.rank1 - 0.08), 1.008)
    axes.set_xticks(ranks if len(ranks) < 5 else [k for k in (1, 5, 10, 15, 20) if k <= len(ranks)])
    percent_axis(axes.yaxis)


def _by_size(found: IdentificationFigures, axes: Axes) -> None:
    sizes = [row.gallery_size for row in found.gallery_sizes]
    axes.plot(sizes, [row.fnir for row in found.gallery_sizes], color=BLUE, linewidth=2, marker="o", markersize=4)
    target = found.fusions[0].fpir
    axes.set(title=f"FNIR at FPIR {100 * target:g} %, by gallery size", xlabel="people in the gallery", ylabel="FNIR")
    axes.set(xscale="log", ylim=(0, 1.15 * max(row.fnir for row in found.gallery_sizes) + 0.005))
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    for row in found.gallery_sizes:
        axes.annotate(
            f"{row.threshold:.2f}", (row.gallery_size, row.fnir), (0, 7), textcoords="offset points", ha="center",
            fontsize=8.5, color="#555b63",
        )  # fmt: skip
    axes.annotate(
        "small figures: threshold", (0.98, 0.05), xycoords="axes fraction", ha="right", fontsize=8.5, color="#555b63"
    )
    percent_axis(axes.yaxis)


def _by_fusion(found: IdentificationFigures, axes: Axes) -> None:
    tones = {"mean": BLUE, "weighted": "#6aa9c9", "best": GREY}
    for fusion, colour in tones.items():
        rows = [row for row in found.fusions if row.fusion == fusion]
        axes.plot(
            [row.margin for row in rows], [row.fnir for row in rows], color=colour, linewidth=2, marker="o", markersize=4,
            linestyle="--" if fusion == "weighted" else "-", label={"weighted": "quality-weighted mean"}.get(fusion, fusion),
        )  # fmt: skip
    axes.set(title="Fusion of a person's faces, and margin", xlabel="margin over the second candidate", ylabel="FNIR")
    top = max(row.fnir for row in found.fusions)
    bottom = min(row.fnir for row in found.fusions)
    axes.set_ylim(max(0.0, bottom - 0.6 * (top - bottom) - 0.01), top + 0.6 * (top - bottom) + 0.01)
    axes.legend(loc="lower right")
    percent_axis(axes.yaxis)


def _by_source(found: IdentificationFigures, axes: Axes) -> None:
    rows = [*found.by_source, *([found.relatives] if found.relatives else [])]
    places = np.arange(len(rows))[::-1]
    for number, (place, row) in enumerate(zip(places, rows, strict=True)):
        colour = GREY if row is found.relatives else TONES[number % len(TONES)]
        axes.plot(row.fpir_interval_95, (place, place), color=colour, linewidth=2.5, alpha=0.5, solid_capstyle="round")
        axes.plot(row.fpir, place, "o", color=colour, markersize=7)
        axes.annotate(
            f"{row.source}: {100 * row.fpir:.2f} % ({row.people} people)", (0, place), (4, 9),
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=9, color=INK,
            bbox=BEHIND,
        )  # fmt: skip
    target = found.fusions[0].fpir
    axes.axvline(target, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set(
        title=f"FPIR by source, threshold for {100 * target:g} % overall", xlabel="FPIR with 95 % interval over people"
    )
    axes.set(ylim=(-0.6, len(rows) - 0.25), xlim=(0, max(0.02, 1.05 * max(row.fpir_interval_95[1] for row in rows))))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    percent_axis(axes.xaxis)
