"""Part of stage 1: a closer look at crowds.

Large photos are searched at a reduced size, which is enough for most of them and many times faster. A photo in which that finds
several small faces is probably one of a crowd, and holds more that are too small there: it is searched again at a larger size.
"""

from __future__ import annotations

from collections.abc import Sequence

from facepipe.types import Detector, Face, Image

#: So many faces that are small at the reduced size make a crowd.
CROWD = 5
#: How many times larger the closer look sees a photo at most.
CLOSER = 2
#: A photo is looked at again when it is so many times larger than it was seen.
_WORTH = 1.25
#: Small: less than so many times the smallest face that is looked for.
_SMALL = 1.5


class CloserLook:
    """Searches photos of crowds again, at a larger size."""

    def __init__(self, detector: Detector, min_face: float, max_side: int | None) -> None:
        """detector: searches larger pictures. min_face, max_side: how the first look was (`DetectOptions`)."""
        self._detector = detector
        self._min_face = min_face
        self._max_side = max_side

    def __call__(self, image: Image, faces: Sequence[Face]) -> tuple[Image, tuple[Face, ...]] | None:
        """Return a photo at a larger size and its faces there; None where there is no crowd or nothing more to see.

        Errors: ImageError when the photo cannot be decoded any more.
        """
        longer = max(image.width, image.height)
        if self._max_side is None or longer < _WORTH * self._max_side:
            return None
        small = _SMALL * self._min_face * longer / self._max_side
        if sum(min(face.box[2] - face.box[0], face.box[3] - face.box[1]) < small for face in faces) < CROWD:
            return None
        larger = image if image.enlarge is None else image.enlarge(CLOSER * self._max_side)
        return larger, self._detector.detect([larger])[0]
