"""Boxes as fractions of a picture's width and height, turned as EXIF turns the picture, and compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: x1, y1, x2, y2 as fractions of width and height.
Box = tuple[float, float, float, float]

#: A face lies in a region from this IoU on: boxes of other programs take in hair and chin, and have twice our sides.
SAME_FACE = 0.2


@dataclass(frozen=True, slots=True)
class Frame:
    """A photo's stored width and height, and the EXIF turn, 1..8, that displays it."""

    width: int
    height: int
    turn: int = 1

    @property
    def displayed(self) -> tuple[int, int]:
        """Width and height as displayed."""
        return (self.height, self.width) if self.turn >= 5 else (self.width, self.height)


def shown(box: Box, turn: int) -> Box:
    """Return a box of the stored picture as it lies in the displayed one. turn: EXIF orientation, 1..8."""
    x1, y1, x2, y2 = box
    if turn in {5, 6, 7, 8}:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if turn in {3, 4, 7, 8}:
        y1, y2 = 1 - y2, 1 - y1
    if turn in {2, 3, 6, 7}:
        x1, x2 = 1 - x2, 1 - x1
    return x1, y1, x2, y2


def stored(box: Box, turn: int) -> Box:
    """Return a box of the displayed picture as it lies in the stored one: what `shown` turns back."""
    # Mirrored and half-turned pictures are their own opposites; of the quarter turns 6 and 8 are each other's.
    return shown(box, {6: 8, 8: 6}.get(turn, turn))


def clipped(box: Box) -> Box | None:
    """Return the part of a box that lies in the picture; None when there is none."""
    x1, y1, x2, y2 = (min(1.0, max(0.0, value)) for value in box)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def iou(a: Box, b: Box) -> float:
    """Return the area that two boxes share, over the area that they cover."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


def assigned(regions: Sequence[Box], faces: Sequence[Box]) -> list[int | None]:
    """Return for each region the face that lies in it, None for none: the best pairs first, each face once.

    A face lies in a region when their IoU is `SAME_FACE` or more and its middle is in the region.
    """
    pairs = [
        (-overlap, row, number)
        for row, region in enumerate(regions)
        for number, face in enumerate(faces)
        if (overlap := iou(region, face)) >= SAME_FACE and _holds(region, face)
    ]
    found: list[int | None] = [None] * len(regions)
    for _, row, number in sorted(pairs):
        if found[row] is None and number not in found:
            found[row] = number
    return found


def fit(regions: Sequence[Box], faces: Sequence[Box]) -> float:
    """Return how well regions fit the faces of a picture, 0 to their number: each by the face that it overlaps most."""
    return sum(max((iou(region, face) for face in faces), default=0.0) for region in regions)


def _holds(region: Box, face: Box) -> bool:
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    return region[0] <= x <= region[2] and region[1] <= y <= region[3]
