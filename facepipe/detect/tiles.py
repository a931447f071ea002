"""Part of step 1: long thin pictures are searched in overlapping tiles.

A panorama or a long screenshot that is reduced to the size of ordinary pictures has no face left that could be found. It is cut
into pieces of ordinary shape, and each is searched like a picture of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, sqrt

import numpy as np

from facepipe.detect.boxes import nms_contained
from facepipe.detect.chances import ENOUGH, Find, search_turned
from facepipe.types import Detected, Face, Float32, Image, rotation_of

#: A picture that is reduced, and this many times longer than wide, is long. Of faces in pictures six times as long as wide, 18 of 19
#: were found without tiles, 19 with them; of pictures 11 and 14 times as long 16 of 38, and 38.
_LONG = 4.0
#: Length and overlap of the tiles, in shorter sides of the picture. A face that is larger than the overlap may be cut in each tile.
_LENGTH, _OVERLAP = 2.0, 0.75
#: Most tiles of a picture, and how many are searched together: this bounds time and memory.
_MOST, _TOGETHER = 48, 8
#: Most pixels of the picture from which tiles are cut.
_PIXELS = 20_000_000


def is_long(image: Image, max_side: int | None) -> bool:
    """Say whether a picture is searched in tiles. max_side: see `DetectOptions`; without it nothing is reduced, nor cut."""
    longer, shorter = max(image.width, image.height), min(image.width, image.height)
    return max_side is not None and longer > max_side and longer > _LONG * shorter


def detect_in_tiles(image: Image, find: Find, max_side: int, find_again: Find | None = None) -> Detected:
    """Return a long picture with the faces of all its tiles, each once, best score first.

    find: searches pictures that it reduces to max_side. find_again: gives each tile another chance where hardly a face is certain: a
    panorama that lies on its side. Errors: ImageError when the photo cannot be decoded any more.
    """
    longer, shorter = max(image.width, image.height), min(image.width, image.height)
    side = min(longer, int(sqrt(_PIXELS * longer / shorter)))
    source = image if image.enlarge is None else image.enlarge(side)
    length = max(_LENGTH * shorter, float(max_side), longer / (_MOST * (1 - _OVERLAP / _LENGTH)))
    tiles = _tiles(source, min(length, float(longer)), _OVERLAP * shorter)
    faces = _found(image, tiles, find)
    if find_again is not None and _certain(faces) <= 1:
        again = _found(image, tiles, find_again)
        if turn := rotation_of(
            again
        ):  # another chance is one at a smaller size: now that the turn is known, at the whole one
            again = _found(image, tiles, lambda some: search_turned(some, turn, find))
        faces = max(faces, again, key=_certain)
    return Detected(image, faces, None if source is image else source)


def _certain(faces: Sequence[Face]) -> int:
    return sum(face.score >= ENOUGH and not face.doubtful for face in faces)


def _found(image: Image, tiles: Sequence[tuple[Float32, Image]], find: Find) -> tuple[Face, ...]:
    """Return the faces of a picture that are found in its tiles."""
    faces: list[Face] = []
    whole: list[bool] = []
    for start in range(0, len(tiles), _TOGETHER):
        some = tiles[start : start + _TOGETHER]
        for (offset, tile), found in zip(some, find([tile for _, tile in some]), strict=True):
            for face in found:
                box = face.box + np.concatenate([offset, offset])
                size, ends = np.array([tile.width, tile.height]), np.array([image.width, image.height])
                cut = (offset > 0) & (face.box[:2] < 0) | (offset + size < ends - 1) & (face.box[2:] > size)
                faces.append(replace(face, box=box, landmarks=face.landmarks + offset))
                whole.append(not cut.any())
    return _each_once(faces, whole)


def _tiles(source: Image, length: float, overlap: float) -> list[tuple[Float32, Image]]:
    """Return the tiles of a picture and where each begins, (2,) x and y in displayed pixels."""
    tall = source.height > source.width
    rgb = source.rgb if tall else source.rgb.swapaxes(0, 1)
    # In the pixels that there are, by the scale with which faces will be cut out: the other side's may differ by a rounding.
    pixels, shared = max(1, min(len(rgb), round(length * source.scale))), overlap * source.scale
    count = max(1, ceil((len(rgb) - shared) / max(1.0, pixels - shared)))
    tiles = []
    for first in np.linspace(0, len(rgb) - pixels, count).round().astype(int):
        part = rgb[first : first + pixels]
        offset, displayed = first / source.scale, max(1, round(pixels / source.scale))
        size = (source.width, displayed) if tall else (displayed, source.height)
        corner = np.array([0.0, offset] if tall else [offset, 0.0], np.float32)
        tiles.append((corner, Image(part if tall else part.swapaxes(0, 1), source.path, size)))
    return tiles


def _each_once(faces: Sequence[Face], whole: Sequence[bool]) -> tuple[Face, ...]:
    """Return the faces without those that a neighbouring tile has too: that which no tile's border cuts stays, then the better."""
    if not faces:
        return ()
    boxes = np.stack([face.box for face in faces])
    rank = np.array([face.score for face in faces], np.float32) + np.array(whole, np.float32)
    keep = nms_contained(boxes, rank, np.zeros(len(faces), np.int64), 0.5)
    return tuple(sorted((faces[row] for row in keep), key=lambda face: -face.score))
