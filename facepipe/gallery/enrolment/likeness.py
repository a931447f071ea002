"""How much a face that is to be enrolled looks like its person and like everybody else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.types import Float32

#: A face that is less like each of its person's others than this share of the threshold is doubtful. Measured with mini
#: (540 photos of 60 people in the wild, limit 0.24): 97, 95 and 93 % of other people's faces are below it when the person
#: has 1, 3 and 5 faces, and 8.5, 2.8 and 1.7 % of the person's own.
_UNLIKE = 2 / 3


def unlike_limit(threshold: float) -> float:
    """Return the cosine below which a face hardly is its person's. threshold: that two faces of one person should reach."""
    return _UNLIKE * threshold


@dataclass(frozen=True, slots=True)
class Likeness:
    """Cosines of a face: with its person's template, with the person's nearest face, with the most similar other person
    (and who that is), and with the nearest face that is not this person; -1 where there is none."""

    own: float
    nearest_own: float
    other: float
    name: str
    refuted: float


class Known:
    """Who is enrolled, and who was accepted since in the same batch."""

    def __init__(self, snapshot: GallerySnapshot) -> None:
        self._snapshot = snapshot
        self._rows = {name: row for row, name in enumerate(snapshot.persons)}
        self._fresh: list[tuple[str, Float32]] = []

    def accept(self, person: str, vector: Float32) -> None:
        """Note a face that will be enrolled."""
        self._fresh.append((person, vector))

    def likeness(self, person: str, vector: Float32) -> Likeness:
        """Compare a face with everybody."""
        snapshot = self._snapshot
        scores = snapshot.templates @ vector
        row = self._rows.get(person)
        own = nearest = refuted = -1.0
        if row is not None:
            own = float(scores[row])
            nearest = float((snapshot.vectors[snapshot.faces_of(row)] @ vector).max())
            negatives = snapshot.negatives[snapshot.negative_owners == row]
            refuted = float((negatives @ vector).max()) if len(negatives) else -1.0
            scores[row] = -1.0
        other, name = -1.0, ""
        if len(scores):
            best = int(np.argmax(scores))
            other, name = float(scores[best]), snapshot.persons[best]
        for fresh, known in self._fresh:
            score = float(known @ vector)
            if fresh == person:
                own, nearest = max(own, score), max(nearest, score)
            elif score > other:
                other, name = score, fresh
        return Likeness(own, nearest, other, name, refuted)
