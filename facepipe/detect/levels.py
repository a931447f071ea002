"""Pyramid levels on their way to MTCNN's first network: cut to pieces, laid out, in batches of few sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facepipe.detect.mosaics import SIDE, lay_out, tiles
from facepipe.types import Float32, Int64

#: Side of the network's windows, and their distance, in level pixels.
CELL, STRIDE = 12, 2


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
    parts = [part for level in levels for part in _tiles(level)]
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


def _tiles(level: Level) -> Iterator[Level]:
    """Cut a level into parts that fit a mosaic: every window of it lies in exactly one."""
    height, width = level.pixels.shape[:2]
    for x1, y1, x2, y2 in tiles(height, width, CELL - STRIDE):
        corner = level.corner[0] + x1, level.corner[1] + y1
        yield replace(level, pixels=level.pixels[y1:y2, x1:x2], corner=corner)
