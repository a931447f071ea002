"""What the review page shows besides groups: frozen values, without vectors."""

from __future__ import annotations

from dataclasses import dataclass

from facepipe.groups.values import FaceKey
from facepipe.types import Span


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody in the gallery, and their faces in the catalog.

    faces: enrolled, confirmed and recognised together. doubtful: recognised ones that are not sure. cover: None when none of their
    faces is in the catalog.
    """

    name: str
    faces: int
    enrolled: int
    confirmed: int
    recognised: int
    doubtful: int
    cover: FaceKey | None


@dataclass(frozen=True, slots=True)
class PhotoFace:
    """A face of a photo, and who it is.

    status: `enrolled`, `confirmed` or `recognised` where it is a person's. probability: that it is. suggestion: who it may be else.
    span: when it is seen in a video, whose best frame has the box.
    """

    key: FaceKey
    box: tuple[float, ...]
    score: float
    person: str | None
    status: str | None
    probability: float | None
    suggestion: tuple[str, float] | None
    group: int | None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class CatalogPhoto:
    """A photo of the catalog. path: one of those with these bytes. width, height: as displayed, 0 where that is not known."""

    content: str
    path: str
    width: int
    height: int
    taken: str | None
    faces: tuple[PhotoFace, ...] = ()


@dataclass(frozen=True, slots=True)
class Nearest:
    """An enrolled face that is like another one. key: None when its photo is not in the catalog. face_id: in the gallery."""

    person: str
    similarity: float
    key: FaceKey | None
    face_id: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the catalog's scan is. running: somebody is writing to it."""

    running: bool
    photos: int
    faces: int
    failed: int
