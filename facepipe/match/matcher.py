"""Stage 3, match: compare embeddings with the gallery's people through a FAISS index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from facepipe.errors import GalleryModelError
from facepipe.types import Candidate, Embeddings, Float32, Int64

if TYPE_CHECKING:
    pass


class Index(Protocol):
    """A nearest-neighbour index over rows of vectors, by inner product."""

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """Return similarities and rows, both (n, k), best first; row -1 where there are fewer than k."""
        ...


class Matcher:
    """Finds the people whose templates are most similar to a face.

    A person's template is the unit mean of the enrolled vectors. The single vectors are kept too: they tell which enrolled face
    is nearest to the probe.
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
        """Index the templates.

        persons: p names. templates: float32 (p, d), unit. vectors: float32 (n, d), unit. owners: int64 (n,), which person.
        face_ids: int64 (n,). negatives: float32 (m, d), unit, faces that are not the person negative_owners, int64 (m,), says.
        index: another index over `templates`; None: exact inner product. Errors: ValueError for arrays that do not fit each other.
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
        self._index = index or _exact(self._templates)
        self._refuted: dict[int, list[int]] = {}
        self._negatives = negatives
        for row, owner in enumerate(() if negative_owners is None else negative_owners):
            self._refuted.setdefault(int(owner), []).append(row)

    def __len__(self) -> int:
        return len(self.persons)

    def search(self, embeddings: Embeddings, k: int) -> list[tuple[Candidate, ...]]:
        """Return the k most similar people of each embedding, best first; fewer when the gallery is smaller.

        Errors: GalleryModelError when the embeddings come from another network than the gallery's.
        """
        if embeddings.fingerprint != self.fingerprint:
            raise GalleryModelError(
                f"the gallery was made by {self.fingerprint}, this face was embedded by {embeddings.fingerprint}: "
                "use the gallery's model, or move the gallery with `facepipe gallery reembed`"
            )
        if not len(self) or not len(embeddings):
            return [() for _ in range(len(embeddings))]
        # People whom a probe is known not to be drop out of its list; a few more are asked for, so that it stays full.
        wanted = min(k + min(len(self._refuted), 8), len(self))
        similarity, rows = self._index.search(np.ascontiguousarray(embeddings.vectors), wanted)
        return [
            tuple(self._candidates(vector, values, found))[:k]
            for vector, values, found in zip(embeddings.vectors, similarity, rows, strict=True)
        ]

    def _candidates(self, vector: Float32, values: Float32, found: Int64) -> Iterator[Candidate]:
        for value, row in zip(values.tolist(), found.tolist(), strict=True):
            if row >= 0 and not self._is_refuted(vector, row, value):
                yield Candidate(self.persons[row], float(np.clip(value, -1.0, 1.0)), self._nearest(vector, row))

    def _is_refuted(self, vector: Float32, person: int, similarity: float) -> bool:
        """Say whether the probe is more like a face that was said not to be this person than like the person."""
        rows = self._refuted.get(person)
        if rows is None or self._negatives is None:
            return False
        return bool((self._negatives[rows] @ vector).max() > similarity)

    def _nearest(self, vector: Float32, person: int) -> int | None:
        rows = self._by_owner[self._starts[person] : self._starts[person + 1]]
        if not rows.size:
            return None
        return int(self._face_ids[rows[np.argmax(self._vectors[rows] @ vector)]])


def _exact(templates: Float32) -> Index:
    # Not at the top: a gallery brings its own index, and one photo is answered sooner without this import.
    import faiss

    index = faiss.IndexFlatIP(templates.shape[1] if templates.size else 1)
    if len(templates):
        index.add(templates)
    return cast(Index, index)
