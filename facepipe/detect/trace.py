"""Part of step 1, looked at: what each of its parts made of one picture, for whoever asks why a face was found.

The detector's own parts run once more and what they pass on is kept; what detection returns does not change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from facepipe.detect.boxes import iou, square
from facepipe.detect.chances import Chance, _changed, _upright, border_of
from facepipe.detect.detector import _SECOND_LOOKS, MtcnnDetector, _Candidates, _normalise, _Work
from facepipe.detect.levels import CELL, by_size, cells, on_mosaics
from facepipe.types import Face, Float32, Image, UInt8

#: A box that shares so much of the union with a face's box is of that face.
_SAME = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What step 1 made of a picture.

    edges: gradient, float32 (h, w), of the picture as it was searched: reduced, turned, brightened.
    windows: PNet's windows in all pyramid levels. searched: those in the parts that the edge map left.
    passed: boxes after PNet, RNet and ONet, in this order; float32 (n, 4), xyxy in displayed pixels of the photo.
    scale: pixels of the pyramid level per displayed pixel in which PNet was surest of the face; None: it was found in a closer
    look or a second chance alone. level: that level, uint8 (h, w, 3). window: PNet's window in it, x1 y1 x2 y2.
    looks: scores of ONet's looks at the face: the first, in its own box, mirrored, a little larger; none where it did not see it.
    border: the picture was given a border, without which the face is not seen.
    """

    edges: Float32
    windows: int
    searched: int
    passed: tuple[Float32, Float32, Float32]
    scale: float | None = None
    level: UInt8 | None = None
    window: tuple[int, int, int, int] | None = None
    looks: tuple[float, ...] = ()
    border: bool = False


def trace(detector: MtcnnDetector, image: Image, face: Face) -> Trace:
    """Search a picture once more, turned and brightened as the face was found, and return what each part gave.

    Where the face is not seen like that, a border shows it: a face says no more of the chance that found it.
    """
    plain = _traced(detector, image, face, Chance(face.turn, brighter=face.enhanced))
    if plain.looks:
        return plain
    bordered = _traced(detector, image, face, Chance(face.turn, border=True, brighter=face.enhanced))
    return replace(bordered, border=True) if bordered.looks else plain


def _traced(detector: MtcnnDetector, image: Image, face: Face, chance: Chance) -> Trace:
    seen = _changed(image, chance) or image
    room = border_of(image) if chance.border else 0
    once = MtcnnDetector(detector._networks, replace(detector.options, second_look=False))
    work = once._prepare(seen)
    levels = list(once._levels(0, work))
    whole = [(int(work.height * scale + 1), int(work.width * scale + 1)) for scale in work.scales]
    found = Trace(
        work.edges.magnitude,
        sum(int(cells(height)) * int(cells(width)) for height, width in whole),
        sum(int(cells(one.pixels.shape[0])) * int(cells(one.pixels.shape[1])) for one in levels),
        (_NONE, _NONE, _NONE),
    )
    if not levels:
        return found

    def shown(boxes: Float32) -> Float32:
        corners = _upright(boxes.reshape(-1, 2), seen, face.turn).reshape(-1, 2, 2) - room
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)

    laid_out = on_mosaics if once._networks.mixes_sizes else by_size
    parts = [once._propose_batch(batch) for batch in laid_out(levels, once._networks.batch_pixels)]
    packed, scores, index, scales = (np.concatenate([part[i] for part in parts]) for i in range(4))
    proposed = once._suppress_proposals(packed, scores, index, scales, 1)
    refined = once._refine([work], proposed)
    faces = once._finish([work], refined)[0]
    last = np.array([one.box for one in faces], np.float32).reshape(-1, 4)
    scaled = [(some.boxes / work.scale).astype(np.float32) for some in (proposed, refined)]
    passed = (shown(scaled[0]), shown(scaled[1]), shown(last))
    found = replace(found, passed=passed)
    mine = np.flatnonzero(iou(shown((packed[:, :4] / work.scale).astype(np.float32)), face.box[None])[:, 0] > _SAME)
    if mine.size:
        best = mine[scores[mine].argmax()]
        scale = float(scales[best])
        level, window = _level(seen, work, scale, packed[best, :4])
        found = replace(found, scale=scale * work.scale, level=level, window=window)
    near = iou(passed[2], face.box[None])[:, 0]
    if near.size and near.max() > _SAME:
        row = int(near.argmax())
        found = replace(found, looks=(faces[row].score, *_second_looks(once, work, last[row] * work.scale)))
    return found


_NONE = np.zeros((0, 4), np.float32)


def _level(image: Image, work: _Work, scale: float, box: Float32) -> tuple[UInt8, tuple[int, int, int, int]]:
    """Return a pyramid level as a picture, and where PNet's window lies in it."""
    size = int(work.width * scale + 1), int(work.height * scale + 1)
    level = np.asarray(cv2.resize(image.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    x, y = np.rint(box[:2] * scale).astype(int).tolist()
    return level, (x, y, x + CELL, y + CELL)


def _second_looks(detector: MtcnnDetector, work: _Work, box: Float32) -> list[float]:
    """Return ONet's scores in the looks that `_second_look` takes, each for itself."""
    (x1, y1, x2, y2) = square(box[None])[0].tolist()
    centre, side = np.array([x1 + x2, y1 + y2]) / 2, x2 - x1
    scores = []
    for grow, mirrored in _SECOND_LOOKS:
        corners = np.concatenate([centre - side * grow / 2, centre + side * grow / 2])[None].astype(np.float32)
        one = _Candidates(corners, np.ones(1, np.float32), np.zeros(1, np.int64))
        crops, _ = detector._crops([work], one, 48, black=True)
        crops = np.ascontiguousarray(crops[:, :, ::-1]) if mirrored else crops
        scores.append(float(detector._networks.finish(_normalise(crops), 0.0)[0][0]))
    return scores
