"""Part of step 1: a closer look at small faces in large photos.

Large photos are searched at a reduced size, which is enough for most of their faces and many times faster. A face that is small
there has more pixels in the photo: it is embedded from those. And a photo in which several faces are small is probably one of a
crowd, and holds more that are too small at the reduced size: it is searched again at a larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from facepipe.detect.quality import CROP_SIDE, sharpness
from facepipe.types import Detected, Face, Image

#: So many faces that are small at the reduced size make a crowd.
CROWD = 5
#: How many times larger the closer look sees a photo at most: 20 megapixels, which take 300 MB for a moment.
CLOSER = 4
#: A photo is looked at again when it is so many times larger than it was seen.
_WORTH = 1.25
#: Small: less than so many times the smallest face that is looked for. With 40 pixels from that on, embeddings of the reduced photo
#: are as good as those of the whole one.
_SMALL = 1.5


def look_closer(
    image: Image,
    faces: tuple[Face, ...],
    find: Callable[[Sequence[Image]], list[tuple[Face, ...]]],
    min_face: float,
    max_side: int | None,
) -> Detected:
    """Return the photo with the faces that a closer look finds in it: the same where nothing more is to see.

    faces: found by the first look, with min_face and max_side (`DetectOptions`). find: searches larger pictures.
    Errors: ImageError when the photo cannot be decoded any more.
    """
    longer = max(image.width, image.height)
    if max_side is None or longer < _WORTH * max_side:
        return Detected(image, faces)
    limit = _SMALL * min_face * longer / max_side
    small = sum(face.quality.size < limit for face in faces)
    if not small:
        return Detected(image, faces)
    larger = image if image.enlarge is None else image.enlarge(CLOSER * max_side)
    found = find([larger])[0] if small >= CROWD else _seen_again(larger, faces)
    return Detected(image, found, larger)


def _seen_again(image: Image, faces: Sequence[Face]) -> tuple[Face, ...]:
    """Return the faces with their sharpness in a larger picture."""
    crops = np.stack([_crop(image, face) for face in faces])
    return tuple(
        replace(face, quality=replace(face.quality, sharpness=float(sharp)))
        for face, sharp in zip(faces, sharpness(crops), strict=True)
    )


def _crop(image: Image, face: Face) -> np.ndarray:
    """Cut the box, as far as it lies in the picture: float32 (CROP_SIDE, CROP_SIDE, 3)."""
    height, width = image.rgb.shape[:2]
    x1, y1, x2, y2 = (face.box * image.scale).astype(int)
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    part = image.rgb[y1 : max(min(y2, height), y1 + 1), x1 : max(min(x2, width), x1 + 1)]
    return cv2.resize(part, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
