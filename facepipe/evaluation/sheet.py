"""One sheet for a report: curves with bands, score distributions, and the worst cases as pictures.

Drawn by matplotlib without a display. Genuine or enrolled is blue, impostor or stranger is red, in every panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facepipe.errors import ImageError, InputError, UsageError
from facepipe.evaluation import metrics
from facepipe.evaluation.identify import GRID as FPIR_GRID
from facepipe.evaluation.identify_report import Case, IdentificationReport
from facepipe.evaluation.metrics import Float64
from facepipe.evaluation.verify import GRID, VerificationReport
from facepipe.images import read_image
from facepipe.types import Float32, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _RED, _GREY, _INK = "#1f6f9f", "#cf4a4a", "#8a8f98", "#22262b"
_TONES = ("#cf4a4a", "#e08e45", "#a05195", "#6b705c", "#b5838d")
_SIDE = 112
_STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def verification_sheet(report: VerificationReport, out: Path, title: str) -> None:
    """Draw a verification report into `out` (.png, .svg or .pdf), written whole or not at all."""
    with _figure(out, title, _verification_line(report), rows=3) as (figure, grid):
        same = report.scores[report.pairs.same]
        tried = np.isfinite(report.scores)
        other = report.scores[~report.pairs.same & tried]
        curve = metrics.roc(same, other)
        roc = figure.add_subplot(grid[0, 0:4])
        _roc(roc, report, curve)
        _det(figure.add_subplot(grid[0, 4:8]), report, curve)
        _verification_scores(figure.add_subplot(grid[0, 8:12]), report, same, other)
        boxes = dict(zip(report.photos.paths, report.photos.boxes, strict=True))
        for row, (name, same_person) in enumerate((("False matches", False), ("False non-matches", True)), 1):
            chosen = np.flatnonzero((report.pairs.same == same_person) & tried)
            order = chosen[np.argsort(report.scores[chosen] * (1 if same_person else -1), kind="stable")][:6]
            photos = report.pairs.photos
            cases: list[Case] = [
                Case(a, b, boxes[a], boxes[b], float(report.scores[i]))
                for i in order
                for a, b in [(photos[report.pairs.a[i]], photos[report.pairs.b[i]])]
            ]
            what = "different people, highest scores" if not same_person else "one person, lowest scores"
            _cases(figure, grid[row, :], f"{name}: {what}", cases, _BLUE if same_person else _RED)


def identification_sheet(report: IdentificationReport, out: Path, title: str) -> None:
    """Draw an identification report into `out` (.png, .svg or .pdf), written whole or not at all."""
    with _figure(out, title, _identification_line(report), rows=4) as (figure, grid):
        _fnir_fpir(figure.add_subplot(grid[0, 0:4]), report)
        _search_scores(figure.add_subplot(grid[0, 4:8]), report)
        _cmc(figure.add_subplot(grid[0, 8:12]), report)
        _by_size(figure.add_subplot(grid[1, 0:4]), report)
        _by_fusion(figure.add_subplot(grid[1, 4:8]), report)
        _by_source(figure.add_subplot(grid[1, 8:12]), report)
        for row, name, cases, colour in (
            (2, "Strangers with the highest scores: stranger, and whose name it would get", report.false_names, _RED),
            (3, "Enrolled people who miss by most: probe, and who came first", report.missed, _BLUE),
        ):
            _cases(figure, grid[row, :], name, cases, colour)


def check_sheet(out: Path) -> None:
    """Refuse a sheet that could not be written, before any photo is read: UsageError or InputError."""
    if out.suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise UsageError(f"{out}: a sheet is .png, .svg or .pdf")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it, or write the sheet elsewhere")


class _figure:  # noqa: N801 (a context manager that reads like a function)
    """Set up the sheet; on leaving without an error, write it to a neighbour file and rename."""

    def __init__(self, out: Path, title: str, line: str, rows: int) -> None:
        check_sheet(out)
        self._out, self._title, self._line, self._rows = out, title, line, rows

    def __enter__(self) -> tuple[Figure, Any]:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._context = mpl.rc_context(_STYLE)
        self._context.__enter__()
        heights = [1.55] * (self._rows - 2) + [0.85, 0.85]
        self._sheet = Figure(figsize=(16.5, 1.5 + 3.0 * sum(heights) / 1.28), dpi=110, facecolor="white")
        FigureCanvasAgg(self._sheet)
        tall = self._sheet.get_size_inches()[1]
        self._sheet.text(0.035, 1 - 0.35 / tall, self._title, fontsize=17, fontweight="bold", color=_INK, va="center")
        self._sheet.text(0.035, 1 - 0.72 / tall, self._line, fontsize=10.5, color="#555b63", va="center")
        grid = self._sheet.add_gridspec(
            self._rows, 12, height_ratios=heights, left=0.06, right=0.985, top=1 - 1.25 / tall, bottom=0.35 / tall,
            hspace=0.36, wspace=1.7,
        )  # fmt: skip
        return self._sheet, grid

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                part = self._out.with_name(f".{self._out.stem}.part{self._out.suffix}")
                try:
                    self._sheet.savefig(part)
                    part.replace(self._out)
                except OSError as cause:
                    raise InputError(f"{self._out}: cannot write the sheet ({cause.strerror})") from cause
                finally:
                    part.unlink(missing_ok=True)
        finally:
            self._context.__exit__(None, None, None)


def _verification_line(report: VerificationReport) -> str:
    tars = ",  ".join(f"TAR {100 * value:.1f} % at FAR {key}" for key, value in report.tar_at_far.items())
    return (
        f"accuracy {100 * report.accuracy:.2f} ± {100 * report.accuracy_sd:.2f} %,  AUC {report.auc:.4f},  "
        f"EER {100 * report.eer:.2f} %,  {tars}      {len(report.pairs)} pairs, "
        f"{report.failed_photos} photos failed to enrol; bands: 95 % over people"
    )


def _identification_line(report: IdentificationReport) -> str:
    rates = ",  ".join(f"FNIR {100 * v:.1f} % at FPIR {100 * float(k):g} %" for k, v in report.fnir_at_fpir.items())
    return (
        f"rank-1 {100 * report.rank1:.1f} %,  {rates}      {report.enrolled} of {report.people} people enrolled, "
        f"{report.strangers} strangers, {report.repeats} repetitions, {report.failed_to_enrol} photos failed to enrol; "
        "bands: 95 % over people"
    )


def _percent_axis(axis: Any, log: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g} %"))
    if log:
        axis.set_minor_formatter(NullFormatter())


def _roc(axes: Axes, report: VerificationReport, curve: metrics.Roc) -> None:
    lowest = 1.0 / max(1, report.impostor)
    if report.grid_band:
        shown = lowest <= GRID
        low, high = report.grid_band
        axes.fill_between(GRID[shown], low[shown], high[shown], color=_BLUE, alpha=0.16, linewidth=0)
    axes.plot(np.maximum(curve.far, lowest), curve.tar, color=_BLUE, linewidth=2)
    for key, value in report.tar_at_far.items():
        axes.plot(float(key), value, "o", color=_BLUE, markersize=5)
        axes.annotate(
            f"{100 * value:.1f} %", (float(key), value), (6, -13), textcoords="offset points", fontsize=9, color=_INK
        )
    axes.set(
        xscale="log", xlim=(lowest, 1), xlabel="FAR: impostors accepted", ylabel="TAR: genuine accepted", title="ROC"
    )
    bottom = float(curve.tar[curve.far <= lowest].max(initial=0.0))
    axes.set_ylim(max(0.0, min(0.9, bottom - 0.1)), 1.005)
    _percent_axis(axes.xaxis, log=True)
    _percent_axis(axes.yaxis)


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
            color=_BLUE,
            alpha=0.16,
            linewidth=0,
        )
    axes.plot(deviate(curve.far), deviate(1 - curve.tar), color=_BLUE, linewidth=2)
    axes.plot([-5, 5], [-5, 5], color=_GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot(deviate(report.eer), deviate(report.eer), "o", color=_INK, markersize=5)
    axes.annotate(
        f"EER {100 * report.eer:.2f} %",
        (float(deviate(report.eer)),) * 2,
        (9, 3),
        textcoords="offset points",
        color=_INK,
    )
    ticks = np.asarray([r for r in (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8) if r >= floor])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(ticks).tolist(), [f"{100 * t:g} %" for t in ticks])
    top = float(ndtri(0.6))
    axes.set(xlim=(float(deviate(floor)), top), ylim=(float(deviate(floor)), top))
    axes.set(xlabel="FAR (normal deviate)", ylabel="FNMR (normal deviate)", title="DET")


def _verification_scores(axes: Axes, report: VerificationReport, same: Float64, other: Float64) -> None:
    _histogram(axes, [(same, _BLUE, "one person"), (other, _RED, "two people")])
    for key in ("0.01", "0.001"):
        if key in report.threshold_at_far:
            _threshold_line(axes, report.threshold_at_far[key], f"FAR {100 * float(key):g} %")
    axes.set(xlabel="cosine similarity", title="Scores")


def _histogram(axes: Axes, series: Sequence[tuple[Float64, str, str]]) -> None:
    edges = np.linspace(-0.4, 1.0, 71)
    for values, colour, name in series:
        finite = values[np.isfinite(values)]
        if len(finite):
            count, _ = np.histogram(finite, edges)
            share = count / len(finite)
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.28)
            axes.stairs(share, edges, color=colour, linewidth=1.4, label=name)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.legend(loc="upper left", ncols=2, fontsize=8.5, borderaxespad=0.0, columnspacing=1.2)
    axes.set_xlim(-0.4, 1.0)
    axes.set_ylim(0, axes.get_ylim()[1] * (1.1 + 0.09 * ((len(series) + 1) // 2)))


def _threshold_line(axes: Axes, value: float, name: str) -> None:
    axes.axvline(value, ymax=0.74, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{name}: {value:.2f} ", (value, 0.74), xycoords=("data", "axes fraction"), rotation=90, fontsize=8.5,
        ha="right", va="top", color=_INK,
    )  # fmt: skip


def _fnir_fpir(axes: Axes, report: IdentificationReport) -> None:
    outside, hits = report.searches.strangers(), report.searches.hits()
    lowest = 1.0 / report.strangers
    thresholds = np.unique(outside)[::-1]
    fpir = metrics.accepted_share(outside, thresholds)
    fnir = 1.0 - metrics.accepted_share(hits, thresholds)
    if report.grid_band:
        low, high = report.grid_band
        shown = lowest <= FPIR_GRID
        axes.fill_between(FPIR_GRID[shown], low[shown], high[shown], color=_BLUE, alpha=0.16, linewidth=0)
    kept = fpir >= lowest / 2
    axes.plot(fpir[kept], fnir[kept], color=_BLUE, linewidth=2)
    for key, value in report.fnir_at_fpir.items():
        axes.plot(float(key), value, "o", color=_BLUE, markersize=5)
        axes.annotate(f"{100 * value:.1f} %", (float(key), value), (7, 6), textcoords="offset points", color=_INK)
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, None), title="DET: misses against false names")
    axes.set(xlabel="FPIR: strangers who get a name", ylabel="FNIR: enrolled people missed")
    _percent_axis(axes.xaxis, log=True)
    _percent_axis(axes.yaxis)


def _search_scores(axes: Axes, report: IdentificationReport) -> None:
    searches = report.searches
    series = [(searches.top[searches.mated & searches.right], _BLUE, "enrolled, right name first")]
    for number, name in enumerate(searches.sources):
        chosen = searches.impostor & (searches.source == number)
        if chosen.any():
            series.append((searches.top[chosen], _TONES[(number - 1) % len(_TONES)], name))
    if report.relative_searches is not None:
        series.append((report.relative_searches.top, _GREY, "relatives of the enrolled"))
    _histogram(axes, series)
    for key in ("0.1", "0.01"):
        if key in report.threshold_at_fpir:
            _threshold_line(axes, report.threshold_at_fpir[key], f"FPIR {100 * float(key):g} %")
    axes.set(xlabel="similarity of the best candidate", title="Scores of searches")


def _cmc(axes: Axes, report: IdentificationReport) -> None:
    ranks = np.arange(1, len(report.cmc) + 1)
    axes.plot(ranks, report.cmc, color=_BLUE, linewidth=2, marker="o", markersize=4)
    axes.annotate(
        f"rank-1 {100 * report.rank1:.1f} %", (1, report.rank1), (9, -4), textcoords="offset points", color=_INK
    )
    axes.set(
        xlabel="rank",
        ylabel="enrolled people found by this rank",
        title="CMC, closed set",
        xlim=(0.5, len(ranks) + 0.5),
    )
    axes.set_ylim(max(0.0, report.rank1 - 0.08), 1.005)
    axes.set_xticks([k for k in (1, 5, 10, 15, 20) if k <= len(ranks)])
    _percent_axis(axes.yaxis)


def _by_size(axes: Axes, report: IdentificationReport) -> None:
    sizes = [row.gallery_size for row in report.sizes]
    axes.plot(sizes, [row.fnir for row in report.sizes], color=_BLUE, linewidth=2, marker="o", markersize=4)
    target = report.fusions[0].fpir
    axes.set(title=f"FNIR at FPIR {100 * target:g} %, by gallery size", xlabel="people in the gallery", ylabel="FNIR")
    axes.set(xscale="log", ylim=(0, 1.15 * max(row.fnir for row in report.sizes) + 0.005))
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    for row in report.sizes:
        axes.annotate(
            f"{row.threshold:.2f}", (row.gallery_size, row.fnir), (0, 7), textcoords="offset points", ha="center",
            fontsize=8.5, color="#555b63",
        )  # fmt: skip
    axes.annotate(
        "small figures: threshold", (0.98, 0.05), xycoords="axes fraction", ha="right", fontsize=8.5, color="#555b63"
    )
    _percent_axis(axes.yaxis)


def _by_fusion(axes: Axes, report: IdentificationReport) -> None:
    tones = {"mean": _BLUE, "weighted": "#6aa9c9", "best": _GREY}
    for fusion, colour in tones.items():
        rows = [row for row in report.fusions if row.fusion == fusion]
        axes.plot(
            [row.margin for row in rows], [row.fnir for row in rows], color=colour, linewidth=2, marker="o", markersize=4,
            linestyle="--" if fusion == "weighted" else "-", label={"weighted": "quality-weighted mean"}.get(fusion, fusion),
        )  # fmt: skip
    axes.set(title="Fusion of a person's faces, and margin", xlabel="margin over the second candidate", ylabel="FNIR")
    top = max(row.fnir for row in report.fusions)
    bottom = min(row.fnir for row in report.fusions)
    axes.set_ylim(max(0.0, bottom - 0.6 * (top - bottom) - 0.01), top + 0.6 * (top - bottom) + 0.01)
    axes.legend(loc="lower right")
    _percent_axis(axes.yaxis)


def _by_source(axes: Axes, report: IdentificationReport) -> None:
    rows = [*report.sources, *([report.relatives] if report.relatives else [])]
    places = np.arange(len(rows))[::-1]
    for number, (place, row) in enumerate(zip(places, rows, strict=True)):
        colour = _GREY if row is report.relatives else _TONES[number % len(_TONES)]
        axes.plot(row.interval, (place, place), color=colour, linewidth=2.5, alpha=0.5, solid_capstyle="round")
        axes.plot(row.fpir, place, "o", color=colour, markersize=7)
        axes.annotate(
            f"{row.name}: {100 * row.fpir:.2f} % ({row.people} people)", (0, place), (4, 9),
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=9, color=_INK,
        )  # fmt: skip
    target = report.fusions[0].fpir
    axes.axvline(target, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set(
        title=f"FPIR by source, threshold for {100 * target:g} % overall", xlabel="FPIR with 95 % interval over people"
    )
    axes.set(ylim=(-0.6, len(rows) - 0.25), xlim=(0, max(0.02, 1.05 * max(row.interval[1] for row in rows))))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _percent_axis(axes.xaxis)


def _cases(figure: Figure, place: Any, title: str, cases: Sequence[Case], colour: str) -> None:
    """Draw picture pairs in a row of six, each with its score."""
    inner = place.subgridspec(1, 6, wspace=0.10)
    for number, case in enumerate(cases[:6]):
        axes = figure.add_subplot(inner[0, number])
        pair = np.concatenate(
            [
                _crop(case.first, case.first_box),
                np.full((_SIDE, 3, 3), 255, np.uint8),
                _crop(case.second, case.second_box),
            ],
            axis=1,
        )
        axes.imshow(pair, interpolation="lanczos")
        axes.set_axis_off()
        axes.text(
            _SIDE, _SIDE + 5, f"{case.score:.3f}", ha="center", va="top", fontsize=10.5, fontweight="bold", color=colour
        )
        for x, path in ((0, case.first), (2 * _SIDE + 3, case.second)):
            axes.text(
                x, _SIDE + 24, _short(path), ha="left" if x == 0 else "right", va="top", fontsize=6.5, color="#555b63"
            )
        if number == 0:
            axes.set_title(title, pad=9)


def _short(path: Path) -> str:
    name = f"{path.parent.name}/{path.stem}" if not path.stem.startswith(path.parent.name) else path.stem
    return name if len(name) <= 25 else f"{name[:12]}…{name[-12:]}"


def _crop(path: Path, box: Float32 | None) -> UInt8:
    """Return a square picture of a face with some surroundings, grey where the photo cannot be read."""
    import cv2

    try:
        image = read_image(path, max_side=1280)
    except ImageError:
        return np.full((_SIDE, _SIDE, 3), 200, np.uint8)
    height, width = image.rgb.shape[:2]
    if box is None or box[2] <= box[0]:
        middle, half = np.asarray([width, height]) / 2.0, min(width, height) / 2.0
    else:
        scaled = box * image.scale
        middle, half = (scaled[:2] + scaled[2:]) / 2.0, float(max(scaled[2:] - scaled[:2])) * 0.68
    matrix = np.asarray([[2 * half / _SIDE, 0, middle[0] - half], [0, 2 * half / _SIDE, middle[1] - half]])
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    shrunk = cv2.warpAffine(image.rgb, matrix, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shrunk, dtype=np.uint8)
