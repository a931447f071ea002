"""A video of one person: which of its frames are enrolled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from facepipe.detect.selection import CLEAR_RATIO, FaceChoice
from facepipe.embed.clips import Seen, describe_video, frame_at
from facepipe.embed.describer import Describer
from facepipe.embed.tracks import overlap_of, weight_of
from facepipe.errors import InputError
from facepipe.gallery.enrolment.intake import EnrollOutcome, EnrollStatus, Photo
from facepipe.text import plural, without_path
from facepipe.types import Described, Face, Float32

#: So many frames of a video are enrolled at most: as many different photos tell a person from others nearly as well as more.
MOST = 5
#: Frames of a track that are remembered, the best ones.
_OF_TRACK = 200


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    """A face of a frame."""

    time: float
    face: Face
    vector: Float32


def filmed(
    describer: Describer,
    photo: Photo,
    *,
    choice: FaceChoice,
    same: float,
    alike: float,
    max_side: int | None,
    fits: Callable[[Face], bool],
) -> list[Photo] | EnrollOutcome:
    """Return the frames of a video that are to be enrolled, as photos, or why there are none.

    same: cosine from which on two faces are one person's; alike: from which on one of two will do. fits: says whether a face is
    good enough. Errors: ModelError, LibraryError.
    """
    shots: dict[int, list[_Shot]] = {}

    def remember(seen: Seen) -> None:
        for time, frame, numbers in seen.frames:
            for number, face, vector in zip(numbers, frame.faces, frame.embeddings.vectors, strict=True):
                if fits(face):
                    kept = shots.setdefault(number, [])
                    kept.append(_Shot(time, face, vector))
                    if len(kept) > _OF_TRACK:
                        kept.remove(min(kept, key=lambda shot: weight_of(shot.face)))

    name = str(photo.path)
    try:
        tracks = describe_video(describer, photo.path, name, max_side=max_side, seen=remember)
        if not tracks.faces:
            return photo.outcome(EnrollStatus.NO_FACE, "no face found in it")
        chosen = _chosen(tracks, shots, choice, same)
        if isinstance(chosen, str):
            status = EnrollStatus.AMBIGUOUS if shots else EnrollStatus.POOR
            return photo.outcome(status, chosen)
        pictures = []
        for shot in _different([shot for number in chosen for shot in shots[number]], same, alike):
            image = frame_at(photo.path, name, shot.time, max_side=max_side)
            pick = partial(_face_at, shot.face.box)
            pictures.append(Photo(Path(f"{name}#t={shot.time:.2f}"), photo.person, image, pick))
        return pictures
    except InputError as error:
        return photo.outcome(EnrollStatus.UNREADABLE, without_path(str(error), name))


def _chosen(tracks: Described, shots: dict[int, list[_Shot]], choice: FaceChoice, same: float) -> list[int] | str:
    """Return the tracks of the person who is meant, or why nobody is."""
    if isinstance(choice, int):
        if choice - 1 in shots:
            return [choice - 1]
        return f"has no face {choice} that is good enough; facepipe identify shows them with their numbers"
    if not shots:
        return f"{plural(len(tracks.faces), 'face')} in it, none good enough: --accept-poor enrols the best"
    if choice == "all":
        return sorted(shots)
    frames = Counter({number: len(kept) for number, kept in shots.items()})
    people: list[list[int]] = []
    for number, _ in frames.most_common():
        for person in people:
            if tracks.embeddings.vectors[person[0]] @ tracks.embeddings.vectors[number] >= same:
                person.append(number)
                break
        else:
            people.append([number])
    people.sort(key=lambda person: -sum(frames[number] for number in person))
    first, second = (
        sum(frames[number] for number in person) for person in (people[0], people[1] if people[1:] else ())
    )
    if second and (choice == "only" or (choice == "clear" and first < CLEAR_RATIO * second)):
        return f"{len(people)} people are seen in it, and none is clearly the one: choose with --face NUMBER, or --faces largest"
    return people[0]


def _different(shots: Sequence[_Shot], same: float, alike: float) -> list[_Shot]:
    """Return the best shot, and those that are least like the ones before them; the mean of all says which are odd."""
    vectors = np.stack([shot.vector for shot in shots])
    weights = np.array([weight_of(shot.face) for shot in shots])
    mean = (weights[:, None] * vectors).sum(axis=0)
    usual = vectors @ mean >= same * np.linalg.norm(mean)
    rows = [int(np.argmax(weights))]
    nearest = vectors @ vectors[rows[0]]
    while len(rows) < MOST:
        row = int(np.argmin(np.where(usual, nearest, np.inf)))
        if not usual[row] or nearest[row] >= alike:
            break
        rows.append(row)
        nearest = np.maximum(nearest, vectors @ vectors[row])
    return [shots[row] for row in sorted(rows, key=lambda row: shots[row].time)]


def _face_at(box: Float32, frame: Described) -> list[int]:
    """Return the face that was found there, none when it is not found again."""
    overlaps = [overlap_of(face.box, box) for face in frame.faces]
    return [int(np.argmax(overlaps))] if overlaps and max(overlaps) > 0.5 else []
