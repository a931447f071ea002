"""Which pixels speak for a person: parts of the aligned face are covered, and the similarity that is lost is theirs.

Occlusion sensitivity (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014) with patches of several
sizes, as Knoche et al. ("Explainable Model-Agnostic Similarity and Confidence in Face Verification", 2023) cover faces. It asks the
network nothing but for vectors, so that it explains every embedder. Patches are grey and blurred in turn, as on a chessboard: one
alone would also show what the network makes of a grey square, and both at each place say no more in twice the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from facepipe.embed.alignment import Template, get_template, similarity_transforms
from facepipe.types import Embedder, Face, Float32, Image, UInt8

#: Side of the patches and their distance, as shares of the chip's side.
PATCHES = ((0.13, 0.1), (0.22, 0.14), (0.36, 0.2))
_GREY = 128
#: Spread of the blur that hides a part, as a share of the chip's side.
_BLUR = 0.09


@dataclass(frozen=True, slots=True, eq=False)
class Covered:
    """An aligned face and copies of it of which parts are covered, embedded.

    masks: float32 (m, size, size), 1 where a patch covers, soft at its border. groups: int (m,), which size of patch.
    whole: float32 (d,), the vector of the face as it is. vectors: float32 (m, d), of the copies.
    """

    masks: Float32
    groups: tuple[int, ...]
    whole: Float32
    vectors: Float32

    def map_of(self, direction: Float32) -> Float32:
        """Return by how much each pixel raises the inner product with a direction, float32 (size, size).

        direction: float32 (d,); a person's template: what makes the face similar to the person; the difference of two: what makes
        it more similar to the first than to the second. Negative where covering a pixel raises it.
        """
        lost = self.whole @ direction - self.vectors @ direction
        groups = np.asarray(self.groups)
        areas = self.masks.sum(axis=(1, 2))
        found = np.zeros(self.masks.shape[1:], np.float32)
        for group in np.unique(groups):
            rows = groups == group
            weight = areas[rows].max()  # small patches lose less, and say more exactly where
            found += (
                np.tensordot(lost[rows], self.masks[rows], 1) / np.maximum(self.masks[rows].sum(axis=0), 1e-6) / weight
            )
        return np.asarray(found / len(np.unique(groups)) * areas.max(), np.float32)


def cover(embedder: Embedder, chip: UInt8) -> Covered:
    """Cover the parts of a chip, uint8 (size, size, 3), one after the other, and embed what is left, in batches."""
    masks, groups, fills = patches(len(chip))
    blurred = cv2.GaussianBlur(chip, (0, 0), _BLUR * len(chip))
    change = np.stack([_GREY - chip.astype(np.float32), blurred.astype(np.float32) - chip])
    copies = [
        np.rint(chip + mask[..., None] * change[fill]).astype(np.uint8) for mask, fill in zip(masks, fills, strict=True)
    ]
    vectors = embedder.embed(np.stack([chip, *copies])).vectors
    return Covered(masks, groups, vectors[0], vectors[1:])


@cache
def patches(size: int) -> tuple[Float32, tuple[int, ...], tuple[int, ...]]:
    """Return the masks of all patches for chips of a size, which size of patch each is, and what covers: 0 grey, 1 the blurred face.

    Each pixel is covered by patches of each size.
    """
    masks, groups, fills = [], [], []
    for group, (side, step) in enumerate(PATCHES):
        side, step = round(side * size), round(step * size)
        places = [middle - side // 2 for middle in range(step // 2, size, step)]
        for row, y in enumerate(places):
            for column, x in enumerate(places):
                mask = np.zeros((size, size), np.float32)
                mask[max(0, y) : y + side, max(0, x) : x + side] = 1.0
                masks.append(cv2.GaussianBlur(mask, (0, 0), size / 112))
                groups.append(group)
                fills.append((row + column) % 2)
    return np.stack(masks), tuple(groups), tuple(fills)


def on_photo(found: Float32, image: Image, face: Face, template: str) -> Float32:
    """Return a map over a chip, float32 (size, size), as it lies in the photo: float32 (H, W) of `image.rgb`, 0 around it."""
    height, width = image.rgb.shape[:2]
    matrix = chip_matrix(face, image.scale, get_template(template))
    return np.asarray(
        cv2.warpAffine(found, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32
    )


def chip_matrix(face: Face, scale: float, template: Template) -> NDArray[np.float64]:
    """Return the affine map, float64 (2, 3), from pixels of the photo to those of the chip.

    scale: pixels of the picture per displayed pixel.
    """
    if template.points is not None:
        return np.asarray(similarity_transforms(face.landmarks[None] * scale, np.asarray(template.points))[0])
    widen = template.margin / (template.size - template.margin) / 2
    x1, y1, x2, y2 = (float(value) * scale for value in face.box)
    grow_x, grow_y = (x2 - x1) * widen, (y2 - y1) * widen
    corners = [
        (x1 - grow_x, y1 - grow_y),
        (x2 + grow_x, y1 - grow_y),
        (x2 + grow_x, y2 + grow_y),
        (x1 - grow_x, y2 + grow_y),
    ]
    # The corner that is at the upper left of the face as it stands.
    first = -face.turn // 90 % 4
    upright = [corners[(first + place) % 4] for place in (0, 1, 3)]
    chip = [(0, 0), (template.size, 0), (0, template.size)]
    matrix = cv2.getAffineTransform(np.asarray(upright, np.float32), np.asarray(chip, np.float32))
    return np.asarray(matrix, np.float64)


def strength(maps: Sequence[Float32]) -> float:
    """Return the value at which the colours of these maps are full: that of a strong pixel, not of the strongest."""
    return max((float(np.quantile(np.abs(one), 0.995)) for one in maps), default=0.0) or 1.0
