"""Area resampling from one integral image: every pyramid level and every crop of a picture comes out of the same sums.

The bins are those of adaptive average pooling (bin i of n over a length L covers floor(i L / n) up to ceil((i+1) L / n)),
which is what `torch.nn.functional.interpolate(mode="area")` computes; MTCNN was converted and is judged with it, and its
boxes follow the resampling closely.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from facepipe.detect.levels import CELL
from facepipe.images.memory import room
from facepipe.types import Float32, Int64, UInt8


def integral_image(rgb: UInt8) -> NDArray[np.int32]:
    """Return the sums over all pixels above and to the left: int32 (H + 1, W + 1, 3), modulo 2**32.

    In large pictures they wrap around, and so do the differences from which sums over boxes come: those are exact for boxes of up
    to 8 megapixels, and no bin of a level or a crop is nearly as large.
    """
    height, width = rgb.shape[:2]
    sums = room((height + 1, width + 1, 3), np.int32)
    return np.asarray(cv2.integral(np.ascontiguousarray(rgb), sums, sdepth=cv2.CV_32S), np.int32)


def _bins(length: Int64 | int, count: int) -> tuple[Int64, Int64]:
    """Return first and last-plus-one index of each bin, (..., count) each, for lengths (...)."""
    index = np.arange(count, dtype=np.int64)
    lengths = np.asarray(length, np.int64)[..., None]
    return index * lengths // count, -((-(index + 1) * lengths) // count)


#: Rows of a level that are made at a time: what is needed in between stays in the cache of a core. All at once takes three times as
#: long.
_ROWS = 16


def resize_area(
    integral: NDArray[np.int32], height: int, width: int, region: tuple[int, int, int, int] | None = None
) -> Float32:
    """Resample the whole picture to (height, width, 3) float32, 0..255.

    region: x1, y1, x2, y2 in output pixels, to compute only that part of the result.
    """
    x1, y1, x2, y2 = region or (0, 0, width, height)
    top, bottom = (edge[y1:y2] for edge in _bins(integral.shape[0] - 1, height))
    left, right = (edge[x1:x2] for edge in _bins(integral.shape[1] - 1, width))
    area = ((bottom - top)[:, None] * (right - left)[None, :]).astype(np.float32)
    level = np.empty((y2 - y1, x2 - x1, 3), np.float32)
    for start in range(0, y2 - y1, _ROWS):
        band = slice(start, start + _ROWS)
        # `take` on one axis after the other: twice as fast as fancy indexing.
        rows = integral.take(bottom[band], axis=0)
        rows -= integral.take(top[band], axis=0)
        sums = rows.take(right, axis=1)
        sums -= rows.take(left, axis=1)
        np.divide(sums, area[band, :, None], out=level[band], casting="same_kind")
    return level


#: Pixels of crops that are cut at a time: what is needed in between stays in the cache of a core, and is small beside the crops.
_AT_ONCE = 40_000


def crop_area(integral: NDArray[np.int32], boxes: Int64, size: int) -> Float32:
    """Resample boxes to (n, size, size, 3) float32, 0..255.

    boxes: int64 (n, 4), x1 y1 x2 y2, last-plus-one, not empty. What lies outside the picture is black.
    """
    crops = np.empty((len(boxes), size, size, 3), np.float32)
    step = max(1, _AT_ONCE // size**2)
    for start in range(0, len(boxes), step):
        _crop_some(integral, boxes[start : start + step], crops[start : start + step])
    return crops


def _crop_some(integral: NDArray[np.int32], boxes: Int64, out: Float32) -> None:
    size = out.shape[1]
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    left, right = _bins(boxes[:, 2] - boxes[:, 0], size)
    top, bottom = _bins(boxes[:, 3] - boxes[:, 1], size)
    area = ((bottom - top)[:, :, None] * (right - left)[:, None, :]).astype(np.float32)
    # Bins are cut off at the border but still divided by their whole area: the missing pixels count as 0.
    left, right = (np.clip(edge + boxes[:, :1], 0, width) for edge in (left, right))  # (n, size)
    top, bottom = (np.clip(edge + boxes[:, 1:2], 0, height) for edge in (top, bottom))
    # One flat gather for each corner: `take` on (pixels, 3) is several times faster than two-dimensional fancy indexing.
    stride = integral.shape[1]
    flat = integral.reshape(-1, 3)
    rows_top, rows_bottom = (top * stride)[:, :, None], (bottom * stride)[:, :, None]
    columns_left, columns_right = left[:, None, :], right[:, None, :]
    sums = flat.take(rows_bottom + columns_right, axis=0)
    sums -= flat.take(rows_top + columns_right, axis=0)
    sums -= flat.take(rows_bottom + columns_left, axis=0)
    sums += flat.take(rows_top + columns_left, axis=0)
    out[...] = sums
    out /= area[..., None]


#: MTCNN's usual smallest face, in pixels: its pyramid's sizes are this one and those that follow from it by the factor.
_USUAL_FACE = 20.0


def pyramid_scales(height: int, width: int, min_face: float, factor: float) -> list[float]:
    """Return the scales at which PNet's windows see faces from `min_face` pixels up to the whole picture.

    A min_face that is less than 3 % above a size of MTCNN's usual pyramid (40 above 39.8) is taken as that size: which doubtful
    faces are found depends on the scales, and so they are the same as in other programs.
    """
    step = math.floor(math.log(max(min_face, _USUAL_FACE) / _USUAL_FACE) / -math.log(factor) + 1e-9)
    usual = _USUAL_FACE / factor**step
    if usual <= min_face < 1.03 * usual:
        min_face = usual
    scale = CELL / min_face
    shorter = min(height, width) * scale
    scales = []
    while shorter >= CELL:
        scales.append(scale)
        scale *= factor
        shorter *= factor
    return scales
