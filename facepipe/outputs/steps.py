"""One picture of the four steps: photo, edges, faces, aligned chip, vector, candidates, verdict; a row for each photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw

from facepipe.outputs.draw import draw_edges
from facepipe.outputs.paint import INK, STATUS_COLOURS, WHITE, Colour, Rectangle, draw_box, fitted, font
from facepipe.outputs.table import percent
from facepipe.text import printable
from facepipe.types import Candidate, Face, Float32, Image, Status, UInt8

_PAPER: Colour = (248, 247, 244)
_LINE: Colour = (222, 220, 213)
_SOFT: Colour = (104, 109, 121)
_EMPTY: Colour = (237, 235, 230)
#: A bar that does not reach the threshold.
_BELOW: Colour = (186, 178, 166)
_STEPS: tuple[Colour, ...] = ((29, 111, 138), (94, 73, 160), (176, 86, 0), (17, 122, 72))

#: Everything is drawn at twice the size and reduced: Pillow's round corners and lines are jagged.
_FINE = 2

# Columns: left edge and width of each cell, in pixels of the finished picture.
_CELL = 208
_GAP = 18
_MARGIN = 36
_CHIP = 150
_BARS = 290
_VERDICT = 220
_HEAD = 132
_ROW = _CELL + 52
_WIDTHS = (_CELL, _CELL, _CELL, _CHIP, _CHIP, _BARS, _VERDICT)
_STARTS = tuple(_MARGIN + sum(_WIDTHS[:place]) + place * _GAP for place in range(len(_WIDTHS)))
_ENDS = tuple(start + width for start, width in zip(_STARTS, _WIDTHS, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class StepRow:
    """What each step made of one photo.

    title: the line above it.
    edges: gradient magnitude, float32 (h, w) at any size.
    face: the one that is followed, None when there is none.
    chip: aligned, uint8 RGB (S, S, 3).
    embedding: float32 (d,).
    candidates: best first.
    threshold: cosine.
    status, person, probability: the verdict.
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
    probability: float | None = None

    def __post_init__(self) -> None:
        found = self.face is not None
        if any((value is not None) != found for value in (self.chip, self.embedding, self.status)):
            raise ValueError("StepRow: expected chip, embedding and status exactly when there is a face")


