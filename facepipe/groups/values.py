"""What a pile's groups are told as: frozen values, without vectors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class FaceKey:
    """Names a face of a catalog. content: SHA-256 of the photo's bytes. number: its place in the photo, from 0."""

    content: str
    number: int


@dataclass(frozen=True, slots=True)
class GroupFace:
    """A face of a group.

    path: the photo, one of those with these bytes. box: x1 y1 x2 y2 in displayed pixels. taken: when the photo was taken, ISO 8601.
    status: `in`, put there by likeness; `confirmed`, the user said so; `out`, the user put it out of this group.
    """

    key: FaceKey
    path: str
    box: tuple[float, ...]
    score: float
    taken: str | None
    status: str


@dataclass(frozen=True, slots=True)
class Group:
    """Faces that are probably one person's.

    size: faces. photos: different ones. first, last: when the earliest and the latest was taken, as far as photos say.
    cohesion: mean cosine of two of its faces, 1 when it has one. new: it grew since last time.
    suggestion: a person of the gallery, and the probability that it is that one; None when nobody is likely.
    alike: groups that may be the same person, with the mean cosine, best first. cover: its surest face.
    state: `open`, `named`, `ignored` (nobody I need) or `skipped` (later). person: whose it is, when it is named.
    """

    id: int
    size: int
    photos: int
    first: str | None
    last: str | None
    cohesion: float
    new: bool
    suggestion: tuple[str, float] | None
    alike: tuple[tuple[int, float], ...]
    cover: FaceKey
    state: str
    person: str | None


@dataclass(frozen=True, slots=True)
class Suggested:
    """A face that is probably a known person's. probability: that it is."""

    key: FaceKey
    path: str
    box: tuple[float, ...]
    person: str
    probability: float


@dataclass(frozen=True, slots=True)
class PersonFace:
    """A face that is somebody's.

    key: None when its photo is not in the catalog. status: `enrolled`, `confirmed` or `recognised`. face_id: in the gallery, of an
    enrolled one. probability: that it is this person, None where nobody needs one or nothing is known.
    """

    key: FaceKey | None
    path: str
    box: tuple[float, ...] | None
    status: str
    probability: float | None
    taken: str | None = None
    face_id: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user said. number: counts up. at: seconds since 1970. what: the verb. text: it in a line. undone: taken back."""

    number: int
    at: float
    what: str
    text: str
    undone: bool


@dataclass(frozen=True, slots=True)
class Grouped:
    """What grouping came to.

    faces: in groups now. groups: of two faces and more. alone: groups of one face. added: faces that came. waiting: faces that are
    doubtful and like no group. known: faces that are left out, as they are known. moved: answers that followed their face to another
    place in a photo that was scanned again. lost: answers whose face is not found any more.
    """

    faces: int
    groups: int
    alone: int
    added: int
    waiting: int
    known: int
    moved: int
    lost: int
