"""The sheet of a verification report."""

from __future__ import annotations

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
    histogram,
    percent_axis,
    sheet_figure,
    threshold_line,
    too_few,
)
from facepipe.evaluate.sheet.cases import draw_cases
from facepipe.evaluate.verify import GRID, VerificationReport
from facepipe.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def verification_sheet(report: VerificationReport, out: Path, title: str) -> None:
    """Draw a verification report into `out` (.png, .svg or .pdf), written whole or not at all."""
    with sheet_figure(out, title, _verification_line(report), rows=3) as (figure, grid):
        same = report.scores[report.pairs.same]
        tried = np.isfinite(report.scores)
        other = report.scores[~report.pairs.same & tried]
        curve = metrics.roc(same, other)
        for place, name, panel in ((grid[0, 0:4], "ROC", _roc), (grid[0, 4:8], "DET", _det)):
            axes = figure.add_subplot(place)
            if report.tar_at_far:
                panel(axes, report, curve)
            else:
                few = f"{report.impostor} impostor {'pair is' if report.impostor == 1 else 'pairs are'} too few for a rate of errors"
                too_few(axes, name, few, f"{min(report.needs.values(), default=0):,} more are needed for a FAR of 10 %")
        _verification_scores(figure.add_subplot(grid[0, 8:12]), report, same, other)
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


def _verification_line(report: VerificationReport) -> str:
    rates = [
        f"accuracy {100 * report.accuracy:.2f} ± {100 * report.accuracy_sd:.2f} %",
        f"AUC {report.auc:.4f}",
        f"EER {100 * report.eer:.2f} %",
        *(f"TAR {100 * value:.1f} % at FAR {key}" for key, value in report.tar_at_far.items()),
    ]
    return (
        f"{',  '.join(rates)}      {plural(len(report.pairs), 'pair')}, "
        f"{plural(report.failed_photos, 'photo')} failed to enrol; bands: 95 % over people"
    )


def _roc(axes: Axes, report: VerificationReport, curve: metrics.Roc) -> None:
    lowest = 1.0 / max(1, report.impostor)
    if report.grid_band:
        shown = lowest <= GRID
        low, high = report.grid_band
        axes.fill_between(GRID[shown], low[shown], high[shown], color=BLUE, alpha=0.16, linewidth=0)
    axes.plot(np.maximum(curve.far, lowest), curve.tar, color=BLUE, linewidth=2)
    for key, value in report.tar_at_far.items():
        axes.plot(float(key), value, "o", color=BLUE, markersize=5)
        axes.annotate(
            f"{100 * value:.1f} %", (float(key), value), (6, -13), textcoords="offset points", fontsize=9, color=INK
        )
    axes.set(
        xscale="log", xlim=(lowest, 1), xlabel="FAR: impostors accepted", ylabel="TAR: genuine accepted", title="ROC"
    )
    bottom = float(curve.tar[curve.far <= lowest].max(initial=0.0))
    axes.set_ylim(max(0.0, min(0.9, bottom - 0.1)), 1.005)
    percent_axis(axes.xaxis, log=True)
    percent_axis(axes.yaxis)


def _det(axes: Axes, report: VerificationReport, curve: metrics.Roc) -> None:
    from scipy.special import ndtri

    def deviate(rate: Float64 | float) -> Float64:
        return np.asarray(ndtri(np.clip(rate, floor, 1 - floor)), dtype=np.float64)

    floor = 0.5 / max(report.genuine, report.impostor)
    if report.grid_band:
        low, high = report.grid_band
        shown = floor <= GRID
        axes.fill_between(
            deviate(GRID[shown]),
            deviate(1 - high[shown]),
            deviate(1 - low[shown]),
            color=BLUE,
            alpha=0.16,
            linewidth=0,
        )
    axes.plot(deviate(curve.far), deviate(1 - curve.tar), color=BLUE, linewidth=2)
    axes.plot([-5, 5], [-5, 5], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot(deviate(report.eer), deviate(report.eer), "o", color=INK, markersize=5)
    axes.annotate(
        f"EER {100 * report.eer:.2f} %",
        (float(deviate(report.eer)),) * 2,
        (11, 9),
        textcoords="offset points",
        color=INK,
        bbox=BEHIND,
    )
    ticks = np.asarray([r for r in (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8) if r >= floor])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(ticks).tolist(), [f"{100 * t:g} %" for t in ticks])
    top = float(ndtri(0.6))
    axes.set(xlim=(float(deviate(floor)), top), ylim=(float(deviate(floor)), top))
    axes.set(xlabel="FAR (normal deviate)", ylabel="FNMR (normal deviate)", title="DET")


def _verification_scores(axes: Axes, report: VerificationReport, same: Float64, other: Float64) -> None:
    histogram(axes, [(same, BLUE, "one person"), (other, RED, "two people")])
    for key in ("0.01", "0.001"):
        if key in report.threshold_at_far:
            threshold_line(axes, report.threshold_at_far[key], f"FAR {100 * float(key):g} %")
    axes.set(xlabel="cosine similarity", title="Scores")
