"""Which face of a photo is meant, when the photo was given for one person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from facepipe.errors import AmbiguousFaceError, NoFaceError
from facepipe.types import Face

#: clear: the only face, or one beside which the others are small; largest; only: exactly one face may be there; all.
FaceRule = Literal["clear", "largest", "only", "all"]
#: A face is clearly the one that is meant when its area is at least this many times that of any other.
CLEAR_RATIO = 4.0


def _area(face: Face) -> float:
    return float(np.prod(face.box[2:] - face.box[:2]))


def select_faces(faces: Sequence[Face], rule: FaceRule, path: str) -> tuple[Face, ...]:
    """Return the faces that are meant: one, or with the rule `all` every one.

    Errors: NoFaceError when there is none; AmbiguousFaceError when the rule does not say which of several is meant.
    """
    if not faces:
        raise NoFaceError(f"{path}: no face found; use a photo where the face is larger, or try --min-face 20")
    if rule == "all" or len(faces) == 1:
        return tuple(faces)
    by_size = sorted(faces, key=_area, reverse=True)
    if rule == "largest" or (rule == "clear" and _area(by_size[0]) >= CLEAR_RATIO * _area(by_size[1])):
        return (by_size[0],)
    raise AmbiguousFaceError(
        f"{path}: {len(faces)} faces, and it is not clear whose photo it is; crop it, or choose with --faces largest"
    )
