"""Rectangles of many sizes laid out on sheets of one size.

Pyramid levels have as many sizes as there are photos. A library that compiles its kernels for each size that it meets spends
time on that and keeps them for a while: they pin the heap between arrays that come and go, and a long batch grows. On sheets it
meets few sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Height and width of a full sheet: what a network of ten channels makes of it stays below 4 MiB, so on the heap (`batch.allocator`).
SIDE = 320
#: A sheet that is not full is cut to multiples of this.
_STEP = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rectangle lies on its sheet. number: which of them; y, x: its corner, both even."""

    number: int
    y: int
    x: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """What lies on a sheet, which need not be larger than height and width."""

    places: list[Place]
    height: int
    width: int


def tiles(height: int, width: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a rectangle into pieces that fit a sheet: x1, y1, x2, y2 of each.

    Neighbours overlap by so many pixels, an even number: every square of up to two more lies in one of them.
    """
    step = SIDE - overlap
    for y in range(0, max(1, height - overlap), step):
        for x in range(0, max(1, width - overlap), step):
            yield x, y, min(x + SIDE, width), min(y + SIDE, height)


def lay_out(sizes: Sequence[tuple[int, int]]) -> list[Sheet]:
    """Place rectangles of these heights and widths, none larger than a sheet, in rows, tallest first."""
    sheets: list[Sheet] = []
    places: list[Place] = []
    y = x = row = widest = 0
    for number in sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True):
        height, width = (size + size % 2 for size in sizes[number])
        if x + width > SIDE:
            y, x, row = y + row, 0, 0
        if y + height > SIDE:
            sheets.append(_sheet(places, y, widest))
            places, y, x, row, widest = [], 0, 0, 0, 0
        places.append(Place(number, y, x))
        x, row = x + width, max(row, height)
        widest = max(widest, x)
    if places:
        sheets.append(_sheet(places, y + row, widest))
    return sheets


def _sheet(places: list[Place], height: int, width: int) -> Sheet:
    return Sheet(places, -(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP)
