"""Step 1, second and third network: RNet refines what PNet proposed, ONet confirms it and gives five landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from facepipe.detect.boxes import contenders, nms, nms_contained, regress, square
from facepipe.detect.options import DetectOptions
from facepipe.detect.work import Candidates, Work, cut
from facepipe.types import Float32

if TYPE_CHECKING:
    from facepipe.models.cascade import CascadeNetworks

#: How far a rough logit may be from the exact one (`CascadeNetworks.finish_roughly`).
_DOUBT = 0.3


def refine(
    networks: CascadeNetworks, works: Sequence[Work], candidates: Candidates, options: DetectOptions
) -> Candidates:
    """Return the candidates that RNet takes for faces, squares where it sees them."""
    crops, candidates = cut(works, candidates, 24, true_border=options.true_border)
    if not len(candidates):
        return candidates
    scores, offsets = networks.refine(crops, options.thresholds[1])
    passed = scores > options.thresholds[1]
    offsets = offsets[passed]
    candidates = Candidates(candidates.boxes[passed], scores[passed], candidates.image[passed])
    keep = np.concatenate(
        [
            rows[nms(candidates.boxes[rows], candidates.scores[rows], None, 0.7)]
            for rows in (np.flatnonzero(candidates.image == index) for index in range(len(works)))
        ]
    )
    kept = candidates.take(keep)
    return Candidates(square(regress(kept.boxes, offsets[keep], plus=1.0)), kept.scores, kept.image)


def finish(
    networks: CascadeNetworks, works: Sequence[Work], candidates: Candidates, options: DetectOptions
) -> tuple[Candidates, Float32]:
    """Return the candidates that ONet takes for faces, and their landmarks, float32 (n, 5, 2) in working pixels."""
    crops, candidates = cut(works, candidates, 48, true_border=options.true_border)
    threshold = options.thresholds[2]
    if len(candidates):
        crops, candidates = _contenders(networks, crops, candidates, threshold)
    if not len(candidates):
        return candidates, np.zeros((0, 5, 2), np.float32)
    scores, offsets, points = networks.finish(crops, 0.0)
    passed = scores > threshold
    boxes, offsets, points = candidates.boxes[passed], offsets[passed], points[passed]
    extent = boxes[:, 2:] - boxes[:, :2] + 1
    landmarks = points * extent[:, None, :] + boxes[:, None, :2] - 1
    found = Candidates(regress(boxes, offsets, plus=1.0), scores[passed], candidates.image[passed])
    keep = nms_contained(found.boxes, found.scores, found.image, 0.7)
    # A box turned inside out by its regression is not a face.
    keep = keep[(found.boxes[keep, 0] < found.boxes[keep, 2]) & (found.boxes[keep, 1] < found.boxes[keep, 3])]
    return found.take(keep), landmarks[keep].astype(np.float32)


def _contenders(
    networks: CascadeNetworks, crops: Float32, candidates: Candidates, threshold: float
) -> tuple[Float32, Candidates]:
    """Keep the candidates that can become faces, as far as a rough score tells: most of the others are the same face again."""
    rough = networks.finish_roughly(crops)
    if rough is None:
        return crops, candidates
    scores, offsets = rough
    logits = np.log(np.maximum(scores, 1e-7)) - np.log(np.maximum(1 - scores, 1e-7))
    rows = np.flatnonzero(logits >= np.log(threshold / (1 - threshold)) - _DOUBT)
    boxes = regress(candidates.boxes[rows], offsets[rows], plus=1.0)
    keep = np.sort(rows[contenders(boxes, logits[rows], candidates.image[rows], 0.7, 2 * _DOUBT)])
    return crops[keep], candidates.take(keep)
