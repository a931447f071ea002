"""The edge map: where in a picture, and at which sizes, a face can be at all.

A face has contours: eyes, brows, nostrils, mouth. A window with hardly a gradient in it (sky, wall, a blurred backdrop) holds
none, so no network needs to search it.

One region a level is what pays: a quarter of the windows in pictures of groups hold too few edges, but they lie scattered. Cutting
levels into several regions saves at most 5 % of the first network's pixels there, so 1 % of all time, and tiles cost more than they
save; candidates of the later networks nearly all have edges (`scripts/bench gate`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facepipe.detect.levels import CELL, STRIDE
from facepipe.types import Float32

#: A pixel is an edge when its gradient (Sobel, grey levels a pixel) is above this.
EDGE_GRADIENT = 8.0
#: A window is searched when at least this share of its pixels are edges.
MIN_DENSITY = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class EdgeMap:
    """Gradient magnitude of a picture and the running sums of its edges.

    magnitude: float32 (h, w), grey levels a pixel. sums: int32 (h + 1, w + 1), edges above and to the left.
    scale: map pixels per picture pixel.
    """

    magnitude: Float32
    sums: NDArray[np.int32]
    scale: float

    def density(self, boxes: NDArray[np.floating]) -> Float32:
        """Return the share of edge pixels, 0..1, in boxes (n, 4) given in picture pixels; parts outside do not count."""
        height, width = self.magnitude.shape
        scaled = np.asarray(boxes, np.float64) * self.scale
        x1, y1 = np.clip(np.floor(scaled[:, 0]), 0, width - 1), np.clip(np.floor(scaled[:, 1]), 0, height - 1)
        x2, y2 = np.clip(np.ceil(scaled[:, 2]), x1 + 1, width), np.clip(np.ceil(scaled[:, 3]), y1 + 1, height)
        x1, y1, x2, y2 = (edge.astype(np.int64) for edge in (x1, y1, x2, y2))
        inside = self.sums[y2, x2] - self.sums[y1, x2] - self.sums[y2, x1] + self.sums[y1, x1]
        return (inside / ((x2 - x1) * (y2 - y1))).astype(np.float32)

    def windows(self, scale: float, rows: int, columns: int) -> NDArray[np.bool_]:
        """Return which of PNet's windows at a pyramid scale hold enough edges to be searched: bool (rows, columns)."""
        height, width = self.magnitude.shape
        ratio = self.scale / scale
        y1 = np.minimum((np.arange(rows) * STRIDE * ratio).astype(np.int64), height - 1)
        x1 = np.minimum((np.arange(columns) * STRIDE * ratio).astype(np.int64), width - 1)
        side = max(1, round(CELL * ratio))
        y2, x2 = np.minimum(y1 + side, height), np.minimum(x1 + side, width)
        band = self.sums[y2] - self.sums[y1]
        inside = band[:, x2] - band[:, x1]
        area = (y2 - y1)[:, None] * (x2 - x1)[None, :]
        return np.asarray(inside >= MIN_DENSITY * area)


def edge_map(grey: Float32, scale: float) -> EdgeMap:
    """Compute the edges of a grey picture, float32 (h, w), 0..255; scale: its pixels per pixel of the original picture."""
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE)
    magnitude = np.asarray(cv2.magnitude(dx, dy), np.float32)
    edges = (magnitude > EDGE_GRADIENT).astype(np.uint8)
    return EdgeMap(magnitude, np.asarray(cv2.integral(edges, sdepth=cv2.CV_32S), np.int32), scale)


def search_region(windows: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return the part of a pyramid level that holds all windows with enough edges: x1, y1, x2, y2 in level pixels, None for none.

    The corner is even, so that PNet's pooling sees the same pixel pairs as in the whole level.
    """
    rows, columns = np.flatnonzero(windows.any(axis=1)) * STRIDE, np.flatnonzero(windows.any(axis=0)) * STRIDE
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + CELL, int(rows[-1]) + CELL
