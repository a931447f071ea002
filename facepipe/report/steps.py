"""One picture that shows each of the four steps for a few photos: for the demo, the README, and explaining to others."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facepipe.types import Candidate, Face, Float32, Image, Status, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT = "#1b1f24", "#8b949e"
_COLOURS = {Status.KNOWN: "#1a7f37", Status.AMBIGUOUS: "#9a6700", Status.UNKNOWN: "#57606a"}
_HEADINGS = (
    "photo",
    "1  detect: edges",
    "CNNs confirm",
    "2  embed: align",
    "embedding",
    "3  match",
    "4  predict",
)
_WIDTHS = (1.15, 1.15, 1.15, 0.8, 0.9, 1.3, 1.1)


@dataclass(frozen=True, slots=True, eq=False)
class StepRow:
    """What each step made of one photo.

    edges: gradient magnitude, float32 (h, w). face: the one that is followed, None when there is none. chip: aligned, uint8
    (H, W, 3). embedding: float32 (d,). candidates: best first. threshold: cosine. status, person: the verdict.
    """

    title: str
    image: Image
    edges: Float32
    face: Face | None = None
    chip: UInt8 | None = None
    embedding: Float32 | None = None
    candidates: tuple[Candidate, ...] = ()
    threshold: float = 0.0
    status: Status | None = None
    person: str | None = None


def draw_steps(rows: Sequence[StepRow]) -> UInt8:
    """Draw one line of panels for each row; return uint8 RGB (H, W, 3). ValueError without rows."""
    if not rows:
        raise ValueError("draw_steps: expected at least one row")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 0.5 + 1.95 * len(rows)), dpi=110, facecolor="white")
    grid = figure.subplots(len(rows), len(_WIDTHS), squeeze=False, width_ratios=_WIDTHS)
    for panels, row in zip(grid, rows, strict=True):
        _draw_row(panels, row)
    top = 1 - 0.62 / figure.get_figheight()
    figure.subplots_adjust(left=0.01, right=0.99, top=top, bottom=0.02, wspace=0.08, hspace=0.2)
    for panel, heading in zip(grid[0], _HEADINGS, strict=True):
        left = panel.get_position(original=True).x0
        figure.text(left, 1 - 0.3 / figure.get_figheight(), heading, fontsize=11, color=_INK, fontweight="bold")
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    from facepipe.images import read_image_bytes

    return read_image_bytes(file.getvalue(), "steps").rgb


def _draw_row(panels: Sequence[Axes], row: StepRow) -> None:
    photo, edges, found, chip, vector, match, verdict = panels
    for panel in panels:
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_visible(False)
    photo.imshow(row.image.rgb)
    photo.set_title(row.title, fontsize=9, color=_FAINT, loc="left", pad=3)
    edges.imshow(np.minimum(row.edges, np.percentile(row.edges, 99)), cmap="magma")
    found.imshow(row.image.rgb)
    if row.face is None:
        for panel in (chip, vector, match):
            panel.text(0.5, 0.5, "–", transform=panel.transAxes, ha="center", va="center", fontsize=14, color=_FAINT)
        _say(verdict, "no face", "", _FAINT)
        return
    _draw_face(found, row.face, row.image.scale)
    if row.chip is not None:
        chip.imshow(row.chip)
    if row.embedding is not None:
        side = int(np.ceil(np.sqrt(len(row.embedding))))
        padded = np.zeros(side * side, np.float32)
        padded[: len(row.embedding)] = row.embedding
        limit = float(np.abs(padded).max()) or 1.0
        vector.imshow(padded.reshape(side, side), cmap="PuOr", vmin=-limit, vmax=limit)
    _draw_match(match, row)
    status = row.status or Status.UNKNOWN
    _say(verdict, row.person or str(status), str(status) if row.person else "nobody we know", _COLOURS[status])


def _draw_face(panel: Axes, face: Face, scale: float) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = face.box * scale
    panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="#2da44e", linewidth=2))
    x, y = (face.landmarks * scale).T
    panel.scatter(x, y, s=8, color="#ffd33d", zorder=3)


def _draw_match(panel: Axes, row: StepRow) -> None:
    shown = row.candidates[:3]
    panel.set_xlim(-0.02, 1.2)
    panel.set_ylim(2.6, -0.8)
    for place, candidate in enumerate(shown):
        above = candidate.similarity >= row.threshold
        panel.barh(place, max(candidate.similarity, 0.0), height=0.34, color="#2da44e" if above else "#d0d7de")
        panel.text(0, place - 0.28, candidate.person, fontsize=9, color=_INK, va="bottom")
        panel.text(
            max(candidate.similarity, 0.0) + 0.02,
            place,
            f"{candidate.similarity:.2f}",
            fontsize=9,
            va="center",
            color=_INK,
        )
    panel.axvline(row.threshold, color="#cf222e", linewidth=1, linestyle=(0, (4, 3)))
    panel.text(
        row.threshold, 2.55, f"threshold {row.threshold:.2f}", fontsize=8, color="#cf222e", ha="center", va="bottom"
    )


def _say(panel: Axes, answer: str, detail: str, colour: Any) -> None:
    panel.text(0.04, 0.58, answer, transform=panel.transAxes, fontsize=14, fontweight="bold", color=colour, va="center")
    panel.text(0.04, 0.36, detail, transform=panel.transAxes, fontsize=10, color=_FAINT, va="center")
