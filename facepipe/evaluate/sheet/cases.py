"""The worst cases as pictures: pairs of faces with their score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facepipe.errors import ImageError
from facepipe.evaluate.identify_report import Case
from facepipe.images import read_image
from facepipe.types import Float32, UInt8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels of a face's picture.
_SIDE = 112


def draw_cases(figure: Figure, place: Any, title: str, cases: Sequence[Case], colour: str) -> None:
    """Draw picture pairs in a row of six, each with its score."""
    inner = place.subgridspec(1, 6, wspace=0.10)
    for number, case in enumerate(cases[:6]):
        axes = figure.add_subplot(inner[0, number])
        gap = np.full((_SIDE, 3, 3), 255, np.uint8)
        sides = [_crop(case.first, case.first_box), gap, _crop(case.second, case.second_box)]
        axes.imshow(np.concatenate(sides, axis=1), interpolation="lanczos")
        axes.set_axis_off()
        axes.text(
            _SIDE, _SIDE + 5, f"{case.score:.3f}", ha="center", va="top", fontsize=10.5, fontweight="bold", color=colour
        )
        for x, path in ((0, case.first), (2 * _SIDE + 3, case.second)):
            axes.text(
                x, _SIDE + 24, _short(path), ha="left" if x == 0 else "right", va="top", fontsize=6.5, color="#555b63"
            )
        if number == 0:
            axes.set_title(title, pad=9)


def _short(path: Path) -> str:
    name = f"{path.parent.name}/{path.stem}" if not path.stem.startswith(path.parent.name) else path.stem
    return name if len(name) <= 25 else f"{name[:12]}…{name[-12:]}"


def _crop(path: Path, box: Float32 | None) -> UInt8:
    """Return a square picture of a face with some surroundings, grey where the photo cannot be read."""
    import cv2

    try:
        image = read_image(path, max_side=1280)
    except ImageError:
        return np.full((_SIDE, _SIDE, 3), 200, np.uint8)
    height, width = image.rgb.shape[:2]
    if box is None or box[2] <= box[0]:
        middle, half = np.asarray([width, height]) / 2.0, min(width, height) / 2.0
    else:
        scaled = box * image.scale
        middle, half = (scaled[:2] + scaled[2:]) / 2.0, float(max(scaled[2:] - scaled[:2])) * 0.68
    matrix = np.asarray([[2 * half / _SIDE, 0, middle[0] - half], [0, 2 * half / _SIDE, middle[1] - half]])
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    shrunk = cv2.warpAffine(image.rgb, matrix, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shrunk, dtype=np.uint8)
