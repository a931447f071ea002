"""The sheet itself, and what panels have in common. Genuine or enrolled is blue, impostor or stranger is red, everywhere."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facepipe.errors import InputError, UsageError
from facepipe.evaluate.metrics import Float64
from facepipe.files.guard import MARK, own_path
from facepipe.images.fonts import dejavu, font_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY, INK = "#1f6f9f", "#cf4a4a", "#8a8f98", "#22262b"
TONES = ("#cf4a4a", "#e08e45", "#a05195", "#6b705c", "#b5838d")
_WORDS = "#555b63"
#: Keeps a label readable on lines and bars.
BEHIND: Any = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0}
_STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def check_sheet(out: Path) -> None:
    """Refuse a sheet that could not be written, before any photo is read: UsageError or InputError."""
    if out.suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise UsageError(f"{out}: a sheet is .png, .svg or .pdf")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it, or write the sheet elsewhere")


@contextlib.contextmanager
def sheet_figure(out: Path, title: str, line: str, rows: int) -> Iterator[tuple[Figure, Any]]:
    """Yield a sheet and the grid of its panels; when the block ends well, the sheet is written, whole or not at all."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_sheet(out)
    with mpl.rc_context(_STYLE):
        heights = [1.55] * (rows - 2) + [0.85, 0.85]
        sheet = Figure(figsize=(16.5, 1.5 + 3.0 * sum(heights) / 1.28), dpi=110, facecolor="white")
        FigureCanvasAgg(sheet)
        tall = sheet.get_size_inches()[1]
        sheet.text(0.035, 1 - 0.35 / tall, title, fontsize=17, fontweight="bold", color=INK, va="center")
        sheet.text(0.035, 1 - 0.72 / tall, line, fontsize=10.5, color=_WORDS, va="center")
        yield sheet, sheet.add_gridspec(
            rows, 12, height_ratios=heights, left=0.06, right=0.985, top=1 - 1.25 / tall, bottom=0.35 / tall,
            hspace=0.36, wspace=1.7,
        )  # fmt: skip
        _take_fonts(sheet)
        suffix = out.suffix[1:].lower()
        with own_path(out) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # it is said once, in a line
            sheet.savefig(temporary, format=suffix, metadata={"Software" if suffix == "png" else "Creator": MARK})


def _take_fonts(sheet: Figure) -> None:
    """Let texts with characters that DejaVu Sans does not have be drawn with a font that has them."""
    from matplotlib.font_manager import FontProperties, fontManager
    from matplotlib.text import Text

    for text in sheet.findobj(Text):
        path = font_file(text.get_text())
        if path not in (dejavu(), dejavu(bold=True)):
            fontManager.addfont(path)
            family = FontProperties(fname=path).get_name()
            text.set_fontfamily(["DejaVu Sans", family])


def percent_axis(axis: Any, log: bool = False) -> None:
    """Label an axis of shares 0..1 in percent."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g} %"))
    if log:
        axis.set_minor_formatter(NullFormatter())


def histogram(axes: Axes, series: Sequence[tuple[Float64, str, str]]) -> None:
    """Draw how scores are distributed; series: (scores, colour, name)."""
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


def threshold_lines(axes: Axes, thresholds: Mapping[str, float], rate: str, keys: Sequence[str]) -> None:
    """Mark thresholds by dashed lines with the rate that each is for written along it; keys: of which rates."""
    for key in filter(thresholds.__contains__, keys):
        value = thresholds[key]
        axes.axvline(value, ymax=0.74, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{rate} {100 * float(key):g} %: {value:.2f} ", (value, 0.74), xycoords=("data", "axes fraction"), rotation=90,
            fontsize=8.5, ha="right", va="top", color=INK, bbox=BEHIND,
        )  # fmt: skip


def draw_curve(axes: Axes, x: Float64, y: Float64, band: tuple[Float64, Float64, Float64] | None) -> None:
    """Draw a curve and its band (x, low, high)."""
    if band:
        axes.fill_between(*band, color=BLUE, alpha=0.16, linewidth=0)
    axes.plot(x, y, color=BLUE, linewidth=2)


def rate_curve(
    axes: Axes, x: Float64, y: Float64, lowest: float, grid: Float64, band: tuple[Float64, Float64] | None
) -> None:
    """Draw a share over an error rate, from the lowest rate that the data can show; band: low and high on the grid of rates."""
    shown = lowest <= grid
    draw_curve(axes, x, y, band and (grid[shown], band[0][shown], band[1][shown]))
    axes.set(xscale="log", xlim=(lowest, 1))
    percent_axis(axes.xaxis, log=True)
    percent_axis(axes.yaxis)


def mark_rates(axes: Axes, values: Mapping[str, float], place: tuple[float, float], **style: Any) -> None:
    """Mark what was measured at each rate; place: of the words, in points from the mark."""
    for key, value in values.items():
        at = (float(key), value)
        axes.plot(*at, "o", color=BLUE, markersize=5)
        axes.annotate(f"{100 * value:.1f} %", at, place, textcoords="offset points", color=INK, **style)


def panels(
    figure: Figure, wanted: Sequence[tuple[Any, str, Callable[[Axes], object]]], missing: tuple[str, str] | None
) -> None:
    """Draw panels (place, title, what draws it); missing: why there are too few data, in two lines, in place of each."""
    for place, title, draw in wanted:
        axes = figure.add_subplot(place)
        if missing is None:
            draw(axes)
        else:
            _too_few(axes, title, *missing)


def _too_few(axes: Axes, title: str, *lines: str) -> None:
    """Say in place of a panel why it cannot be drawn."""
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_facecolor("#f5f6f7")
    axes.text(
        0.5, 0.5, "\n".join(lines), transform=axes.transAxes, ha="center", va="center", color=_WORDS, linespacing=1.7
    )
