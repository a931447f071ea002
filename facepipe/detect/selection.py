"""Which face of a photo is meant, when the photo was given for one person: the same rule wherever that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from facepipe.errors import AmbiguousFaceError, NoFaceError
from facepipe.text import plural
from facepipe.types import Face

#: clear: the only face, or one beside which the others are small; largest; only: exactly one face may be there; all.
FaceRule = Literal["clear", "largest", "only", "all"]
#: Or the number of a face, from 1, as tables and annotated pictures show it.
FaceChoice: TypeAlias = FaceRule | int
FACE_RULES: tuple[FaceRule, ...] = get_args(FaceRule)
#: A face is clearly the intended one when its area is at least this many times that of any other.
CLEAR_RATIO = 4.0


def _area(face: Face) -> float:
    return float(np.prod(face.box[2:] - face.box[:2]))


def choose_faces(faces: Sequence[Face], rule: FaceChoice) -> list[int]:
    """Return the positions of the chosen faces in `faces`: one, or with the rule `all` every one, in their order.

    Empty when there is no face, or when the rule does not decide between several. A doubtful face is chosen only where there
    is no other, or by its number.
    """
    if isinstance(rule, int):
        return [rule - 1] if 1 <= rule <= len(faces) else []
    if rule == "all":
        return list(range(len(faces)))
    order = [place for place, face in enumerate(faces) if not face.doubtful] or list(range(len(faces)))
    if len(order) < 2:
        return order
    order.sort(key=lambda place: -_area(faces[place]))
    first, second = (_area(faces[place]) for place in order[:2])
    return order[:1] if rule == "largest" or (rule == "clear" and first >= CLEAR_RATIO * second) else []


def require_faces(faces: Sequence[Face], rule: FaceChoice, path: str) -> list[int]:
    """Return the positions of the chosen faces, at least one, as `choose_faces`.

    Errors: NoFaceError when there is no face; AmbiguousFaceError when the rule does not decide between several.
    """
    if not faces:
        raise NoFaceError(f"{path}: no face found; use a photo where the face is larger, or try --min-face 20")
    if chosen := choose_faces(faces, rule):
        return chosen
    if isinstance(rule, int):
        raise NoFaceError(f"{path}: {no_such_face(len(faces), rule)}")
    raise AmbiguousFaceError(
        f"{path}: {len(faces)} faces, and it is not clear whose photo it is; crop it, or choose with --faces largest or --face NUMBER"
    )


def no_such_face(count: int, number: int) -> str:
    """Say that a photo with so many faces has none of this number."""
    return f"has no face {number}, but {plural(count, 'face')}; facepipe detect shows them with their numbers"
