"""A frozen picture of the gallery as arrays: what the matcher reads.

Built from the derived file of vectors (memory-mapped, private, copy on write) and what changed since it was written, so
opening costs what changed and not what is enrolled; see `vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facepipe.types import Float32, Int64


@dataclass(frozen=True, slots=True, eq=False)
class GallerySnapshot:
    """The gallery at one generation. Arrays are read-only and do not change when the gallery does.

    persons: names; every one has at least one face.
    templates: float32 (p, d), the unit mean of each person's vectors (a single face's vector as it is).
    vectors: float32 (n, d), unit.
    owners: int64 (n,), index into persons.
    face_ids: int64 (n,), ids in the database.
    person_ids: int64 (p,).
    negatives: float32 (m, d), faces that are not the person in negative_owners, int64 (m,), index into persons.
    generation: of the database.
    fingerprint: of the embedder.
    identity: of the gallery.
    """

    persons: tuple[str, ...]
    templates: Float32
    vectors: Float32
    owners: Int64
    face_ids: Int64
    person_ids: Int64
    negatives: Float32
    negative_owners: Int64
    generation: int
    fingerprint: str
    identity: str

    def __post_init__(self) -> None:
        people, dim = len(self.persons), self.vectors.shape[1]
        faces = len(self.vectors)
        expected = {
            "templates": (people, dim),
            "vectors": (faces, dim),
            "owners": (faces,),
            "face_ids": (faces,),
            "person_ids": (people,),
            "negatives": (len(self.negative_owners), dim),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"GallerySnapshot.{name}: expected shape {shape}, got {array.shape}")
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        if faces and not 0 <= int(self.owners.min()) <= int(self.owners.max()) < people:
            raise ValueError(f"GallerySnapshot.owners: expected 0..{people - 1}")

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    def faces_of(self, person: int) -> Int64:
        """Return the rows of a person's vectors, int64 (k,)."""
        return np.flatnonzero(self.owners == person).astype(np.int64)


def unit_means(vectors: Float32, starts: Int64) -> Float32:
    """Return the unit mean of each group of rows, float32 (g, d).

    vectors: float32 (n, d), the groups one after the other. starts: int64 (g,), first row of each group, rising. A
    group of one keeps its vector bit for bit. A group whose mean is zero (opposite vectors) keeps its first vector.
    """
    if not len(starts):
        return np.zeros((0, vectors.shape[1]), np.float32)
    sums = np.add.reduceat(vectors, starts, axis=0, dtype=np.float32)
    counts = np.diff(np.append(starts, len(vectors)))
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    flat = norms[:, 0] < 1e-6
    means = np.asarray(sums / np.where(flat[:, None], 1.0, norms), np.float32)
    keep = flat | (counts == 1)
    means[keep] = vectors[starts[keep]]
    return means
