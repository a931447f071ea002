"""Faces covered in a picture, so that nobody is recognised: solid, as a mosaic, or blurred.

A mosaic and a blur keep something of a face, and who has photos that were covered alike can search with it: `scripts/bench blur`
measures how often that works. Both keep the same few averages of the face, so that neither gives away more than the other, and no
filter can be undone. Solid keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import cv2
import numpy as np

from facepipe.types import Float32, UInt8

Style = Literal["solid", "mosaic", "blur"]
STYLES: tuple[Style, ...] = get_args(Style)

#: Room on each side of a face's box, as a share of its longer side: hair, ears and chin lie there, whichever way the head is turned.
MARGIN = 0.35
#: Averages along the longer side of a box that a mosaic or blur keeps.
CELLS = 4
#: The same for every face: a colour taken from the picture would tell something of the skin.
_COLOUR = 96


def covered(
    rgb: UInt8,
    boxes: Iterable[Sequence[float] | Float32],
    style: Style = "solid",
    *,
    margin: float = MARGIN,
    cells: int = CELLS,
) -> UInt8:
    """Return a copy of uint8 (H, W, 3) in which the boxes, x1 y1 x2 y2 in its pixels, are covered with a margin around them.

    margin: room on each side, as a share of a box's longer side. cells: averages along that side that a mosaic or blur keeps.
    """
    if style not in STYLES:
        raise ValueError(f"style: expected one of {', '.join(STYLES)}, got {style!r}")
    out = rgb.copy()
    for box in boxes:
        x1, y1, x2, y2 = region(box, rgb.shape[1], rgb.shape[0], margin)
        part = out[y1:y2, x1:x2]
        if not part.size:
            continue
        if style == "solid":
            part[:] = _COLOUR
            continue
        cell = max(box[2] - box[0], box[3] - box[1]) / cells
        few = (max(1, round((x2 - x1) / cell)), max(1, round((y2 - y1) / cell)))
        means = cv2.resize(part, few, interpolation=cv2.INTER_AREA)
        how = cv2.INTER_NEAREST if style == "mosaic" else cv2.INTER_CUBIC
        part[:] = cv2.resize(means, (x2 - x1, y2 - y1), interpolation=how)
    return out


def region(
    box: Sequence[float] | Float32, width: int, height: int, margin: float = MARGIN
) -> tuple[int, int, int, int]:
    """Return what is covered of a face: x1, y1, x2, y2 in whole pixels of a picture of this size; empty where it lies beside it."""
    left, top, right, bottom = map(float, box)
    room = margin * max(right - left, bottom - top)
    x1, y1 = (int(np.clip(np.floor(start - room), 0, most)) for start, most in ((left, width), (top, height)))
    x2, y2 = (int(np.clip(np.ceil(end + room), 0, most)) for end, most in ((right, width), (bottom, height)))
    return x1, y1, x2, y2
