"""What step 1 has on its bench: pictures made ready, the candidates that are left in them, and their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facepipe.detect.boxes import clip, to_pixels
from facepipe.detect.edges import EdgeMap, edge_map
from facepipe.detect.levels import CELL
from facepipe.detect.options import DetectOptions
from facepipe.detect.pyramid import crop_area, integral_image, pyramid_scales, resize_area
from facepipe.types import Float32, Image, Int64, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A picture on the bench: its sums, its finest pyramid level, and where its edges are."""

    height: int
    width: int
    scale: float  # working pixels per displayed pixel
    integral: NDArray[np.int32]
    scales: list[float]
    finest: Float32
    edges: EdgeMap


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Boxes of all pictures, float32 (n, 4) in working pixels; scores (n,); image: int64 (n,), which picture."""

    boxes: Float32
    scores: Float32
    image: Int64

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, keep: NDArray[np.integer] | NDArray[np.bool_]) -> Candidates:
        """Return some of them: their numbers, or which (n,)."""
        return Candidates(self.boxes[keep], self.scores[keep], self.image[keep])


def prepare(image: Image, options: DetectOptions) -> Work:
    """Reduce a picture, sum it, and find its edges."""
    rgb = _reduce(image.rgb, options.max_side)
    height, width = rgb.shape[:2]
    integral = integral_image(rgb)
    ratio = width / image.width
    smallest = options.min_face * max(min(1.0, ratio), options.factor)
    scales = pyramid_scales(height, width, max(smallest, CELL), options.factor)
    base = scales[0] if scales else 1.0
    finest = resize_area(integral, int(height * base + 1), int(width * base + 1))
    grey = np.ascontiguousarray(finest @ np.array([0.299, 0.587, 0.114], np.float32))
    return Work(height, width, ratio, integral, scales, finest, edge_map(grey, base))


def _reduce(rgb: UInt8, max_side: int | None) -> UInt8:
    longer = max(rgb.shape[:2])
    if max_side is None or longer <= max_side:
        return rgb
    ratio = max_side / longer
    size = (max(1, round(rgb.shape[1] * ratio)), max(1, round(rgb.shape[0] * ratio)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def cut(
    works: Sequence[Work], candidates: Candidates, size: int, *, true_border: bool = True, black: bool = False
) -> tuple[Float32, Candidates]:
    """Cut all candidates, at the border or with black beyond it; those that lie outside their picture drop out.

    Returns crops, float32 (n, size, size, 3), about -1..1 as MTCNN was trained. true_border: see `DetectOptions`.
    """
    heights = np.array([work.height for work in works], np.int64)[candidates.image]
    widths = np.array([work.width for work in works], np.int64)[candidates.image]
    pixels = to_pixels(candidates.boxes)
    inner = clip(pixels, widths, heights)
    inside = (inner[:, 0] < inner[:, 2]) & (inner[:, 1] < inner[:, 3])
    candidates, pixels, inner = candidates.take(inside), pixels[inside], inner[inside]
    if not black:
        if true_border:
            at_border = (inner != pixels).any(axis=1, keepdims=True)
            boxes = np.where(at_border, inner + np.array([1, 1, 0, 0]), candidates.boxes).astype(np.float32)
            candidates = Candidates(boxes, candidates.scores, candidates.image)
        pixels = inner
    crops = np.empty((len(candidates), size, size, 3), np.float32)
    for index in np.unique(candidates.image):
        rows = np.flatnonzero(candidates.image == index)
        crops[rows] = crop_area(works[index].integral, pixels[rows], size)
    return normalise(crops), candidates


def normalise(pixels: Float32) -> Float32:
    """Bring 0..255 to about -1..1 in place, as MTCNN was trained."""
    pixels -= 127.5
    pixels *= 0.0078125
    return pixels
