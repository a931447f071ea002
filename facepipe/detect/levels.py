"""Pyramid levels on their way to MTCNN's first network: cut to pieces, laid out, in batches of few sizes.

Pyramid levels have as many sizes as there are photos. A library that compiles its kernels for each size that it meets spends
time on that and keeps them for a while: they pin the heap between arrays that come and go, and a long batch grows. In mosaics it
meets few sizes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from facepipe.types import Float32, Int64

#: Side of the network's windows, and their distance, in level pixels.
CELL, STRIDE = 12, 2
#: Height and width of a full mosaic: what a network of ten channels makes of it stays below 4 MiB, so on the heap.
SIDE = 320
#: A mosaic that is not full is cut to multiples of this.
_STEP = 64


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A part of a pyramid level that PNet is to look at; corner: where it lies in the level, x and y in level pixels."""

    image: int
    scale: float
    pixels: Float32
    corner: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Levels in pictures of one shape: count, height, width. places: int64 (levels, 3), picture, y and x of each corner."""

    shape: tuple[int, int, int]
    levels: list[Level]
    places: Int64


def by_size(levels: Sequence[Level], batch_pixels: int) -> Iterator[Batch]:
    """Yield batches of levels of the same size."""
    groups: dict[tuple[int, int], list[Level]] = defaultdict(list)
    for level in levels:
        groups[level.pixels.shape[0], level.pixels.shape[1]].append(level)
    for (height, width), same in groups.items():
        at_once = max(1, batch_pixels // (height * width))
        for start in range(0, len(same), at_once):
            some = same[start : start + at_once]
            yield Batch((len(some), height, width), some, np.array([(n, 0, 0) for n in range(len(some))]))


def on_mosaics(levels: Sequence[Level], batch_pixels: int) -> Iterator[Batch]:
    """Yield batches of mosaics with levels of all sizes on them; what is larger than a mosaic is cut to pieces."""
    parts = [
        replace(level, pixels=level.pixels[y1:y2, x1:x2], corner=(level.corner[0] + x1, level.corner[1] + y1))
        for level in levels
        for x1, y1, x2, y2 in tiles(level.pixels.shape[0], level.pixels.shape[1], CELL - STRIDE)
    ]
    mosaics = lay_out([(part.pixels.shape[0], part.pixels.shape[1]) for part in parts])
    at_once = max(1, batch_pixels // SIDE**2)
    for start in range(0, len(mosaics), at_once):
        some = mosaics[start : start + at_once]
        shape = len(some), max(mosaic.height for mosaic in some), max(mosaic.width for mosaic in some)
        on = [(place.number, number, place.y, place.x) for number, mosaic in enumerate(some) for place in mosaic.places]
        yield Batch(shape, [parts[number] for number, *_ in on], np.array([place for _, *place in on]))


def cells(length: Int64 | int) -> Int64:
    """Return how many windows PNet has along a level of this length."""
    return np.asarray(-(-(np.asarray(length, np.int64) - 2) // 2) - 4, np.int64)


class Place(NamedTuple):
    """Where a rectangle lies on its mosaic. number: which of them; y, x: its corner, both even."""

    number: int
    y: int
    x: int


class Mosaic(NamedTuple):
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
