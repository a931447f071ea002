"""Cuts aligned chips: the pixels of a face, turned, scaled and placed as an embedder was trained to see them.

Two ways to place a face. A template with `points` takes the similarity transform (turn, one scale, shift; no mirror)
that brings the five landmarks nearest to its points in the least-squares sense (Umeyama 1991). A template without
points takes the detector's box, widened by a margin, turned only by the quarters by which the face was found.

A face that is larger than the chip is averaged, not sampled: taking single pixels of a fine picture makes false
patterns (aliasing) that the networks have never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from facepipe.errors import NoFaceError, UsageError
from facepipe.types import Face, Float32, Image, UInt8

_Float64 = NDArray[np.float64]

#: A face is averaged over at most this many samples along each side of a chip's pixel. Beyond that (a face of some
#: 900 pixels for a chip of 112) the cost grows and the chip no longer changes.
MAX_OVERSAMPLING = 8


@dataclass(frozen=True, slots=True)
class Template:
    """How chips of one kind are cut.

    size: side of the square chip in pixels.
    points: where the five landmarks belong, in chip pixels (x, y), ordered as `Face.landmarks`; None: the box is cut
        instead.
    margin: pixels of the chip that lie outside the box, both sides together; only without points.
    source: who defined it.
    """

    name: str
    size: int
    points: tuple[tuple[float, float], ...] | None
    margin: int = 0
    source: str = ""


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(
            "arcface112",
            112,
            ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
            source="the reference points of ArcFace (Deng et al. 2019), used by most published embedders",
        ),
        Template(
            "margin160",
            160,
            None,
            margin=14,
            source="facenet-pytorch's extract_face, with the margin of its own LFW evaluation",
        ),
    )
}


def get_template(name: str) -> Template:
    """Return a template by name; UsageError when there is none of this name."""
    if name not in TEMPLATES:
        raise UsageError(f"no alignment template {name!r}; choose one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def similarity_transforms(landmarks: NDArray[np.floating], points: NDArray[np.floating]) -> _Float64:
    """Return the least-squares similarities that map each set of landmarks to the points.

    landmarks: (n, k, 2). points: (k, 2). Returns (n, 2, 3): matrices that take (x, y, 1) of the picture to the chip.
    In the plane Umeyama's solution is a division of complex numbers, so all faces are solved at once: with both sides
    centred, turn and scale together are sum(conj(z) w) / sum(|z|^2). Sets whose points coincide give non-finite values.
    """
    source = np.asarray(landmarks, np.float64)
    target = np.asarray(points, np.float64)
    with np.errstate(all="ignore"):
        z = source[..., 0] + 1j * source[..., 1]
        w = target[..., 0] + 1j * target[..., 1]
        z_mean, w_mean = z.mean(axis=1, keepdims=True), w.mean()
        centred = z - z_mean
        turn = (np.conj(centred) * (w - w_mean)).sum(axis=1) / (np.abs(centred) ** 2).sum(axis=1)
        shift = w_mean - turn * z_mean[:, 0]
    return np.stack(
        [np.stack([turn.real, -turn.imag, shift.real], -1), np.stack([turn.imag, turn.real, shift.imag], -1)], axis=1
    )


def align(image: Image, faces: Sequence[Face], template: str | Template) -> UInt8:
    """Cut the aligned chips of the faces of one picture.

    template: a name in `TEMPLATES`, or a template of one's own. Returns uint8 RGB (n, size, size, 3), one chip per face,
    in order; n may be 0. What lies outside the picture is black. Raises UsageError for an unknown template, NoFaceError
    for a face whose landmarks coincide or are not finite.
    """
    chosen = template if isinstance(template, Template) else get_template(template)
    chips = np.zeros((len(faces), chosen.size, chosen.size, 3), np.uint8)
    if not faces:
        return chips
    if chosen.points is None:
        boxes = np.stack([face.box for face in faces]) * image.scale
        for chip, box, face in zip(chips, boxes, faces, strict=True):
            _cut_box(image.rgb, box, chosen, chip)
            chip[:] = np.rot90(chip, -face.turn // 90).copy()
        return chips
    landmarks = np.stack([face.landmarks for face in faces]) * image.scale
    matrices = similarity_transforms(landmarks, np.asarray(chosen.points))
    for chip, matrix in zip(chips, matrices, strict=True):
        if not np.isfinite(matrix).all() or not matrix.any():
            raise NoFaceError(f"{image.path}: the five landmarks of a face coincide; it cannot be aligned")
        chip[:] = _cut_turned(image.rgb, matrix, chosen.size)
    return chips


def _cut_turned(rgb: UInt8, matrix: _Float64, size: int) -> UInt8:
    """Warp one face; pixels of a large face are averaged over k x k samples (see `MAX_OVERSAMPLING`)."""
    shrink = 1.0 / float(np.hypot(matrix[0, 0], matrix[1, 0]))
    k = min(max(ceil(shrink - 0.25), 1), MAX_OVERSAMPLING)
    fine = matrix * k
    fine[:, 2] += (k - 1) / 2  # sample i of k lies at (i - (k - 1) / 2) / k from the chip pixel's centre
    chip = cv2.warpAffine(rgb, fine, (k * size, k * size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if k > 1:
        chip = cv2.resize(chip, (size, size), interpolation=cv2.INTER_AREA)
    return chip  # type: ignore[return-value]


def _cut_box(rgb: UInt8, box: Float32, template: Template, chip: UInt8) -> None:
    """Cut the box and its margin, clipped to the picture, and fit it into the chip by area averaging.

    The margin is measured in chip pixels, so the picture's is margin * side / (size - margin), half on each side.
    A box outside the picture leaves the chip black.
    """
    height, width = rgb.shape[:2]
    widen = template.margin / (template.size - template.margin) / 2
    x1, y1, x2, y2 = (float(v) for v in box)
    grow_x, grow_y = (x2 - x1) * widen, (y2 - y1) * widen
    left, top = int(max(x1 - grow_x, 0)), int(max(y1 - grow_y, 0))
    right, bottom = int(min(x2 + grow_x, width)), int(min(y2 + grow_y, height))
    if left < right and top < bottom:
        cv2.resize(rgb[top:bottom, left:right], (template.size, template.size), dst=chip, interpolation=cv2.INTER_AREA)
