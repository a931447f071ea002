"""Which faces of a pile a gallery knows, and whose they probably are: steps 3 and 4 for all of them at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.store import GalleryStore
from facepipe.groups.pile import Pile
from facepipe.match.exact import ExactIndex
from facepipe.models.registry import find_embedder
from facepipe.predict.decision import PROBABLE, decide
from facepipe.predict.population import policy_of
from facepipe.types import Candidate, DecideOptions, Float32, Int64, Policy

#: People who are looked at for each face: the best, a rival, and those who drop out.
_PEOPLE = 4
#: A face that is so far below the threshold is nobody's for certain.
_FAR = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Likely:
    """The most likely person of each face.

    names: of the gallery's people. person: int64 (n,), row in names, -1: nobody. probability: float64 (n,). known: bool (n,), as a
    batch names them. cosines: float32 (n, k), with the most similar people, best first; -1 with those whom a face is known not to be.
    people: int64 (n, k), these.
    """

    names: tuple[str, ...]
    person: Int64
    probability: NDArray[np.float64]
    known: NDArray[np.bool_]
    cosines: Float32
    people: Int64

    def name(self, row: int) -> str | None:
        """Return who a face most likely is."""
        return self.names[self.person[row]] if self.person[row] >= 0 else None


class People:
    """The people of a gallery at one generation, and how it decides. policy: None where nothing was measured for its embedder.

    options: what the batch that decided last was asked for, so that its records and the groups agree.
    """

    def __init__(self, gallery: GalleryStore, options: DecideOptions) -> None:
        self.snapshot = gallery.snapshot()
        self.policy = _policy(gallery, self.snapshot, options)

    def likely(self, pile: Pile) -> Likely:
        """Say who the faces of a pile are."""
        found = self._compare(pile.vectors)
        if self.policy is not None and self.policy.exclusive:
            self._share_out(pile, found, self.policy)
        return found

    def _share_out(self, pile: Pile, found: Likely, policy: Policy) -> None:
        """Decide as a batch does about photos of which two faces are most like one person, whom only one of them can be."""
        order = np.lexsort((-found.cosines[:, 0], found.person, pile.photos))
        photos, person = pile.photos[order], found.person[order]
        taken = (found.cosines[order[:-1], 0] >= policy.threshold) & (person[1:] >= 0)
        for photo in np.unique(photos[1:][taken & (photos[1:] == photos[:-1]) & (person[1:] == person[:-1])]).tolist():
            rows = range(*np.searchsorted(pile.photos, (photo, photo + 1)).tolist())
            offered = [
                tuple(
                    Candidate(found.names[person], min(1.0, cosine), None)
                    for cosine, person in zip(found.cosines[row].tolist(), found.people[row].tolist(), strict=True)
                    if cosine > -1.0
                )
                for row in rows
            ]
            for row, told in zip(rows, decide([pile.face(row) for row in rows], offered, policy), strict=True):
                name = told.person or told.suggestion
                found.person[row] = -1 if name is None else found.names.index(name)
                found.probability[row] = 0.0 if name is None else told.probability or 0.0
                found.known[row] = told.person is not None

    def groups(self, means: Float32) -> list[tuple[str, float] | None]:
        """Say who groups probably are. means: float32 (g, d), of their faces, not unit: so similar is one of their faces."""
        found = self._compare(np.ascontiguousarray(means))
        likely = found.probability >= PROBABLE
        return [
            (found.names[person], float(value)) if yes else None
            for person, value, yes in zip(
                found.person.tolist(), found.probability.tolist(), likely.tolist(), strict=True
            )
        ]

    def _compare(self, vectors: Float32) -> Likely:
        snapshot, policy, count = self.snapshot, self.policy, len(vectors)
        person = np.full(count, -1, np.int64)
        probability, known = np.zeros(count), np.zeros(count, bool)
        if policy is None or not snapshot.persons or not count:
            nobody = np.full((count, 1), -1.0, np.float32)
            return Likely(snapshot.persons, person, probability, known, nobody, nobody.astype(np.int64))
        cosines, rows = ExactIndex(snapshot.templates).search(vectors, min(_PEOPLE, len(snapshot.persons)))
        cosines = self._without_refuted(vectors, cosines.copy(), rows)
        order = np.argsort(-cosines, axis=1, kind="stable")
        cosines, rows = np.take_along_axis(cosines, order, axis=1), np.take_along_axis(rows, order, axis=1)
        best = cosines[:, 0]
        second = cosines[:, 1] if cosines.shape[1] > 1 else np.full(count, -np.inf, np.float32)
        rival = np.maximum(second, 0.0)
        near = best >= policy.threshold - _FAR
        person[near] = rows[near, 0]
        known = (best >= policy.threshold) & (best - second >= policy.margin)
        for row in np.flatnonzero(near).tolist():
            probability[row] = policy.probability(float(best[row]), float(max(best[row] - rival[row], 0.0))) or 0.0
        return Likely(snapshot.persons, person, probability, known, cosines, rows)

    def _without_refuted(self, vectors: Float32, cosines: Float32, rows: Int64) -> Float32:
        """Take out people whom a face is known not to be: it is more like a face that was said not to be theirs."""
        snapshot = self.snapshot
        for owner in np.unique(snapshot.negative_owners).tolist():
            at = np.argwhere(rows == owner)
            if len(at):
                negatives = snapshot.negatives[snapshot.negative_owners == owner]
                against = (vectors[at[:, 0]] @ negatives.T).max(axis=1)
                refuted = at[against > cosines[at[:, 0], at[:, 1]]]
                cosines[refuted[:, 0], refuted[:, 1]] = -1.0
        return cosines


def _policy(gallery: GalleryStore, snapshot: GallerySnapshot, options: DecideOptions) -> Policy | None:
    """Return how a batch with this gallery decides, that is asked what the last one was asked."""
    record = find_embedder(gallery.fingerprint)
    if not snapshot.persons or (record is None and options.threshold is None):
        return None
    return policy_of(
        record,
        len(snapshot.persons),
        gallery.calibration(),
        lambda: gallery.own_trials(snapshot),
        options.threshold,
        options.margin,
        exclusive=not options.repeat,
    )
