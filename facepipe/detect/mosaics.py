"""Rectangles of many sizes laid out side by side in mosaics of one size.

Pyramid levels have as many sizes as there are photos. A library that compiles its kernels for each size that it meets spends
time on that and keeps them for a while: they pin the heap between arrays that come and go, and a long batch grows. In mosaics it
meets few sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Height and width of a full mosaic: what a network of ten channels makes of it stays below 4 MiB, so on the heap.
SIDE = 320
#: A mosaic that is not full is cut to multiples of this.
_STEP = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rectangle lies on its mosaic. number: which of them; y, x: its corner, both even."""

    number: int
    y: int
    x: int


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The rectangles of one mosaic, which needs no more than height and width."""

    places: list[Place]
    height: int
    width: int


def tiles(height: int, width: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a rectangle into pieces that fit a mosaic: x1, y1, x2, y2 of each.

    Neighbours overlap by so many pixels, an even number: every square of up to two more lies in one of them.
    """
    step = SIDE - overlap
    for y in range(0, max(1, height - overlap), step):
        for x in range(0, max(1, width - overlap), step):
            yield x, y, min(x + SIDE, width), min(y + SIDE, height)


def lay_out(sizes: Sequence[tuple[int, int]]) -> list[Mosaic]:
    """Place rectangles of these heights and widths, none larger than a mosaic, in rows, tallest first."""
    mosaics: list[Mosaic] = []
    places: list[Place] = []
    y = x = row = widest = 0
    for number in sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True):
        height, width = (size + size % 2 for size in sizes[number])
        if x + width > SIDE:
            y, x, row = y + row, 0, 0
        if y + height > SIDE:
            mosaics.append(_cropped(places, y, widest))
            places, y, x, row, widest = [], 0, 0, 0, 0
        places.append(Place(number, y, x))
        x, row = x + width, max(row, height)
        widest = max(widest, x)
    if places:
        mosaics.append(_cropped(places, y + row, widest))
    return mosaics


def _cropped(places: list[Place], height: int, width: int) -> Mosaic:
    return Mosaic(places, -(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP)
