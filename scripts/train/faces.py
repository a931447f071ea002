"""From a photo's bytes to crops with margin: what `crops` does with each photo, in as many processes as there are cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from facepipe.embed.alignment import TEMPLATES, Template, align, similarity_transforms
from facepipe.errors import ImageError, NoFaceError
from facepipe.images import content_hash, encode_image, read_image_bytes
from facepipe.types import Detector, Embedder, Face, Float32, Image, UInt8
from scripts.train.shards import MARGIN, SIDE
from scripts.train.sources import Photo

_CHIP = TEMPLATES["arcface112"]
assert _CHIP.points is not None
#: The chip's template in the middle of a larger crop: the pixels inside are the chip's own.
CROP = Template("arcface112+8", SIDE, tuple((x + MARGIN, y + MARGIN) for x, y in _CHIP.points), source=_CHIP.source)
#: Where the landmarks belong in a crop, float32 (5, 2).
POINTS: Float32 = np.asarray(CROP.points, np.float32)

JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class CropOptions:
    """What counts as a face worth training on.

    faces: all, largest, or auto (the largest where the folder names one person, else all). min_score: the detector's. min_size:
    shorter side of the box, pixels. max_misfit: mean distance of the landmarks to the template after alignment, crop pixels:
    points that are not a face do not fit. min_inside: share of the chip that lies inside the photo.
    """

    faces: str = "auto"
    min_score: float = 0.95
    min_size: float = 40.0
    max_misfit: float = 6.0
    min_inside: float = 0.6
    max_side: int = 1280


@dataclass(slots=True)
class Found:
    """One crop before it is compared with the others. embedding: float32 (d,), unit, or None."""

    jpeg: bytes
    dhash: bytes
    meta: dict[str, Any]
    embedding: Float32 | None = None


@dataclass(slots=True)
class PhotoCrops:
    """What one photo gave."""

    name: str
    identity: str | None
    sha256: str
    crops: list[Found] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def difference_hash(chip: UInt8) -> bytes:
    """Return a perceptual hash of 256 bits: in a grey picture of 16x17 means, is each one darker than its right neighbour?

    Survives another size, JPEG and light colour changes; a mirror image is another picture.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(chip), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, :-1] < small[:, 1:]).tobytes()


class PhotoWorker:
    """Finds, checks and cuts the faces of photos; with an embedder it describes them as well."""

    def __init__(self, detector: Detector, embedder: Embedder | None, options: CropOptions) -> None:
        self._detector = detector
        self._embedder = embedder
        self._options = options

    def __call__(self, photos: Sequence[Photo]) -> list[PhotoCrops]:
        """Return what each photo gave, in order; a photo that cannot be read is a dropped one."""
        results = [PhotoCrops(photo.name, photo.identity, content_hash(photo.data)) for photo in photos]
        images: list[Image] = []
        readable: list[PhotoCrops] = []
        for photo, result in zip(photos, results, strict=True):
            try:
                images.append(read_image_bytes(photo.data, photo.name, max_side=self._options.max_side))
                readable.append(result)
            except ImageError:
                result.dropped["unreadable"] += 1
        chips: list[UInt8] = []
        for detected, result in zip(self._detector.detect(images), readable, strict=True):
            image, faces = detected.image, detected.faces
            if not faces:
                result.dropped["no face"] += 1
            for face in self._choose(faces, result.identity):
                found = self._cut(image, face, result)
                if found is not None:
                    result.crops.append(found[0])
                    chips.append(found[1])
        if self._embedder is not None and chips:
            vectors = iter(self._embedder.embed(np.stack(chips)).vectors)
            for result in readable:
                for crop in result.crops:
                    crop.embedding = next(vectors)
        return results

    def _choose(self, faces: Sequence[Face], identity: str | None) -> Sequence[Face]:
        rule = self._options.faces
        if rule == "all" or (rule == "auto" and identity is None) or not faces:
            return faces
        return [max(faces, key=lambda f: float((f.box[2] - f.box[0]) * (f.box[3] - f.box[1])))]

    def _cut(self, image: Image, face: Face, result: PhotoCrops) -> tuple[Found, UInt8] | None:
        options = self._options
        if face.score < options.min_score:
            result.dropped["no face: low score"] += 1
            return None
        if face.quality.size < options.min_size:
            result.dropped["small"] += 1
            return None
        matrix = similarity_transforms(face.landmarks[None], POINTS)[0]
        points = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        misfit = float(np.linalg.norm(points - POINTS, axis=1).mean())
        if not misfit <= options.max_misfit:  # also when it is not a number
            result.dropped["no face: landmarks"] += 1
            return None
        if _inside(matrix, image.width, image.height) < options.min_inside:
            result.dropped["cut by the border"] += 1
            return None
        try:
            crop = align(image, [face], CROP)[0]
        except NoFaceError:
            result.dropped["no face: landmarks"] += 1
            return None
        chip: UInt8 = crop[MARGIN:-MARGIN, MARGIN:-MARGIN]
        meta = {
            "source": result.name,
            "sha256": result.sha256,
            "identity": result.identity,
            "score": round(face.score, 4),
            "size": round(face.quality.size, 1),
            "sharpness": round(face.quality.sharpness, 1),
            "yaw": round(face.quality.yaw, 1),
            "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in points],
        }
        found = Found(encode_image(crop, "JPEG", JPEG_QUALITY), difference_hash(chip), meta)
        if self._embedder is not None and self._embedder.template != _CHIP.name:
            chip = align(image, [face], self._embedder.template)[0]
        return found, chip


def _inside(matrix: np.ndarray, width: int, height: int) -> float:
    """Return the share of the chip that the photo covers, from a grid of 16x16 of its points."""
    axis = MARGIN + (np.arange(16) + 0.5) * ((SIDE - 2 * MARGIN) / 16)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    x, y = ((grid - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T).T
    return float(((x >= 0) & (x < width) & (y >= 0) & (y < height)).mean())


_worker: PhotoWorker | None = None


def start_worker(device: str, model: str | None, options: CropOptions) -> None:
    """Load the networks of a worker process, which uses one thread."""
    global _worker  # noqa: PLW0603 - a process of the pool has no other place for its state
    import torch

    from facepipe.loading import load_describer

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    extractor = load_describer(model or "mini", device, detect_options(options))
    _worker = PhotoWorker(extractor.detector, extractor.embedder if model else None, options)


def detect_options(options: CropOptions) -> Any:
    """Return the detector's options that belong to these."""
    from facepipe.detect.options import DetectOptions

    return DetectOptions(min_face=options.min_size, max_side=options.max_side)


def work(photos: Sequence[Photo]) -> list[PhotoCrops]:
    """Run in a worker process that `start_worker` made ready."""
    assert _worker is not None
    return _worker(photos)
