"""What all drawn pictures share: the font, the colours of the answers, and labels that can be read on any background."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from facepipe.errors import UsageError
from facepipe.images.fonts import font_file
from facepipe.text import printable

Colour = tuple[int, int, int]

#: Of each answer; white text on it has a contrast of at least 4.5, and the three differ for colour-blind eyes as well.
STATUS_COLOURS: dict[str, Colour] = {"known": (17, 122, 72), "ambiguous": (176, 86, 0), "unknown": (55, 88, 140)}
#: Of an unknown face that is probably somebody; its frame is dashed, too.
MAYBE: Colour = (126, 58, 146)
NEUTRAL: Colour = (17, 110, 130)
WHITE: Colour = (255, 255, 255)
INK: Colour = (24, 28, 36)


class Rectangle(NamedTuple):
    """Corners in pixels; left and top inside, right and bottom just outside."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Rectangle) -> bool:
        """Say whether the two share a pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def font(text: str, size: int, *, bold: bool = False) -> PIL.ImageFont.FreeTypeFont:
    """Return a font that has the characters of a text, at a size in pixels; see `fonts.font_file`. Errors: UsageError."""
    return _loaded(font_file(text, bold=bold), size)


@cache
def _loaded(path: Path, size: int) -> PIL.ImageFont.FreeTypeFont:
    try:
        return PIL.ImageFont.truetype(str(path), size)
    except OSError as error:
        raise UsageError(f"FACEPIPE_FONT: {printable(path)} is not a font file; name a .ttf, .otf or .ttc") from error


#: Text and the font that has its characters.
Piece = tuple[str, PIL.ImageFont.FreeTypeFont]


def measured(pieces: Sequence[Piece]) -> float:
    """Return the width in pixels of pieces of text that are drawn one after another."""
    return sum(face.getlength(piece) for piece, face in pieces)


def fitted(text: str, face: PIL.ImageFont.FreeTypeFont, width: float) -> str:
    """Return the text, shortened with an ellipsis to at most `width` pixels; empty when not even that fits."""
    text = printable(text)
    if face.getlength(text) <= width:
        return text
    ends = range(1, len(text) + 1)
    kept = bisect.bisect_right(ends, width, key=lambda end: face.getlength(text[:end].rstrip() + "…"))
    return text[:kept].rstrip() + "…" if kept else ""


def place_label(
    size: tuple[int, int], box: Rectangle, label: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """Return where a label of (width, height) goes: by its box, in a picture of (width, height), off what is taken.

    Tried in turn: above the box, below it, inside at the top, inside at the bottom, each from the left and from the right
    edge; where all are taken, the first. None when the picture is smaller than the label.
    """
    width, height = label
    if width > size[0] or height > size[1]:
        return None
    places: list[Rectangle] = []
    for top in (box.top - height, box.bottom, box.top, box.bottom - height):
        for left in (box.left, box.right - width):
            inside = min(max(left, 0), size[0] - width)
            if 0 <= top <= size[1] - height:
                places.append(Rectangle(inside, top, inside + width, top + height))
    if not places:
        left, top = min(max(box.left, 0), size[0] - width), min(max(box.top, 0), size[1] - height)
        return Rectangle(left, top, left + width, top + height)
    return next((place for place in places if not any(place.overlaps(other) for other in taken)), places[0])


def draw_box(draw: PIL.ImageDraw.ImageDraw, box: Rectangle, colour: Colour, line: int, *, dashed: bool = False) -> None:
    """Draw a frame that is seen on any background: the colour between two thin white lines; dashed: with white gaps."""
    casing = max(1, line // 3)
    for grow, shade, width in ((casing, WHITE, line + 2 * casing), (0, colour, line)):
        left, top, right, bottom = box.left - grow, box.top - grow, box.right - 1 + grow, box.bottom - 1 + grow
        if right - left >= 2 * width and bottom - top >= 2 * width:
            radius = max(2 * line, min(right - left, bottom - top) // 14)
            draw.rounded_rectangle((left, top, right, bottom), radius, outline=shade, width=width)
        else:
            draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=shade)
    if dashed:
        corner = max(2 * line, min(box.right - box.left, box.bottom - box.top) // 14)
        for first, last in _gaps(box.left + corner, box.right - corner, line):
            for top in (box.top, box.bottom - line):
                draw.rectangle((first, top, last, top + line - 1), fill=WHITE)
        for first, last in _gaps(box.top + corner, box.bottom - corner, line):
            for left in (box.left, box.right - line):
                draw.rectangle((left, first, left + line - 1, last), fill=WHITE)


def _gaps(start: int, end: int, line: int) -> list[tuple[int, int]]:
    """Return the first and last pixel of the gaps in a side, straight from start to just before end; none where it is short."""
    count = max(1, (end - start) // (8 * line))
    length = (end - start) / (2 * count - 1)
    places = [(round(start + 2 * gap * length), round(start + (2 * gap + 1) * length) - 1) for gap in range(count)]
    return [(first, last) for first, last in places if last >= first]


def draw_label(
    draw: PIL.ImageDraw.ImageDraw,
    place: Rectangle,
    pieces: Sequence[Piece],
    colour: Colour,
) -> None:
    """Draw white text, piece by piece from left to right, on a filled plate."""
    corners = (place.left, place.top, place.right - 1, place.bottom - 1)
    draw.rounded_rectangle(corners, max(2, (place.bottom - place.top) // 5), fill=colour)
    x = (place.left + place.right - measured(pieces)) / 2
    for piece, face in pieces:
        draw.text((x, (place.top + place.bottom) / 2), piece, WHITE, face, anchor="lm")
        x += face.getlength(piece)
