"""Part of step 1: a second chance for photos in which nothing sure was found.

The networks know upright faces with room around them in ordinary light. A scan on its side, a face that fills the frame and a dark
photo are none of that: the picture is turned, given a border, or brightened, and searched again, at less than half the size, since
the face of such a photo is rarely a small one. What is found is given in the pixels of the photo as it is.

Upside down, a face is now and then found as one that stands, with a middling score: the best of all chances counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from facepipe.detect.quality import head_pose
from facepipe.types import Face, Float32, Image, UInt8

#: Searches pictures together; returns the faces of each.
Find = Callable[[Sequence[Image]], list[tuple[Face, ...]]]

#: A photo whose best face reaches this needs no other chance: of 764 ordinary ones 10 have none, and in 6 of these nothing was sure.
ENOUGH = 0.85
#: Faces that stand in good light score 0.97 and more: the first chance that reaches this ends the search. What a chance finds must be
#: better by so much than what was found before.
_CERTAIN, _BETTER = 0.95, 0.05
#: A face that leans further than this, in degrees, is looked for in the turned photo.
_LEANING = 50.0
#: Side of the pictures of the chances, and smallest face, in shares of those of the first look.
SIDE, SMALLEST = 0.45, 2.2
#: Room on each side, as a share of the longer side.
_BORDER = 0.3
#: Shares of the pixels that become black and white when a picture is brightened.
_DARKEST, _LIGHTEST = 1.0, 99.0
#: A picture that has this range of greys is bright enough.
_RANGE = 200.0


@dataclass(frozen=True, slots=True)
class Chance:
    """How a picture is changed. turn: degrees clockwise. border, brighter: whether it gets these."""

    turn: int = 0
    border: bool = False
    brighter: bool = False


#: In the order in which they are taken.
CHANCES = (
    Chance(border=True),
    Chance(turn=90),
    Chance(turn=270),
    Chance(turn=180),
    Chance(border=True, brighter=True),
)


def another_chance(
    images: Sequence[Image],
    found: Sequence[tuple[Face, ...]],
    find: Find,
    side: int,
    chances: Sequence[Chance] = CHANCES,
) -> list[tuple[Face, ...]]:
    """Return the faces of each picture: those found, or where none of them is certain the sure ones of the best chance.

    find: searches changed pictures, all that still wait together. side: to which it reduces them, in pixels.
    """
    best = list(found)
    marks = [_mark(faces) for faces in found]
    waiting = [number for number, mark in enumerate(marks) if mark < ENOUGH]
    small = {number: _reduced(images[number], side) for number in waiting}  # once, not in every chance
    for chance in chances:
        tried = [(number, changed) for number in waiting if (changed := _changed(small[number], chance)) is not None]
        if not tried:
            continue
        for (number, changed), faces in zip(tried, find([changed for _, changed in tried]), strict=True):
            sure = tuple(_back(face, images[number], changed, chance) for face in faces if not face.doubtful)
            mark = _mark(faces)
            if sure and mark > marks[number] + _BETTER:
                best[number], marks[number] = sure, mark
                if mark >= _CERTAIN:
                    waiting.remove(number)
    return best


def search_turned(images: Sequence[Image], turn: int, find: Find) -> list[tuple[Face, ...]]:
    """Return the faces of each picture that `find` sees in it turned clockwise by these degrees, in its own pixels."""
    if not turn:
        return find(images)
    chance = Chance(turn)
    turned = [changed for image in images if (changed := _changed(image, chance)) is not None]
    return [
        tuple(_back(face, image, changed, chance) for face in faces)
        for image, changed, faces in zip(images, turned, find(turned), strict=True)
    ]


def _mark(faces: Sequence[Face]) -> float:
    """Return the score of the best face that does not lean, 0 without one."""
    return max((face.score for face in faces if abs(face.quality.roll) <= _LEANING), default=0.0)


def _reduced(image: Image, side: int) -> Image:
    height, width = image.rgb.shape[:2]
    ratio = side / max(height, width)
    if ratio >= 1.0:
        return image
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    rgb = np.asarray(cv2.resize(image.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Image(rgb, image.path, (image.width, image.height))


def border_of(image: Image) -> int:
    """Return how many displayed pixels a border adds on each side."""
    return round(_BORDER * max(image.width, image.height))


def _changed(image: Image, chance: Chance) -> Image | None:
    """Return the picture as a chance sees it, None where that is nothing new."""
    rgb, (width, height) = image.rgb, (image.width, image.height)
    if chance.brighter:
        bright = brightened(rgb)
        if bright is None:
            return None
        rgb = bright
    if chance.border:
        room = border_of(image)
        pixels = round(room * image.scale)
        rgb = np.asarray(cv2.copyMakeBorder(rgb, pixels, pixels, pixels, pixels, cv2.BORDER_REPLICATE), np.uint8)
        width, height = width + 2 * room, height + 2 * room
    if chance.turn:
        rgb = np.ascontiguousarray(np.rot90(rgb, -chance.turn // 90))
        width, height = (width, height) if chance.turn == 180 else (height, width)
    return Image(rgb, image.path, (width, height))


def brightened(rgb: UInt8) -> UInt8 | None:
    """Return the picture with its greys drawn out over the whole range, None where they fill it."""
    grey = rgb[::4, ::4].max(axis=2)
    low, high = np.percentile(grey, (_DARKEST, _LIGHTEST))
    if high - low >= _RANGE or high - low < 2.0:
        return None
    table = np.clip((np.arange(256) - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    return np.asarray(table[rgb], np.uint8)


def _back(face: Face, image: Image, changed: Image, chance: Chance) -> Face:
    """Return a face of the changed picture in the pixels of the picture as it is."""
    corners = _upright(face.box.reshape(2, 2), changed, chance.turn)
    landmarks = _upright(face.landmarks, changed, chance.turn)
    if chance.border:
        corners, landmarks = corners - border_of(image), landmarks - border_of(image)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
    yaw, pitch, roll = head_pose(landmarks[None])[0].tolist()
    quality = replace(face.quality, yaw=yaw, pitch=pitch, roll=roll)
    return Face(box, face.score, landmarks.astype(np.float32), quality, chance.turn, chance.brighter)


def _upright(points: Float32, changed: Image, turn: int) -> Float32:
    """Turn points back, (n, 2), from a picture that was turned clockwise."""
    x, y = points[:, 0], points[:, 1]
    width, height = changed.width, changed.height
    turned = {0: (x, y), 90: (y, width - x), 180: (width - x, height - y), 270: (height - y, x)}[turn]
    return np.stack(turned, axis=1)