def draw_steps(rows: Sequence[StepRow]) -> UInt8:
    """Draw one line of panels for each row; return uint8 RGB (H, W, 3). ValueError without rows."""
    if not rows:
        raise ValueError("draw_steps: expected at least one row")
    board = Board(_ENDS[-1] + _MARGIN, _HEAD + _ROW * len(rows) + _MARGIN // 2)
    _draw_head(board)
    for number, row in enumerate(rows):
        _draw_row(board, row, _HEAD + number * _ROW)
    return board.finished()


class Board:
    """A canvas in pixels of the finished picture, drawn finer."""

    def __init__(self, width: int, height: int) -> None:
        self._canvas = PIL.Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
        self.draw = PIL.ImageDraw.Draw(self._canvas)

    def finished(self) -> UInt8:
        """Return the picture, uint8 RGB (H, W, 3)."""
        return np.asarray(self._canvas.reduce(_FINE))

    def text(
        self,
        place: tuple[float, float],
        text: str,
        size: int,
        colour: Colour = INK,
        *,
        bold: bool = False,
        anchor: str = "ls",
        width: float | None = None,
    ) -> None:
        """Write a line of text, shortened to `width`."""
        letters = font(text, size * _FINE, bold=bold)
        shown = printable(text) if width is None else fitted(text, letters, width * _FINE)
        self.draw.text((place[0] * _FINE, place[1] * _FINE), shown, colour, letters, anchor=anchor)

    def plate(self, left: float, top: float, width: float, height: float, colour: Colour, radius: float = 10) -> None:
        """Fill a rectangle with round corners."""
        corners = (left * _FINE, top * _FINE, (left + width) * _FINE - 1, (top + height) * _FINE - 1)
        self.draw.rounded_rectangle(corners, min(radius, width / 2, height / 2) * _FINE, fill=colour)

    def picture(self, picture: PIL.Image.Image, left: float, top: float, side: float, radius: float = 10) -> None:
        """Paste a picture, centred in a square, with round corners."""
        scale = side * _FINE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        corner = (round(left * _FINE + (side * _FINE - size[0]) / 2), round(top * _FINE + (side * _FINE - size[1]) / 2))
        kept = PIL.Image.new("L", (size[0] * 2, size[1] * 2), 0)
        PIL.ImageDraw.Draw(kept).rounded_rectangle(
            (0, 0, size[0] * 2 - 1, size[1] * 2 - 1), radius * _FINE * 2, fill=255
        )
        self._canvas.paste(_scaled(picture, size), corner, kept.reduce(2))

    def arrow(self, left: float, middle: float) -> None:
        """Draw a small arrow head in the gap between two cells."""
        x, y, reach = (left + _GAP / 2) * _FINE, middle * _FINE, 4 * _FINE
        points = [(x - reach / 2, y - reach), (x + reach / 2, y), (x - reach / 2, y + reach)]
        self.draw.line(points, _SOFT, round(1.6 * _FINE), joint="curve")


def _scaled(picture: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    enlarged = size[0] > picture.width
    return picture.resize(size, PIL.Image.Resampling.BICUBIC if enlarged else PIL.Image.Resampling.BOX)


def _draw_head(board: Board) -> None:
    steps = (
        ("Detect", "edges say where a face can be; networks find it", 1, 2),
        ("Embed", "aligned by its landmarks, described by a deep network", 3, 4),
        ("Match", "compared with everybody in the gallery", 5, 5),
        ("Predict", "known, ambiguous, unknown", 6, 6),
    )
    board.text((_STARTS[0], 62), "Photo", 21, bold=True)
    for number, ((name, words, first, last), colour) in enumerate(zip(steps, _STEPS, strict=True), 1):
        left, right = _STARTS[first], _ENDS[last]
        board.plate(left, 40, 28, 28, colour, 14)
        board.text((left + 14, 54), str(number), 16, WHITE, bold=True, anchor="mm")
        board.text((left + 38, 62), name, 21, bold=True)
        lines = wrapped(words, right - left, 14)
        for place, line in enumerate(lines[:2]):
            board.text((left, 90 + 19 * place), line, 14, _SOFT)


def wrapped(text: str, width: float, size: int) -> list[str]:
    """Return a text in lines of at most this width, in pixels of the finished picture."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font(text, size * _FINE).getlength(longer) > width * _FINE and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _draw_row(board: Board, row: StepRow, top: int) -> None:
    board.plate(_MARGIN, top, _ENDS[-1] - _MARGIN, 1, _LINE, 0)
    board.text((_MARGIN, top + 27), row.title, 15, _SOFT, width=_ENDS[2] - _MARGIN)
    top += 40
    middle = top + _CELL / 2
    photo = PIL.Image.fromarray(row.image.rgb)
    board.picture(photo, _STARTS[0], top, _CELL)
    board.picture(PIL.Image.fromarray(draw_edges(row.edges)), _STARTS[1], top, _CELL)
    board.picture(_with_face(row), _STARTS[2], top, _CELL)
    for start in _STARTS[1:3]:
        board.arrow(start - _GAP, middle)
    if row.face is None or row.chip is None or row.embedding is None:
        board.plate(_STARTS[6], middle - 40, _VERDICT, 80, _EMPTY, 14)
        board.text((_STARTS[6] + 18, middle), "no face", 21, _SOFT, bold=True, anchor="lm")
        return
    for start in _STARTS[3:]:
        board.arrow(start - _GAP, middle)
    upper = middle - _CHIP / 2
    board.picture(PIL.Image.fromarray(row.chip), _STARTS[3], upper, _CHIP)
    board.picture(draw_vector(row.embedding, _CHIP * _FINE), _STARTS[4], upper, _CHIP)
    board.text((_STARTS[4] + _CHIP / 2, upper + _CHIP + 19), f"{len(row.embedding)} numbers", 13, _SOFT, anchor="ms")
    _draw_bars(board, row, _STARTS[5], middle)
    _draw_verdict(board, row, _STARTS[6], middle)


def _with_face(row: StepRow) -> PIL.Image.Image:
    """Return the photo, large enough to draw fine lines, darker around the face, with its box and landmarks."""
    height, width = row.image.rgb.shape[:2]
    scale = _CELL * _FINE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photo = _scaled(PIL.Image.fromarray(row.image.rgb), size)
    scale *= row.image.scale
    dim = PIL.Image.blend(photo, PIL.Image.new("RGB", photo.size, INK), 0.45)
    if row.face is None:
        return dim
    box = Rectangle(*(round(float(value) * scale) for value in row.face.box))
    inside = (max(box.left, 0), max(box.top, 0), min(box.right, photo.width), min(box.bottom, photo.height))
    if inside[0] < inside[2] and inside[1] < inside[3]:
        dim.paste(photo.crop(inside), inside[:2])
    draw = PIL.ImageDraw.Draw(dim)
    draw_box(draw, box, _STEPS[0], 2 * _FINE)
    radius = min(max((box.right - box.left) / 40, 1.0), 3.0 * _FINE)
    for x, y in (row.face.landmarks * scale).tolist():
        draw.ellipse((x - radius - 2, y - radius - 2, x + radius + 2, y + radius + 2), fill=_STEPS[0])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=WHITE)
    return dim


def draw_vector(vector: Float32, side: int) -> PIL.Image.Image:
    """Return a vector as a square of cells, blue below zero, white at it, orange above; at most `side` pixels large."""
    cells = math.ceil(math.sqrt(len(vector)))
    # One strong number must not bleach the others.
    strong = max(float(np.quantile(np.abs(vector), 0.98)), 1e-9)
    values = np.zeros(cells * cells, np.float32)
    values[: len(vector)] = np.clip(vector / strong, -1.0, 1.0)
    white, low, high = (np.array(colour, np.float32) for colour in ((250, 249, 246), (44, 92, 160), (214, 96, 28)))
    ends = np.where(values[:, None] < 0.0, low, high)
    colours = np.rint(white + np.abs(values)[:, None] * (ends - white)).astype(np.uint8)
    zoom = max(1, side // cells)
    picture = PIL.Image.fromarray(colours.reshape(cells, cells, 3))
    return picture.resize((cells * zoom, cells * zoom), PIL.Image.Resampling.NEAREST)


def _draw_bars(board: Board, row: StepRow, left: float, middle: float) -> None:
    """Draw the similarity of each candidate on a scale from 0 to 1, with the threshold across each bar."""
    candidates = row.candidates[:3]
    if not candidates:
        board.text((left, middle), "the gallery is empty", 15, _SOFT, anchor="lm")
        return
    width = _BARS - 56
    mark = left + width * min(1.0, max(0.0, row.threshold))
    top = middle - 26 * len(candidates)
    for place, candidate in enumerate(candidates):
        y = top + 52 * place
        ink = INK if place == 0 else _SOFT
        board.text((left, y + 12), candidate.person, 15, ink, bold=place == 0, width=width)
        board.plate(left, y + 21, width, 12, _EMPTY, 6)
        share = min(1.0, max(0.0, candidate.similarity))
        if share > 0.0:
            passes = candidate.similarity >= row.threshold
            board.plate(left, y + 21, max(6.0, width * share), 12, _STEPS[2] if passes else _BELOW, 6)
        board.plate(mark - 1, y + 18, 2, 18, INK, 0)
        board.text((left + width + 12, y + 32), f"{candidate.similarity:.2f}", 15, ink)
    board.text((mark, top + 52 * len(candidates) + 4), f"threshold {row.threshold:.2f}", 13, _SOFT, anchor="ms")


def _draw_verdict(board: Board, row: StepRow, left: float, middle: float) -> None:
    assert row.status is not None
    if row.person is not None:
        lines = wrapped(row.person, _VERDICT - 36, 21)[:2]
    elif row.status is Status.AMBIGUOUS:
        first, *others = [candidate.person for candidate in row.candidates[:2]]
        lines = [first, *(f"or {other}?" for other in others)]
    else:
        lines = ["a stranger"]
    sure = None if row.person is None else row.probability
    height = 58 + 27 * len(lines) + (24 if sure is not None else 0)
    top = middle - height / 2
    board.plate(left, top, _VERDICT, height, STATUS_COLOURS[row.status], 14)
    board.text((left + 18, top + 32), str(row.status), 14, WHITE)
    for place, line in enumerate(lines):
        board.text((left + 18, top + 60 + 27 * place), line, 21, WHITE, bold=True, width=_VERDICT - 36)
    if sure is not None:
        board.text((left + 18, top + height - 18), f"{percent(sure)} sure", 15, WHITE)
