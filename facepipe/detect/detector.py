"""Step 1: find the faces in pictures.

An edge map says where a face can be at all; MTCNN's three networks confirm, refine the box, and give five landmarks. All pyramid
levels and all crops of a picture are cut from one integral image, candidates are arrays throughout, and levels of different sizes
lie on mosaics of one size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from facepipe.detect.boxes import clip, to_pixels
from facepipe.detect.chances import SIDE, SMALLEST, Find, another_chance, search_turned
from facepipe.detect.closer import CLOSER, look_closer
from facepipe.detect.confirm import finish, refine
from facepipe.detect.edges import EdgeMap
from facepipe.detect.levels import CELL
from facepipe.detect.looks import look_again
from facepipe.detect.options import DetectOptions
from facepipe.detect.proposals import propose
from facepipe.detect.pyramid import crop_area
from facepipe.detect.quality import CROP_SIDE, assess
from facepipe.detect.tiles import detect_in_tiles, is_long
from facepipe.detect.work import Candidates, Work, prepare
from facepipe.types import Detected, Face, Float32, Image, Int64, rotation_of

if TYPE_CHECKING:
    from facepipe.models.cascade import CascadeNetworks

#: Longer side of a picture for second chances where pictures are not reduced.
_SIDE = 1280


class MtcnnDetector:
    """`Detector` over MTCNN's networks."""

    name = "mtcnn"

    def __init__(self, networks: CascadeNetworks, options: DetectOptions | None = None) -> None:
        self.networks = networks
        self.options = options or DetectOptions()

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        """Yield each picture with its faces, best score first; small faces of large photos were looked at more closely, and long
        thin pictures in tiles.

        The first look is at all pictures together, and so is each second chance of those in which nothing certain was found.
        Errors: ImageError when a photo cannot be decoded again.
        """
        side = self.options.max_side
        options = replace(self.options, max_side=None if side is None else CLOSER * side)
        closer = MtcnnDetector(self.networks, options)
        least = max(CELL, round(SIDE * (side or _SIDE)))
        small = replace(self.options, max_side=least, min_face=SMALLEST * self.options.min_face)

        def find_again(waiting: Sequence[Image], found: Sequence[tuple[Face, ...]] = ()) -> list[tuple[Face, ...]]:
            find = MtcnnDetector(self.networks, small).find
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
        networks, options = self.networks, self.options
        works = [prepare(image, options) for image in images]
        candidates = propose(networks, works, options)
        candidates = refine(networks, works, candidates, options)
        found, landmarks = finish(networks, works, candidates, options)
        if options.second_look and len(found):
            found, landmarks = look_again(networks, works, found, landmarks, options)
        return [_faces(work, found, landmarks, np.flatnonzero(found.image == i)) for i, work in enumerate(works)]

    def edges(self, image: Image) -> EdgeMap:
        """Return the edge map that `detect` uses for this picture."""
        return prepare(image, self.options).edges


def _faces(work: Work, found: Candidates, landmarks: Float32, rows: Int64) -> tuple[Face, ...]:
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
