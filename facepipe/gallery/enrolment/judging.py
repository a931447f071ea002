"""Whose faces are these? The photos of a run are judged together, against each other and against who is enrolled.

Each face is compared with its person's other faces and with everybody else. Where two people's photos contradict each other, the
face with the weakest support goes first, and what it contradicted is looked at again; so the answer does not depend on the
order of the photos, and a second run of the same photos adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.match.exact import ExactIndex
from facepipe.types import Float32, Int64

#: A face that is less like each of its person's others than this share of the threshold is doubtful. Measured with mini
#: (540 photos of 60 people in the wild, limit 0.24): 97, 95 and 93 % of other people's faces are below it when the person
#: has 1, 3 and 5 faces, and 8.5, 2.8 and 1.7 % of the person's own.
_UNLIKE = 2 / 3
#: Groups of faces whose mean cosine is below this share of the threshold are different people. Measured with mini (limit 0.2):
#: of 927 people's folders one is taken for several people; of folders with three people or more 90 to 100 % are, of those with
#: two people and as many photos of each 95 %.
_APART = 0.56
#: Faces that are looked at to see whether they are of several people; more do not change the answer.
_SAMPLE = 300
#: New faces that are compared with all others at a time.
_BLOCK = 1024
#: Enrolled people whose single faces are compared with a new one: a copy of a photo may be far from its person's mean.
_NEAR = 8
#: Photos that each of two people in one folder must have for it to be mixed.
_PAIR = 3
#: Cosine with the mean of ten faces that have nothing in common, for one of them: less is no copy of a face of that person.
_FAR = 0.3


def unlike_limit(threshold: float) -> float:
    """Return the cosine below which a face hardly is its person's. threshold: that two faces of one person should reach."""
    return _UNLIKE * threshold


