"""Step 1, first network: PNet over what the edge map leaves of the pyramid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facepipe.detect.boxes import nms, regress, square
from facepipe.detect.edges import search_region
from facepipe.detect.levels import CELL, STRIDE, Batch, Level, by_size, cells, on_mosaics
from facepipe.detect.options import DetectOptions
from facepipe.detect.pyramid import resize_area
from facepipe.detect.work import Candidates, Work, normalise
from facepipe.types import Float32, Int64

if TYPE_CHECKING:
    from facepipe.models.cascade import CascadeNetworks

#: A region that is more of its level than this is not cut out: levels of the same size share batches.
_WORTH = 0.8


def levels_of(index: int, work: Work, edge_gate: bool = True) -> Iterator[Level]:
    """Yield a picture's pyramid, of each level the part in which its edges leave room for a face. index: the picture's number."""
    for number, scale in enumerate(work.scales):
        height, width = int(work.height * scale + 1), int(work.width * scale + 1)
        x1, y1, x2, y2 = 0, 0, width, height
        if edge_gate:
            region = search_region(work.edges.windows(scale, int(cells(height)), int(cells(width))))
            if region is None:
                continue
            # A window at the border may be cut by the picture; what is left of it belongs to the level.
            right = width if region[2] >= width - STRIDE else region[2]
            bottom = height if region[3] >= height - STRIDE else region[3]
            if (right - region[0]) * (bottom - region[1]) <= _WORTH * width * height:
                x1, y1, x2, y2 = *region[:2], right, bottom
        if number == 0:
            pixels = work.finest[y1:y2, x1:x2]
        else:
            pixels = resize_area(work.integral, height, width, (x1, y1, x2, y2))
        yield Level(index, scale, pixels, (x1, y1))


class Windows(NamedTuple):
    """What PNet took for faces: boxes and offsets, float32 (n, 8), scores (n,), which picture (n,), scale of the level (n,)."""

    boxes: Float32
    scores: Float32
    image: Int64
    scale: NDArray[np.float64]


def propose(networks: CascadeNetworks, works: Sequence[Work], options: DetectOptions) -> Candidates:
    """Return PNet's candidates, squares."""
    levels = [level for index, work in enumerate(works) for level in levels_of(index, work, options.edge_gate)]
    return suppress(windows_of(networks, levels, options.thresholds[0]), len(works))


def windows_of(networks: CascadeNetworks, levels: Sequence[Level], threshold: float) -> Windows:
    """Return all windows that are a face with at least this probability."""
    laid_out = on_mosaics if networks.mixes_sizes else by_size
    found = [_windows_of(networks, batch, threshold) for batch in laid_out(levels, networks.batch_pixels)]
    if not found:
        return Windows(np.zeros((0, 8), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0))
    return Windows(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _windows_of(networks: CascadeNetworks, batch: Batch, threshold: float) -> Windows:
    count, height, width = batch.shape
    pictures = np.full((count, height, width, 3), 127.5, np.float32)
    # Which level each window belongs to; -1: none, it lies across a border.
    owner = np.full((count, cells(height), cells(width)), -1, np.int64)
    ends = np.array([level.pixels.shape[:2] for level in batch.levels], np.int64) + batch.places[:, 1:]
    for number, (level, (picture, y1, x1), (y2, x2)) in enumerate(
        zip(batch.levels, batch.places.tolist(), ends.tolist(), strict=True)
    ):
        pictures[picture, y1:y2, x1:x2] = level.pixels
        owner[picture, y1 // STRIDE : int(cells(y2)), x1 // STRIDE : int(cells(x2))] = number
    normalise(pictures)
    mixed = networks.mixes_sizes
    logits, offsets = networks.propose(pictures, np.hstack([batch.places, ends]) if mixed else None)
    picture, y, x = np.nonzero((logits >= np.log(threshold / (1 - threshold))) & (owner >= 0))
    which = owner[picture, y, x]
    scores = 1.0 / (1.0 + np.exp(-logits[picture, y, x]))
    corners = (np.array([level.corner for level in batch.levels]) - batch.places[:, :0:-1])[which]
    scale = np.array([level.scale for level in batch.levels])[which]
    cell = np.stack([x, y], axis=1) * STRIDE + corners
    # The cell's window in the picture, rounded down in float32 as in MTCNN's training code, then moved by the offsets.
    divisor = scale.astype(np.float32)[:, None]
    corner = np.floor((cell + 1).astype(np.float32) / divisor)
    boxes = np.concatenate([corner, np.floor((cell + CELL).astype(np.float32) / divisor)], axis=1)
    packed = np.concatenate([boxes, offsets[picture, :, y, x]], axis=1).astype(np.float32)
    image = np.array([level.image for level in batch.levels], np.int64)[which]
    return Windows(packed, scores.astype(np.float32), image, scale)


def suppress(windows: Windows, count: int) -> Candidates:
    """Return of windows that overlap the best one, in each level and then over all of a picture's, moved by its offsets."""
    keep: list[Int64] = [np.zeros(0, np.int64)]
    for index in range(count):
        rows = np.flatnonzero(windows.image == index)
        _, level = np.unique(windows.scale[rows], return_inverse=True)
        rows = rows[nms(windows.boxes[rows, :4], windows.scores[rows], level.astype(np.int64), 0.5)]
        keep.append(rows[nms(windows.boxes[rows, :4], windows.scores[rows], None, 0.7)])
    rows = np.concatenate(keep)
    boxes = square(regress(windows.boxes[rows, :4], windows.boxes[rows, 4:], plus=0.0))
    return Candidates(boxes, windows.scores[rows], windows.image[rows])
