"""Part of step 1, looked at: what each of its parts made of one picture, for whoever asks why a face was found.

The detector's own parts run once more and what they pass on is kept; what detection returns does not change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from facepipe.detect.boxes import iou
from facepipe.detect.chances import Chance, _changed, _upright, border_of
from facepipe.detect.confirm import finish, refine
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.levels import CELL, cells
from facepipe.detect.looks import second_looks
from facepipe.detect.proposals import levels_of, suppress, windows_of
from facepipe.detect.work import Work, prepare
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
    networks, options = detector.networks, detector.options
    work = prepare(seen, options)
    levels = list(levels_of(0, work, options.edge_gate))
    whole = [(int(work.height * scale + 1), int(work.width * scale + 1)) for scale in work.scales]

    def shown(boxes: Float32) -> Float32:
        corners = _upright(boxes.reshape(-1, 2), seen, face.turn).reshape(-1, 2, 2) - room
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)

    windows = windows_of(networks, levels, options.thresholds[0])
    proposed = suppress(windows, 1)
    refined = refine(networks, [work], proposed, options)
    finished, _ = finish(networks, [work], refined, options)
    passed = [shown((some.boxes / work.scale).astype(np.float32)) for some in (proposed, refined, finished)]
    found = Trace(
        work.edges.magnitude,
        sum(int(cells(height)) * int(cells(width)) for height, width in whole),
        sum(int(cells(one.pixels.shape[0])) * int(cells(one.pixels.shape[1])) for one in levels),
        (passed[0], passed[1], passed[2]),
    )
    places = shown((windows.boxes[:, :4] / work.scale).astype(np.float32))
    mine = np.flatnonzero(iou(places, face.box[None])[:, 0] > _SAME)
    if mine.size:
        best = mine[windows.scores[mine].argmax()]
        scale = float(windows.scale[best])
        level, window = _level(seen, work, scale, windows.boxes[best, :4])
        found = replace(found, scale=scale * work.scale, level=level, window=window)
    near = iou(passed[2], face.box[None])[:, 0]
    if near.size and near.max() > _SAME:
        one = finished.take(near.argmax(0, keepdims=True))
        again = (float(score[0]) for score, _ in second_looks(networks, [work], one))
        found = replace(found, looks=(min(1.0, float(one.scores[0])), *again))
    return found


def _level(image: Image, work: Work, scale: float, box: Float32) -> tuple[UInt8, tuple[int, int, int, int]]:
    """Return a pyramid level as a picture, and where PNet's window lies in it."""
    size = int(work.width * scale + 1), int(work.height * scale + 1)
    level = np.asarray(cv2.resize(image.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    x, y = np.rint(box[:2] * scale).astype(int).tolist()
    return level, (x, y, x + CELL, y + CELL)
