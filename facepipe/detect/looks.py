"""Step 1, the second looks: what is a face convinces ONet more than once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from facepipe.detect.boxes import square
from facepipe.detect.options import DetectOptions
from facepipe.detect.work import Candidates, Work, cut
from facepipe.types import Float32

if TYPE_CHECKING:
    from facepipe.models.cascade import CascadeNetworks

#: The second looks at a face: size in sides of its box, and whether mirrored.
_LOOKS = ((1.0, False), (1.0, True), (1.15, False))
#: A face that may be turned the other way has this score at most. A picture with a face from the second number on is not asked about.
#: It is turned where a turned look convinces more by the third: so are 69 of 71, 75 of 78 and 70 of 74 faces that were found as if
#: they stood in pictures turned by 270, 180 and 90 degrees and are asked about, and one of 580 that stand.
_UNSETTLED, _SETTLED, _TURNED = 0.8, 0.97, 0.03


def second_looks(
    networks: CascadeNetworks, works: Sequence[Work], found: Candidates
) -> Iterator[tuple[Float32, Float32 | None]]:
    """Yield scores (n,) of each second look at faces, and landmarks, float32 (n, 5, 2), where it gives them exactly."""
    squares = square(found.boxes)
    side = squares[:, 2:3] - squares[:, :1]
    centre = (squares[:, :2] + squares[:, 2:]) / 2
    for grow, mirrored in _LOOKS:
        boxes = np.concatenate([centre - side * (grow / 2), centre + side * (grow / 2)], axis=1).astype(np.float32)
        crops, _ = cut(works, Candidates(boxes, found.scores, found.image), 48, black=True)
        if mirrored:
            crops = np.ascontiguousarray(crops[:, :, ::-1])
        if grow != 1.0:  # its landmarks are less exact, so that a rough look at its score is enough
            rough = networks.finish_roughly(crops)
            yield networks.finish(crops, 0.0)[0] if rough is None else rough[0], None
            continue
        score, _, unit = networks.finish(crops, 0.0)
        unit = _mirror(unit) if mirrored else unit
        yield score, unit * (boxes[:, None, 2:] - boxes[:, None, :2] + 1) + boxes[:, None, :2] - 1


def look_again(
    networks: CascadeNetworks, works: Sequence[Work], found: Candidates, landmarks: Float32, options: DetectOptions
) -> tuple[Candidates, Float32]:
    """Average score and landmarks over several looks at each face; drop the faces that do not convince on average.

    A face at the border keeps its first score: the networks have not seen as much black as its second looks hold. None of them
    lies outside the picture, since all are around the same centre.
    """
    scores, points = [found.scores], [landmarks]
    for score, point in second_looks(networks, works, found):
        scores.append(score)
        if point is not None:
            points.append(point)
    squares = square(found.boxes)
    sizes = np.array([(work.width, work.height) for work in works])[found.image]
    at_border = ((squares[:, :2] < 0) | (squares[:, 2:] > sizes)).any(axis=1)
    score = np.where(at_border, found.scores, np.mean(scores, axis=0)).astype(np.float32)
    if options.second_chance:  # nothing else asks whether a face may be turned the other way
        score = turned_looks(networks, works, Candidates(squares, score, found.image))
    sure = score >= options.min_score
    steady = np.asarray(np.mean(points, axis=0, dtype=np.float32))[sure]
    return Candidates(found.boxes, score, found.image).take(sure), steady


def turned_looks(networks: CascadeNetworks, works: Sequence[Work], found: Candidates) -> Float32:
    """Return the scores, lower where a face looks more like one when it is turned by 90, 180 or 270 degrees.

    The detector takes a face on its head for one that stands now and then, chin for forehead. It is hardly ever certain of that,
    so that pictures with a face of a very high score are not looked at again.
    """
    settled = np.isin(found.image, found.image[found.scores >= _SETTLED])
    rows = np.flatnonzero((found.scores > _UNSETTLED) & ~settled)
    if not rows.size:
        return found.scores
    crops, asked = cut(works, found.take(rows), 48, black=True)
    turned = np.concatenate([np.rot90(crops, quarters, axes=(1, 2)) for quarters in (1, 2, 3)])
    behind = networks.finish(turned, 0.0)[0].reshape(3, -1).max(axis=0) - asked.scores
    score = found.scores.copy()
    score[rows] = np.where(behind > _TURNED, np.clip(asked.scores - behind, 0.0, _UNSETTLED), asked.scores)
    return score


def _mirror(unit: Float32) -> Float32:
    """Return landmarks, in box units, of the unmirrored face: left and right change places."""
    flipped = unit[:, [1, 0, 2, 4, 3]].copy()
    flipped[..., 0] = 1.0 - flipped[..., 0]
    return flipped