def groups_of(vectors: Float32, threshold: float) -> list[int]:
    """Return the sizes of the groups that faces fall into, largest first: how many people they are of.

    vectors: float32 (n, d), unit. threshold: that two faces of one person should reach. Groups are joined while the mean cosine
    of their faces is high enough (average linkage: Sokal and Michener 1958).
    """
    step = max(1, -(-len(vectors) // _SAMPLE))
    sums = vectors[::step].astype(np.float64)
    sizes = np.ones(len(sums))
    means = sums @ sums.T
    np.fill_diagonal(means, -np.inf)
    while len(sums) > 1:
        first, second = divmod(int(means.argmax()), len(sums))
        if means[first, second] < _APART * threshold:
            break
        sums[first] += sums[second]
        sizes[first] += sizes[second]
        means[second] = means[:, second] = -np.inf
        sizes[second], sums[second] = 1.0, 0.0
        joined = sums @ sums[first] / (sizes * sizes[first])
        joined[~np.isfinite(means).any(axis=1)] = -np.inf
        joined[first] = -np.inf
        means[first] = means[:, first] = joined
    return sorted((int(size) * step for size, total in zip(sizes, sums, strict=True) if total.any()), reverse=True)


def are_several(sizes: Sequence[int]) -> bool:
    """Say whether groups of faces are of several people, and not of one with some odd photos.

    Two people are told from one only where both have some photos, and nearly as many: else the odd ones are refused one by one.
    """
    many = len(sizes) >= 3 and 2 * sizes[0] <= sum(sizes)
    pair = len(sizes) >= 2 and sizes[1] >= _PAIR and 3 * sizes[1] >= 2 * sizes[0]
    return many or pair


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one face. Cosines; -1 where there is nothing to compare with.

    accepted: whether it may be enrolled as this person. own: with the mean of the person's other faces. nearest: with the nearest of
    them. other, name: with the most similar other person. refuted: with the nearest face that was said not to be the person.
    copy_of: place of the earlier face of this person that it nearly is, -1 for one that is enrolled, None when it is no copy.
    """

    accepted: bool
    own: float
    nearest: float
    other: float
    name: str
    refuted: float
    copy_of: int | None


class Judge:
    """Judges faces that are to be enrolled in one run."""

    def __init__(
        self, snapshot: GallerySnapshot, people: Sequence[str], vectors: Float32, *, limit: float, same: float
    ) -> None:
        """Take the gallery and the new faces.

        people: n names. vectors: float32 (n, d), unit. limit: cosine from which on two people are confused. same: cosine from
        which on two faces are one picture.
        """
        self._vectors, self._limit, self._same = vectors, limit, same
        self._names = list(dict.fromkeys(people))
        number = {name: place for place, name in enumerate(self._names)}
        self._owner = np.array([number[name] for name in people], np.int64)
        rows = {name: row for row, name in enumerate(snapshot.persons)}
        enrolled = [
            snapshot.vectors[snapshot.faces_of(rows[name])] if name in rows else vectors[:0] for name in self._names
        ]
        self._sums = np.array([faces.sum(axis=0, dtype=np.float64) for faces in enrolled]).reshape(-1, vectors.shape[1])
        self._counts = np.array([len(faces) for faces in enrolled])
        self._in = np.zeros(len(vectors), bool)  # accepted, as far as is known
        self._nearest = self._most_like([(faces, self._owner == place) for place, faces in enumerate(enrolled)])
        negatives = [snapshot.negatives[snapshot.negative_owners == rows.get(name, -1)] for name in self._names]
        self._refuted = self._most_like([(faces, self._owner == place) for place, faces in enumerate(negatives)])
        self._compare_with_strangers(snapshot, np.array([rows.get(name, -1) for name in self._names]))
        self._find_copies()

    def _most_like(self, pairs: Sequence[tuple[Float32, NDArray[np.bool_]]]) -> Float32:
        """Return for each new face the greatest cosine with known faces; pairs: known faces, and which new ones they are for."""
        best = np.full(len(self._vectors), -1.0, np.float32)
        for faces, mine in pairs:
            if len(faces) and mine.any():
                best[mine] = (self._vectors[mine] @ faces.T).max(axis=1)
        return best

    def _compare_with_strangers(self, snapshot: GallerySnapshot, rows: Int64) -> None:
        """Find the most similar enrolled person who is not in this run, and whether a face is a copy of another person's."""
        scores, found = ExactIndex(snapshot.templates).search(self._vectors, _NEAR)
        outside = (found >= 0) & ~np.isin(found, rows)
        place = outside.argmax(axis=1)
        each = np.arange(len(found))
        self._outside = np.where(outside.any(axis=1), scores[each, place], -1.0)
        self._outside_name = [snapshot.persons[row] for row in found[each, place]] if len(snapshot.persons) else []
        self._taken: dict[int, tuple[str, float]] = {}
        for face, near in enumerate(found):
            for row in near[(scores[face] >= _FAR) & (near != rows[self._owner[face]])]:
                score = float((snapshot.vectors[snapshot.faces_of(int(row))] @ self._vectors[face]).max())
                if score >= max(self._same, self._taken.get(face, ("", -1.0))[1]):
                    self._taken[face] = (snapshot.persons[row], score)

    def _find_copies(self) -> None:
        """Find pairs of new faces that are nearly the same: copies of one person's, and one face under two names."""
        self._copy_of: dict[int, int] = {int(face): -1 for face in np.flatnonzero(self._nearest >= self._same)}
        self._twins: list[tuple[int, int]] = []
        for start in range(0, len(self._vectors), _BLOCK):
            near = self._vectors[start : start + _BLOCK] @ self._vectors.T >= self._same
            for later, earlier in np.argwhere(near).tolist():
                later += start
                if earlier < later and self._owner[earlier] != self._owner[later]:
                    self._twins.append((earlier, later))
                elif earlier < later and later not in self._copy_of and earlier not in self._copy_of:
                    self._copy_of[later] = earlier

    def verdicts(self, *, force: bool = False) -> list[Verdict]:
        """Return the verdict on each face, in order. force: accept whatever is no copy."""
        if not len(self._vectors):
            return []
        usable = np.ones(len(self._in), bool)
        usable[list(self._copy_of)] = False
        if force:
            self._in[:] = usable
        else:
            # Who is enrolled already is not judged again, and what is new to them waits until everybody else's photos are settled.
            self._in[:] = usable & (self._counts[self._owner] == 0)
            self._expel()
            barred = np.zeros(len(self._in), bool)
            while (fine := self._fine(usable & ~barred)).any():
                self._in |= fine
                barred |= self._expel()
            # What contradicted others before may not do so now. One by one, so that a second run would find nothing to add.
            while (fine := self._fine(usable)).any():
                self._in[np.where(fine, self._excess(), np.inf).argmin()] = True
        own, other, names = self._likeness()
        nearest = self._nearest.copy()
        for place in range(len(self._names)):
            mine = np.flatnonzero(self._owner == place)
            faces = self._vectors[mine]
            cosines = np.where(self._in[mine][None, :], faces @ faces.T, -1.0)
            np.fill_diagonal(cosines, -1.0)
            nearest[mine] = np.maximum(nearest[mine], cosines.max(axis=1))
        return [
            Verdict(bool(kept), float(a), float(b), float(c), names[i], float(d), self._copy_of.get(i))
            for i, (kept, a, b, c, d) in enumerate(zip(self._in, own, nearest, other, self._refuted, strict=True))
        ]

    def _likeness(self) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
        """Return each face's cosine with its person's others and with the most similar other person, and who that is."""
        sums, counts = self._sums.copy(), self._counts.copy()
        np.add.at(sums, self._owner[self._in], self._vectors[self._in])
        np.add.at(counts, self._owner[self._in], 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            products = self._vectors @ sums.T
            lengths = np.linalg.norm(sums, axis=1)
            cosines = np.where(counts > 0, products / lengths, -1.0)
            each = np.arange(len(self._in))
            mine = products[each, self._owner] - self._in
            rest = np.sqrt(np.maximum(lengths[self._owner] ** 2 - self._in * (2 * products[each, self._owner] - 1), 0))
            own = np.where(counts[self._owner] - self._in > 0, mine / rest, -1.0)
        cosines[each, self._owner] = -1.0
        other, who = cosines.max(axis=1), cosines.argmax(axis=1)
        names = [self._names[place] for place in who]
        for face in np.flatnonzero(self._outside > other).tolist():
            other[face], names[face] = self._outside[face], self._outside_name[face]
        for face, (name, score) in self._taken.items():
            other[face], names[face] = max(score, other[face]), name
        return np.nan_to_num(own, nan=-1.0), other, names

    def _excess(self) -> NDArray[np.float64]:
        """Return by how much each face is more like somebody else, or a refuted face, than like its person; <= 0 is fine."""
        own, other, _ = self._likeness()
        against = np.maximum(other, self._refuted)
        excess = np.where(against >= self._limit, against - own, -1.0)
        excess[list(self._taken)] = 4.0
        for (
            earlier,
            later,
        ) in self._twins:  # the same face under two names: whose others support it keeps it, else the first
            if self._in[earlier] and self._in[later]:
                loser = int(earlier if own[earlier] < own[later] else later)
                excess[loser] = 3.0 + abs(own[earlier] - own[later])
            elif self._in[earlier] or self._in[later]:
                excess[later if self._in[earlier] else earlier] = 4.0
        return excess

    def _fine(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which faces could be accepted now."""
        return among & ~self._in & ~(self._excess() > 0)

    def _expel(self) -> NDArray[np.bool_]:
        """Take out accepted faces that are more like somebody else, the clearest of each two people first; return which."""
        gone = np.zeros(len(self._in), bool)
        while True:
            excess = np.where(self._in, self._excess(), -1.0)
            if not (excess > 0).any():
                return gone
            touched: set[str] = set()
            _, _, names = self._likeness()
            # Where nothing else decides, who came first stays.
            for face in np.lexsort((-np.arange(len(excess)), -excess))[: int((excess > 0).sum())].tolist():
                people = {self._names[self._owner[face]], names[face]}
                if not touched & people:
                    self._in[face], gone[face] = False, True
                touched |= people
