"""The sheet of a verification report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facepipe.evaluate import metrics
from facepipe.evaluate.identify_report import Case
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.sheet.canvas import (
    BEHIND,
    BLUE,
    GREY,
    INK,
    RED,
    draw_curve,
    histogram,
    mark_rates,
    panels,
    rate_curve,
    sheet_figure,
    threshold_lines,
)
from facepipe.evaluate.sheet.cases import draw_cases
from facepipe.evaluate.verify import GRID, VerificationFigures, VerificationReport
from facepipe.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def verification_sheet(report: VerificationReport, out: Path, title: str) -> None:
    """Draw a verification report into `out` (.png, .svg or .pdf), written whole or not at all."""
    found = report.figures
    with sheet_figure(out, title, _verification_line(found), rows=3) as (figure, grid):
        same = report.scores[report.pairs.same]
        tried = np.isfinite(report.scores)
        other = report.scores[~report.pairs.same & tried]
        curve = metrics.roc(same, other)
        few = f"{found.impostor} impostor {'pair is' if found.impostor == 1 else 'pairs are'} too few for a rate of errors"
        needed = f"{min(found.more_impostor_pairs_needed.values(), default=0):,} more are needed for a FAR of 10 %"
        wanted = (
            (grid[0, 0:4], "ROC", partial(_roc, report, curve)),
            (grid[0, 4:8], "DET", partial(_det, report, curve)),
        )
        panels(figure, wanted, None if found.tar_at_far else (few, needed))
        axes = figure.add_subplot(grid[0, 8:12])
        histogram(axes, [(same, BLUE, "one person"), (other, RED, "two people")])
        threshold_lines(axes, found.threshold_at_far, "FAR", ("0.01", "0.001"))
        axes.set(xlabel="cosine similarity", title="Scores")
        boxes = dict(zip(report.photos.paths, report.photos.boxes, strict=True))
        for row, (name, same_person) in enumerate(
            (("Different people, highest scores", False), ("One person, lowest scores", True)), 1
        ):
            chosen = np.flatnonzero((report.pairs.same == same_person) & tried)
            order = chosen[np.argsort(report.scores[chosen] * (1 if same_person else -1), kind="stable")][:6]
            photos = report.pairs.photos
            cases: list[Case] = [
                Case(a, b, boxes[a], boxes[b], float(report.scores[i]))
                for i in order
                for a, b in [(photos[report.pairs.a[i]], photos[report.pairs.b[i]])]
            ]
            draw_cases(figure, grid[row, :], name, cases, BLUE if same_person else RED)


def _verification_line(found: VerificationFigures) -> str:
    rates = [
        f"accuracy {100 * found.accuracy:.2f} ± {100 * found.accuracy_sd:.2f} %",
        f"AUC {found.auc:.4f}",
        f"EER {100 * found.eer:.2f} %",
        *(f"TAR {100 * value:.1f} % at FAR {key}" for key, value in found.tar_at_far.items()),
    ]
    return (
        f"{',  '.join(rates)}      {plural(found.pairs, 'pair')}, "
        f"{plural(found.failed_to_enrol, 'photo')} failed to enrol; bands: 95 % over people"
    )


def _roc(report: VerificationReport, curve: metrics.Roc, axes: Axes) -> None:
    lowest = 1.0 / max(1, report.figures.impostor)
    rate_curve(axes, np.maximum(curve.far, lowest), curve.tar, lowest, GRID, report.grid_band)
    mark_rates(axes, report.figures.tar_at_far, (6, -13), fontsize=9)
    axes.set(xlabel="FAR: impostors accepted", ylabel="TAR: genuine accepted", title="ROC")
    bottom = float(curve.tar[curve.far <= lowest].max(initial=0.0))
    axes.set_ylim(max(0.0, min(0.9, bottom - 0.1)), 1.005)


def _det(report: VerificationReport, curve: metrics.Roc, axes: Axes) -> None:
    from scipy.special import ndtri

    def deviate(rate: Float64 | float) -> Float64:
        return np.asarray(ndtri(np.clip(rate, floor, 1 - floor)), dtype=np.float64)

    found = report.figures
    floor = 0.5 / max(found.genuine, found.impostor)
    shown, band = floor <= GRID, None
    if report.grid_band:
        low, high = report.grid_band
        band = deviate(GRID[shown]), deviate(1 - high[shown]), deviate(1 - low[shown])
    draw_curve(axes, deviate(curve.far), deviate(1 - curve.tar), band)
    axes.plot([-5, 5], [-5, 5], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot(deviate(found.eer), deviate(found.eer), "o", color=INK, markersize=5)
    middle = (float(deviate(found.eer)),) * 2
    axes.annotate(f"EER {100 * found.eer:.2f} %", middle, (11, 9), textcoords="offset points", color=INK, bbox=BEHIND)
    ticks = np.asarray([r for r in (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8) if r >= floor])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(ticks).tolist(), [f"{100 * t:g} %" for t in ticks])
    top = float(ndtri(0.6))
    axes.set(xlim=(float(deviate(floor)), top), ylim=(float(deviate(floor)), top))
    axes.set(xlabel="FAR (normal deviate)", ylabel="FNMR (normal deviate)", title="DET")
