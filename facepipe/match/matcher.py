"""Step 3: who in the gallery is most similar to each face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facepipe.errors import GalleryModelError
from facepipe.match.exact import ExactIndex
from facepipe.types import Candidate, Described, Embeddings, Float32, Index, Int64, Matched, Policy

#: People whom the index proposes beyond those asked for: its similarities are rounded otherwise than the ones that decide.
_SPARE = 2
#: Floats in the products that are summed at a time.
_BUDGET = 1 << 22


class Matcher:
    """Finds the people whose templates are most similar to a face.

    A person's template is the unit mean of the enrolled vectors. The single vectors are kept too: they tell which enrolled
    face is nearest to the probe.
    """

    def __init__(
        self,
        fingerprint: str,
        persons: Sequence[str],
        templates: Float32,
        vectors: Float32,
        owners: Int64,
        face_ids: Int64,
        *,
        negatives: Float32 | None = None,
        negative_owners: Int64 | None = None,
        index: Index | None = None,
    ) -> None:
        """Take the gallery's arrays; none is copied.

        fingerprint: of the embedder that made the vectors.
        persons: p names.
        templates: float32 (p, d), unit.
        vectors: float32 (n, d), unit, the enrolled faces.
        owners: int64 (n,), index into persons.
        face_ids: int64 (n,).
        negatives: float32 (m, d), unit, faces that are not the person of negative_owners.
        negative_owners: int64 (m,), index into persons.
        index: over `templates`; None: exact.
        Errors: ValueError for arrays that do not fit each other.
        """
        if len(persons) != len(templates) or not len(vectors) == len(owners) == len(face_ids):
            raise ValueError(
                f"Matcher: {len(persons)} persons, {len(templates)} templates, {len(vectors)} vectors, "
                f"{len(owners)} owners, {len(face_ids)} face ids do not fit each other"
            )
        self.fingerprint = fingerprint
        self.persons = tuple(persons)
        self._templates = np.ascontiguousarray(templates, np.float32)
        self._vectors, self._face_ids = vectors, face_ids
        # Rows of each person, so that the nearest enrolled face of a candidate is found without a pass over the gallery.
        self._by_owner = np.argsort(owners, kind="stable")
        self._starts = np.searchsorted(owners[self._by_owner], np.arange(len(persons) + 1))
        self._index = index or ExactIndex(self._templates)
        self._negatives = negatives
        self._refuted: dict[int, list[int]] = {}
        for row, owner in enumerate(() if negative_owners is None else negative_owners):
            self._refuted.setdefault(int(owner), []).append(row)

    def __len__(self) -> int:
        return len(self.persons)

    def search(self, embeddings: Embeddings, k: int) -> list[tuple[Candidate, ...]]:
        """Return the k most similar people of each embedding, best first; fewer when the gallery is smaller.

        A face's candidates do not depend on what is searched with it, to the last digit. Of people who are equally similar
        the one with the lower row comes first.
        Errors: GalleryModelError when the embeddings come from another network than the gallery's.
        """
        if embeddings.fingerprint != self.fingerprint:
            raise GalleryModelError(
                f"the gallery was made by {self.fingerprint}, this face was embedded by {embeddings.fingerprint}: "
                "use the gallery's model, or move the gallery with `facepipe gallery reembed`"
            )
        if not len(self) or not len(embeddings):
            return [() for _ in range(len(embeddings))]
        vectors = np.ascontiguousarray(embeddings.vectors)
        # People whom a probe is known not to be drop out of its list; a few more are asked for, so that it stays full.
        wanted = min(k + _SPARE + min(len(self._refuted), 8), len(self))
        rows = np.sort(self._index.search(vectors, wanted)[1], axis=1)
        similarities = self._similarities(vectors, rows)
        order = np.argsort(-similarities, axis=1, kind="stable")
        best = np.take_along_axis(similarities, order, axis=1).tolist()
        people = np.take_along_axis(rows, order, axis=1).tolist()
        return [self._candidates(*probe, k) for probe in zip(vectors, best, people, strict=True)]

    def _similarities(self, vectors: Float32, rows: Int64) -> Float32:
        """Return the cosine of each probe with the people in its row, float32 (n, k); -inf where the row is -1."""
        found = np.empty(rows.shape, np.float32)
        step = max(1, _BUDGET // (rows.shape[1] * vectors.shape[1]))
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            found[some] = inner_products(self._templates[rows[some]], vectors[some, None])
        found[rows < 0] = -np.inf
        return found

    def _candidates(self, vector: Float32, similarities: list[float], rows: list[int], k: int) -> tuple[Candidate, ...]:
        candidates: list[Candidate] = []
        for similarity, row in zip(similarities, rows, strict=True):
            if len(candidates) == k or row < 0:
                break
            if not self._is_refuted(vector, row, similarity):
                bounded = min(1.0, max(-1.0, similarity))
                candidates.append(Candidate(self.persons[row], bounded, self._nearest(vector, row)))
        return tuple(candidates)

    def _is_refuted(self, vector: Float32, person: int, similarity: float) -> bool:
        """Say whether the probe is more like a face that was said not to be this person than like the person."""
        rows = self._refuted.get(person)
        if rows is None or self._negatives is None:
            return False
        return bool(inner_products(self._negatives[rows], vector).max() > similarity)

    def _nearest(self, vector: Float32, person: int) -> int | None:
        rows = self._by_owner[self._starts[person] : self._starts[person + 1]]
        if len(rows) < 2:
            return int(self._face_ids[rows[0]]) if len(rows) else None
        return int(self._face_ids[rows[np.argmax(inner_products(self._vectors[rows], vector))]])


def match(matcher: Matcher, photos: Sequence[Described], policy: Policy) -> list[Matched]:
    """Find the people who are most similar to each face; the faces of all photos are searched together.

    Errors: GalleryModelError when the embeddings come from another network than the gallery's.
    """
    if not photos:
        return []
    # One more candidate than is shown: the margin needs a rival, and an assignment needs somebody to fall back on.
    crowd = max(len(photo.faces) for photo in photos) if policy.exclusive else 1
    vectors = np.concatenate([photo.embeddings.vectors for photo in photos])
    found = matcher.search(Embeddings(vectors, photos[0].embeddings.fingerprint), max(policy.top_k, crowd) + 1)
    candidates = iter(found)
    return [Matched(photo, tuple(next(candidates) for _ in photo.faces)) for photo in photos]


def inner_products(first: Float32, second: Float32) -> Float32:
    """Return the inner products along the last axis; each is summed by itself, whatever stands beside it.

    A matrix product (BLAS) would round otherwise for another number of rows.
    """
    return np.asarray((first * second).sum(axis=-1), np.float32)
