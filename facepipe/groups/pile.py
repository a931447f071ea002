"""The faces of a catalog as arrays: what grouping and suggestions work on. The vectors stay in the catalog, and in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.packing import clip_of, quality_of, raw_faces
from facepipe.errors import InputError, UsageError
from facepipe.groups.values import FaceKey
from facepipe.text import printable
from facepipe.types import SURE_SCORE, Face, Float32, Int64, Span

#: Overlap of two boxes of a photo from which on they are one face.
SAME_BOX = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Pile:
    """The faces of a catalog, photo after photo.

    contents, paths, taken: of each photo the SHA-256, a path, and when it was taken. photos: int64 (n,), each face's photo, rising.
    numbers: int64 (n,), the place of each in its photo. boxes: float32 (n, 4). scores: float32 (n,). turns: int64 (n,), see `Face`.
    landmarks: float32 (n, 5, 2). quality: float64 (n, q), in the order of `Quality`. vectors: float32 (n, d), unit.
    model: fingerprint of the embedder. spans: of the faces of videos, by row.
    """

    contents: list[str]
    paths: list[str]
    taken: list[str | None]
    photos: Int64
    numbers: Int64
    boxes: Float32
    scores: Float32
    turns: Int64
    landmarks: Float32
    quality: NDArray[np.float64]
    vectors: Float32
    model: str
    spans: Mapping[int, Span] = field(default_factory=dict)
    _rows: dict[tuple[str, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.photos)

    def key(self, row: int) -> FaceKey:
        """Return the name of a face."""
        return FaceKey(self.contents[int(self.photos[row])], int(self.numbers[row]))

    def row(self, key: FaceKey) -> int | None:
        """Return the row of a face, None when it is not in the catalog."""
        return self.rows.get((key.content, key.number))

    def require(self, key: FaceKey) -> int:
        """Return the row of a face. UsageError when it is not in the catalog."""
        row = self.row(key)
        if row is None:
            raise UsageError(f"photo {key.content[:12]} has no face {key.number + 1} in this catalog")
        return row

    @property
    def rows(self) -> Mapping[tuple[str, int], int]:
        """The rows by the photo's SHA-256 and the place in it."""
        if not self._rows and len(self):
            contents = self.contents
            pairs = zip(self.photos.tolist(), self.numbers.tolist(), strict=True)
            self._rows.update({(contents[photo], number): row for row, (photo, number) in enumerate(pairs)})
        return self._rows

    def rows_of(self, content: str) -> list[int]:
        """Return the rows of a photo's faces, in their order."""
        rows, number = [], 0
        while (row := self.row(FaceKey(content, number))) is not None:
            rows.append(row)
            number += 1
        return rows

    def path(self, row: int) -> str:
        """Return a photo that a face is in."""
        return self.paths[int(self.photos[row])]

    def date(self, row: int) -> str | None:
        """Return when it was taken."""
        return self.taken[int(self.photos[row])]

    def box(self, row: int) -> tuple[float, ...]:
        """Return its box."""
        return tuple(float(value) for value in self.boxes[row])

    def face(self, row: int) -> Face:
        """Return a face as step 1 found it."""
        quality = quality_of(*self.quality[row].tolist())
        box, points, span = self.boxes[row], self.landmarks[row], self.spans.get(row)
        return Face(box, float(self.scores[row]), points, quality, int(self.turns[row]), span=span)

    def at_once(self, row: int) -> set[tuple[int, int]]:
        """Return names of the moments in which a face begins while this one is seen; two faces that are seen at one time share one.

        In a photo there is one moment.
        """
        photo, span = int(self.photos[row]), self.spans.get(row)
        if span is None:
            return {(photo, -1)}
        rows = range(*np.searchsorted(self.photos, (photo, photo + 1)).tolist())
        return {(photo, other) for other in rows if span.start <= self.spans[other].start <= span.end}

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Which faces the detector is sure of."""
        return np.asarray(self.scores >= SURE_SCORE, np.bool_)


def read_pile(catalog: Catalog) -> Pile:
    """Read a catalog's faces. Errors: InputError when embeddings were not kept."""
    contents, paths, taken = [], [], []
    parts, vectors, counts = [], [], []
    spans: dict[int, Span] = {}
    lacking = faces = 0
    for content, path, date, data in catalog.contents():
        raw = raw_faces(data)
        if raw is None:  # not kept, or damaged and found again by the next scan
            lacking += data is None
            continue
        contents.append(content)
        paths.append(path)
        taken.append(date)
        parts.append(raw[1])
        vectors.append(raw[2])
        counts.append(len(raw[1]))
        assert data is not None
        seen = clip_of(data)[1].tolist()
        spans.update((faces + number, Span(*span)) for number, span in enumerate(seen))
        faces += len(raw[1])
    if lacking and not contents:
        raise InputError(
            f"{printable(catalog.path)}: holds no embeddings to group faces by (--no-keep-embeddings, or a sealed gallery, whose "
            "batches keep none); run it again with --keep-embeddings"
        )
    rows = np.concatenate(parts) if parts else None
    dim = max((part.shape[1] for part in vectors if len(part)), default=0)
    each = np.asarray(counts, np.int64)
    photos = np.repeat(np.arange(len(each), dtype=np.int64), each)
    if rows is None or not len(rows):
        none = np.zeros((0, 1), np.float32)
        quality = np.zeros((0, 1), np.float64)
        return Pile(
            contents, paths, taken, photos, photos, none, none[:, 0], photos, none, quality, none, catalog.model
        )
    starts = np.cumsum(each) - each
    return Pile(
        contents,
        paths,
        taken,
        photos,
        np.arange(len(rows), dtype=np.int64) - starts[photos],
        rows["box"].astype(np.float32),
        rows["score"].astype(np.float32),
        rows["turn"].astype(np.int64),
        rows["landmarks"].astype(np.float32),
        rows["quality"].astype(np.float64),
        np.concatenate([part for part in vectors if len(part)]).reshape(-1, dim),
        catalog.model,
        spans,
    )


def overlap(one: Float32, other: Float32) -> float:
    """Return intersection over union of two boxes."""
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return shared / max(sum(areas) - shared, 1e-9)
