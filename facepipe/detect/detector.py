"""Step 1: find the faces in pictures.

An edge map says where a face can be at all; MTCNN's three networks confirm, refine the box, and give five landmarks. All pyramid
levels and all crops of a picture are cut from one integral image, candidates are arrays throughout, and levels of different sizes
lie on mosaics of one size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from facepipe.detect.boxes import clip, contenders, nms, nms_contained, regress, square, to_pixels
from facepipe.detect.chances import SIDE, SMALLEST, Find, another_chance, search_turned
from facepipe.detect.closer import CLOSER, look_closer
from facepipe.detect.edges import EdgeMap, edge_map, search_region
from facepipe.detect.levels import CELL, STRIDE, Batch, Level, by_size, cells, on_mosaics
from facepipe.detect.pyramid import crop_area, integral_image, pyramid_scales, resize_area
from facepipe.detect.quality import CROP_SIDE, assess
from facepipe.detect.tiles import detect_in_tiles, is_long
from facepipe.types import Detected, Face, Float32, Image, Int64, UInt8, rotation_of

if TYPE_CHECKING:
    from facepipe.models.cascade import CascadeNetworks

#: A region that is more of its level than this is not cut out: levels of the same size share batches.
_WORTH = 0.8
#: The second looks at a face: size in sides of its box, and whether mirrored.
_SECOND_LOOKS = ((1.0, False), (1.0, True), (1.15, False))
#: A face that may be turned the other way has this score at most. A picture with a face from the second number on is not asked about.
#: It is turned where a turned look convinces more by the third: so are 69 of 71, 75 of 78 and 70 of 74 faces that were found as if
#: they stood in pictures turned by 270, 180 and 90 degrees and are asked about, and one of 580 that stand.
_UNSETTLED, _SETTLED, _TURNED = 0.8, 0.97, 0.03
#: How far a rough logit may be from the exact one (`CascadeNetworks.finish_roughly`).
_DOUBT = 0.3
#: Longer side of a picture for second chances where pictures are not reduced.
_SIDE = 1280
_NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """How to search for faces.

    min_face: smallest face in displayed pixels. A picture that is reduced is searched from one pyramid step below it, in pixels
        after the reduction.
    max_side: larger pictures are reduced to this many pixels on their longer side; None: never.
    thresholds: least probability that each of the three networks must give. The last two are below MTCNN's usual 0.7, since the
        second look decides: with 0.7 a third more of the usual script's faces are missed.
    factor: ratio of neighbouring pyramid scales.
    edge_gate: let the edge map rule out regions and scales before any network runs.
    second_look: show each face to the third network again, in its own box, mirrored, and a little larger. What is not a face
        rarely convinces it every time, and the mean of the landmarks is steadier. The mean score becomes the face's score.
    min_score: least mean score of a face. It is lower than the usual threshold of a single look, since covered, turned and
        blurred faces waver like things that are not faces. Below `SURE_SCORE` a face is doubtful.
    second_chance: where nothing certain is found, search the picture turned, with a border, and brightened (`chances`).
    true_border: what the networks say about a crop that the picture's border cuts off refers to what was cut out. False: to the
        whole box, as in facenet-pytorch, which misplaces the landmarks of such faces.
    """

    min_face: float = 40.0
    max_side: int | None = 1280
    thresholds: tuple[float, float, float] = (0.6, 0.6, 0.5)
    factor: float = 0.709
    edge_gate: bool = True
    second_look: bool = True
    min_score: float = 0.4
    second_chance: bool = True
    true_border: bool = True

    @classmethod
    def reference(cls, min_face: float = 20.0) -> DetectOptions:
        """Return the options with which boxes equal those of `facenet_pytorch.MTCNN(min_face_size=min_face)`."""
        return cls(
            min_face, None, (0.6, 0.7, 0.7), edge_gate=False, second_look=False, second_chance=False, true_border=False
        )

    def __post_init__(self) -> None:
        if self.min_face < CELL:
            raise ValueError(f"min_face: expected {CELL} pixels or more, got {self.min_face}")
        if not 0.0 < self.factor < 1.0:
            raise ValueError(f"factor: expected a value between 0 and 1, got {self.factor}")
        if not all(0.0 < threshold < 1.0 for threshold in self.thresholds):
            raise ValueError(f"thresholds: expected values between 0 and 1, got {self.thresholds}")
        if not 0.0 <= self.min_score <= 1.0:
            raise ValueError(f"min_score: expected a value between 0 and 1, got {self.min_score}")


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A picture on the bench: its sums, its finest pyramid level, and where its edges are."""

    height: int
    width: int
    scale: float  # working pixels per displayed pixel
    integral: NDArray[np.int32]
    scales: list[float]
    finest: Float32
    edges: EdgeMap


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Boxes of all pictures, float32 (n, 4) in working pixels; scores (n,); image: int64 (n,), which picture."""

    boxes: Float32
    scores: Float32
    image: Int64

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, keep: NDArray[np.integer] | NDArray[np.bool_]) -> _Candidates:
        return _Candidates(self.boxes[keep], self.scores[keep], self.image[keep])


class MtcnnDetector:
    """`Detector` over MTCNN's networks."""

    name = "mtcnn"

    def __init__(self, networks: CascadeNetworks, options: DetectOptions | None = None) -> None:
        self._networks = networks
        self.options = options or DetectOptions()

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        """Yield each picture with its faces, best score first; small faces of large photos were looked at more closely, and long
        thin pictures in tiles.

        The first look is at all pictures together, and so is each second chance of those in which nothing certain was found.
        Errors: ImageError when a photo cannot be decoded again.
        """
        side = self.options.max_side
        options = replace(self.options, max_side=None if side is None else CLOSER * side)
        closer = MtcnnDetector(self._networks, options)
        least = max(CELL, round(SIDE * (side or _SIDE)))
        small = replace(self.options, max_side=least, min_face=SMALLEST * self.options.min_face)

        def find_again(waiting: Sequence[Image], found: Sequence[tuple[Face, ...]] = ()) -> list[tuple[Face, ...]]:
            find = MtcnnDetector(self._networks, small).find
            return another_chance(waiting, found or [()] * len(waiting), find, least)

        whole = [image for image in images if not is_long(image, side)]
        found = self.find(whole)
        rest = iter(find_again(whole, found) if self.options.second_chance else found)
        for image in images:
            if side is not None and is_long(image, side):
                yield detect_in_tiles(image, self.find, side, find_again if self.options.second_chance else None)
            else:
                yield self._look_closer(image, next(rest), closer.find, side)

    def _look_closer(self, image: Image, faces: tuple[Face, ...], find: Find, side: int | None) -> Detected:
        """Return a photo with the faces that a closer look finds; one that lies was searched at a smaller size until now."""
        turn = rotation_of(faces)
        if turn:
            again = search_turned([image], turn, self.find)[0]
            faces = max(again, faces, key=lambda some: sum(not face.doubtful for face in some))
        return look_closer(image, faces, lambda some: search_turned(some, turn, find), self.options.min_face, side)

    def find(self, images: Sequence[Image]) -> list[tuple[Face, ...]]:
        """Return the faces of each picture, best score first, without a closer look at small ones."""
        works = [self._prepare(image) for image in images]
        candidates = self._propose(works)
        candidates = self._refine(works, candidates)
        return self._finish(works, candidates)

    def edges(self, image: Image) -> EdgeMap:
        """Return the edge map that `detect` uses for this picture."""
        return self._prepare(image).edges

    # -- the picture on the bench ------------------------------------------------------------------------------------------

    def _prepare(self, image: Image) -> _Work:
        rgb = self._reduce(image.rgb)
        height, width = rgb.shape[:2]
        integral = integral_image(rgb)
        ratio = width / image.width
        smallest = self.options.min_face * max(min(1.0, ratio), self.options.factor)
        scales = pyramid_scales(height, width, max(smallest, CELL), self.options.factor)
        base = scales[0] if scales else 1.0
        finest = resize_area(integral, int(height * base + 1), int(width * base + 1))
        grey = np.ascontiguousarray(finest @ np.array([0.299, 0.587, 0.114], np.float32))
        return _Work(height, width, ratio, integral, scales, finest, edge_map(grey, base))

    def _reduce(self, rgb: UInt8) -> UInt8:
        longer = max(rgb.shape[:2])
        if self.options.max_side is None or longer <= self.options.max_side:
            return rgb
        ratio = self.options.max_side / longer
        size = (max(1, round(rgb.shape[1] * ratio)), max(1, round(rgb.shape[0] * ratio)))
        return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)

    # -- first network: proposals -------------------------------------------------------------------------------------------

    def _levels(self, index: int, work: _Work) -> Iterable[Level]:
        for number, scale in enumerate(work.scales):
            height, width = int(work.height * scale + 1), int(work.width * scale + 1)
            x1, y1, x2, y2 = 0, 0, width, height
            if self.options.edge_gate:
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

    def _propose(self, works: Sequence[_Work]) -> _Candidates:
        levels = [level for index, work in enumerate(works) for level in self._levels(index, work)]
        laid_out = on_mosaics if self._networks.mixes_sizes else by_size
        batches = laid_out(levels, self._networks.batch_pixels)
        found = [self._propose_batch(batch) for batch in batches]
        if not found:
            return _Candidates(_NO_BOXES, np.zeros(0, np.float32), np.zeros(0, np.int64))
        boxes, scores, image, scale = (np.concatenate([part[i] for part in found]) for i in range(4))
        return self._suppress_proposals(boxes, scores, image, scale, len(works))

    def _propose_batch(self, batch: Batch) -> tuple[Float32, Float32, Int64, NDArray[np.float64]]:
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
        _normalise(pictures)
        mixed = self._networks.mixes_sizes
        logits, offsets = self._networks.propose(pictures, np.hstack([batch.places, ends]) if mixed else None)
        threshold = self.options.thresholds[0]
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
        return packed, scores.astype(np.float32), image, scale

    def _suppress_proposals(
        self, packed: Float32, scores: Float32, image: Int64, scale: NDArray[np.float64], count: int
    ) -> _Candidates:
        keep: list[Int64] = []
        for index in range(count):
            rows = np.flatnonzero(image == index)
            _, scale_group = np.unique(scale[rows], return_inverse=True)
            rows = rows[nms(packed[rows, :4], scores[rows], scale_group.astype(np.int64), 0.5)]
            rows = rows[nms(packed[rows, :4], scores[rows], None, 0.7)]
            keep.append(rows)
        rows = np.concatenate(keep)
        boxes = square(regress(packed[rows, :4], packed[rows, 4:], plus=0.0))
        return _Candidates(boxes, scores[rows], image[rows])

    # -- second and third network --------------------------------------------------------------------------------------------

    def _crops(
        self, works: Sequence[_Work], candidates: _Candidates, size: int, *, black: bool = False
    ) -> tuple[Float32, _Candidates]:
        """Cut all candidates, at the border or with black beyond it; those that lie outside their picture drop out."""
        heights = np.array([work.height for work in works], np.int64)[candidates.image]
        widths = np.array([work.width for work in works], np.int64)[candidates.image]
        pixels = to_pixels(candidates.boxes)
        cut = clip(pixels, widths, heights)
        inside = (cut[:, 0] < cut[:, 2]) & (cut[:, 1] < cut[:, 3])
        candidates, pixels, cut = candidates.take(inside), pixels[inside], cut[inside]
        if not black:
            if self.options.true_border:
                at_border = (cut != pixels).any(axis=1, keepdims=True)
                boxes = np.where(at_border, cut + np.array([1, 1, 0, 0]), candidates.boxes).astype(np.float32)
                candidates = _Candidates(boxes, candidates.scores, candidates.image)
            pixels = cut
        crops = np.empty((len(candidates), size, size, 3), np.float32)
        for index in np.unique(candidates.image):
            rows = np.flatnonzero(candidates.image == index)
            crops[rows] = crop_area(works[index].integral, pixels[rows], size)
        return crops, candidates

    def _refine(self, works: Sequence[_Work], candidates: _Candidates) -> _Candidates:
        crops, candidates = self._crops(works, candidates, 24)
        if not len(candidates):
            return candidates
        scores, offsets = self._networks.refine(_normalise(crops), self.options.thresholds[1])
        passed = scores > self.options.thresholds[1]
        offsets = offsets[passed]
        candidates = _Candidates(candidates.boxes[passed], scores[passed], candidates.image[passed])
        keep = np.concatenate(
            [
                rows[nms(candidates.boxes[rows], candidates.scores[rows], None, 0.7)]
                for rows in (np.flatnonzero(candidates.image == index) for index in range(len(works)))
            ]
        )
        kept = candidates.take(keep)
        return _Candidates(square(regress(kept.boxes, offsets[keep], plus=1.0)), kept.scores, kept.image)

    def _finish(self, works: Sequence[_Work], candidates: _Candidates) -> list[tuple[Face, ...]]:
        crops, candidates = self._crops(works, candidates, 48)
        if not len(candidates):
            return [() for _ in works]
        crops, candidates = self._contenders(_normalise(crops), candidates)
        if not len(candidates):
            return [() for _ in works]
        scores, offsets, points = self._networks.finish(crops, 0.0)
        passed = scores > self.options.thresholds[2]
        boxes, offsets, points = candidates.boxes[passed], offsets[passed], points[passed]
        extent = boxes[:, 2:] - boxes[:, :2] + 1
        landmarks = points * extent[:, None, :] + boxes[:, None, :2] - 1
        found = _Candidates(regress(boxes, offsets, plus=1.0), scores[passed], candidates.image[passed])
        keep = nms_contained(found.boxes, found.scores, found.image, 0.7)
        # A box turned inside out by its regression is not a face.
        keep = keep[(found.boxes[keep, 0] < found.boxes[keep, 2]) & (found.boxes[keep, 1] < found.boxes[keep, 3])]
        found, landmarks = found.take(keep), landmarks[keep].astype(np.float32)
        if self.options.second_look and len(found):
            found, landmarks = self._second_look(works, found, landmarks)
        return [self._faces(work, found, landmarks, np.flatnonzero(found.image == i)) for i, work in enumerate(works)]

    def _contenders(self, crops: Float32, candidates: _Candidates) -> tuple[Float32, _Candidates]:
        """Keep the candidates that can become faces, as far as a rough score tells: most of the others are the same face again."""
        rough = self._networks.finish_roughly(crops)
        if rough is None:
            return crops, candidates
        scores, offsets = rough
        logits = np.log(np.maximum(scores, 1e-7)) - np.log(np.maximum(1 - scores, 1e-7))
        threshold = self.options.thresholds[2]
        rows = np.flatnonzero(logits >= np.log(threshold / (1 - threshold)) - _DOUBT)
        boxes = regress(candidates.boxes[rows], offsets[rows], plus=1.0)
        keep = np.sort(rows[contenders(boxes, logits[rows], candidates.image[rows], 0.7, 2 * _DOUBT)])
        return crops[keep], candidates.take(keep)

    def _second_look(
        self, works: Sequence[_Work], found: _Candidates, landmarks: Float32
    ) -> tuple[_Candidates, Float32]:
        """Average score and landmarks over several looks at each face; drop the faces that do not convince on average.

        A face at the border keeps its first score: the networks have not seen as much black as its second looks hold. None of them
        lies outside the picture, since all are around the same centre.
        """
        squares = square(found.boxes)
        side = squares[:, 2:3] - squares[:, :1]
        centre = (squares[:, :2] + squares[:, 2:]) / 2
        scores, points = [found.scores], [landmarks]
        for grow, mirrored in _SECOND_LOOKS:
            boxes = np.concatenate([centre - side * (grow / 2), centre + side * (grow / 2)], axis=1).astype(np.float32)
            crops, _ = self._crops(works, _Candidates(boxes, found.scores, found.image), 48, black=True)
            if mirrored:
                crops = np.ascontiguousarray(crops[:, :, ::-1])
            crops = _normalise(crops)
            if grow != 1.0:  # its landmarks are less exact, so that a rough look at its score is enough
                rough = self._networks.finish_roughly(crops)
                scores.append(self._networks.finish(crops, 0.0)[0] if rough is None else rough[0])
                continue
            score, _, unit = self._networks.finish(crops, 0.0)
            scores.append(score)
            unit = _mirror(unit) if mirrored else unit
            points.append(unit * (boxes[:, None, 2:] - boxes[:, None, :2] + 1) + boxes[:, None, :2] - 1)
        sizes = np.array([(work.width, work.height) for work in works])[found.image]
        at_border = ((squares[:, :2] < 0) | (squares[:, 2:] > sizes)).any(axis=1)
        score = np.where(at_border, found.scores, np.mean(scores, axis=0)).astype(np.float32)
        if self.options.second_chance:  # nothing else asks whether a face may be turned the other way
            score = self._turned_looks(works, found, squares, score)
        sure = score >= self.options.min_score
        steady = np.asarray(np.mean(points, axis=0, dtype=np.float32))[sure]
        return _Candidates(found.boxes, score, found.image).take(sure), steady

    def _turned_looks(self, works: Sequence[_Work], found: _Candidates, squares: Float32, score: Float32) -> Float32:
        """Return the scores, lower where a face looks more like one when it is turned by 90, 180 or 270 degrees.

        The detector takes a face on its head for one that stands now and then, chin for forehead. It is hardly ever certain of that,
        so that pictures with a face of a very high score are not looked at again.
        """
        settled = np.isin(found.image, found.image[score >= _SETTLED])
        rows = np.flatnonzero((score > _UNSETTLED) & ~settled)
        if not rows.size:
            return score
        crops, _ = self._crops(works, _Candidates(squares[rows], score[rows], found.image[rows]), 48, black=True)
        crops = _normalise(crops)
        turned = np.concatenate([np.rot90(crops, quarters, axes=(1, 2)) for quarters in (1, 2, 3)])
        others = self._networks.finish(turned, 0.0)[0].reshape(3, -1).max(axis=0)
        score = score.copy()
        behind = others - score[rows]
        score[rows] = np.where(behind > _TURNED, np.clip(score[rows] - behind, 0.0, _UNSETTLED), score[rows])
        return score

    def _faces(self, work: _Work, found: _Candidates, landmarks: Float32, rows: Int64) -> tuple[Face, ...]:
        if not rows.size:
            return ()
        boxes = found.boxes[rows]
        pixels = clip(to_pixels(boxes), work.width, work.height)
        pixels[:, 2:] = np.maximum(pixels[:, 2:], pixels[:, :2] + 1)
        crops = crop_area(work.integral, pixels, CROP_SIDE)
        shown = (boxes / work.scale).astype(np.float32)
        points = (landmarks[rows] / work.scale).astype(np.float32)
        qualities = assess(shown, points, crops, work.edges.density(boxes))
        return tuple(
            Face(box, min(1.0, float(score)), point, quality)
            for box, score, point, quality in zip(shown, found.scores[rows], points, qualities, strict=True)
        )


def _mirror(unit: Float32) -> Float32:
    """Return landmarks, in box units, of the unmirrored face: left and right change places."""
    flipped = unit[:, [1, 0, 2, 4, 3]].copy()
    flipped[..., 0] = 1.0 - flipped[..., 0]
    return flipped


def _normalise(pixels: Float32) -> Float32:
    """Bring 0..255 to about -1..1 in place, as MTCNN was trained."""
    pixels -= 127.5
    pixels *= 0.0078125
    return pixels
