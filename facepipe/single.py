"""The steps one by one, as a Python user calls them on one picture, each with networks that stay loaded for the next call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.selection import FaceChoice, require_faces
from facepipe.embed.describer import Describer
from facepipe.images.inputs import Source, as_image
from facepipe.loading import detect_options, load_describer, load_detector
from facepipe.models.registry import DEFAULT_EMBEDDER, get_record
from facepipe.predict.policy import policy_for
from facepipe.types import Described, Face, Float32

if TYPE_CHECKING:
    from facepipe.evaluate.photo_set import PhotoSet


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """Whether two photos show one person.

    same: whether similarity reaches threshold.
    similarity: cosine, -1..1.
    probability: 0..1, that they are one person, when every other pair is; None where nothing was measured.
    close: whether similarity is so near to the threshold that another photo might turn the answer.
    model: fingerprint of the embedder.
    first, second: the faces that were compared.
    """

    same: bool
    similarity: float
    threshold: float
    probability: float | None
    close: bool
    model: str
    first: Face
    second: Face


def detect(
    image: Source,
    *,
    device: str = "auto",
    min_face: float = 40,
    min_score: float = 0.4,
    max_side: int | None = 1280,
    second_chance: bool = True,
    quick: bool = False,
) -> tuple[Face, ...]:
    """Return the faces in one picture, best score first; an empty tuple when there is none.

    image: a path, bytes, an open binary file, a PIL image, a NumPy array (uint8, RGB or grey), an `Image`.
    device, min_face, min_score, max_side, second_chance, quick: see `facepipe.Recognizer`. The network stays loaded for the
    next call.
    Errors: InputError when the file cannot be read, ImageError when it cannot be read as an image, DeviceError.
    """
    detector = _detector(device, min_face, min_score, max_side, second_chance, quick)
    return next(iter(detector.detect([as_image(image, max_side=max_side or None)]))).faces


def edges(
    image: Source,
    *,
    device: str = "auto",
    min_face: float = 40,
    min_score: float = 0.4,
    max_side: int | None = 1280,
    second_chance: bool = True,
    quick: bool = False,
) -> Float32:
    """Return how strong the edges are in one picture, float32 (h, w): reduced as far as faces of `min_face` pixels allow.

    Everything, and errors: as `detect`.
    """
    picture = as_image(image, max_side=max_side or None)
    return _detector(device, min_face, min_score, max_side, second_chance, quick).edges(picture).magnitude


def embed(
    image: Source,
    *,
    model: str = DEFAULT_EMBEDDER,
    device: str = "auto",
    min_face: float = 40,
    min_score: float = 0.4,
    max_side: int | None = 1280,
    second_chance: bool = True,
    quick: bool = False,
) -> Described:
    """Return the faces in one picture and a unit vector for each: `.faces`, `.embeddings.vectors`, float32 (n, d).

    model: name of the embedder. Everything else, and errors: as `detect`; ModelError.
    """
    describer = describer_for(model, device, min_face, min_score, max_side, second_chance, quick)
    return describer.describe([as_image(image, max_side=max_side or None)])[0]


def verify(
    a: Source,
    b: Source,
    *,
    model: str = DEFAULT_EMBEDDER,
    threshold: float | None = None,
    faces: FaceChoice | tuple[FaceChoice, FaceChoice] = "clear",
    device: str = "auto",
    min_face: float = 40,
    min_score: float = 0.4,
    max_side: int | None = 1280,
    second_chance: bool = True,
    quick: bool = False,
) -> Verification:
    """Say whether two pictures show the same person.

    threshold: cosine, -1..1, from which on they do; None: that of the model's record for comparing two.
    faces: which face of a picture with several: clear (one is far larger than the others), largest, only, or its number; a pair of
    these for a and b.
    Everything else, and errors: as `embed`; NoFaceError, AmbiguousFaceError.
    """
    policy = policy_for(get_record(model), 1, threshold=threshold)
    images = [as_image(source, max_side=max_side or None) for source in (a, b)]
    described = describer_for(model, device, min_face, min_score, max_side, second_chance, quick).describe(images)
    rules = faces if isinstance(faces, tuple) else [faces if _several(photo, faces) else "clear" for photo in described]
    (first,), (second,) = (
        require_faces(photo.faces, rule, photo.path) for photo, rule in zip(described, rules, strict=True)
    )
    similarity = float(described[0].embeddings.vectors[first] @ described[1].embeddings.vectors[second])
    return Verification(
        similarity >= policy.threshold,
        similarity,
        policy.threshold,
        policy.curve(similarity) if policy.curve else None,
        abs(similarity - policy.threshold) < policy.margin,
        described[0].embeddings.fingerprint,
        described[0].faces[first],
        described[1].faces[second],
    )


def _several(photo: Described, rule: FaceChoice) -> bool:
    """Say whether a rule for both pictures is one for this one: a number is for those with several faces."""
    return len(photo.faces) != 1 or not isinstance(rule, int)


def embed_photos(
    paths: Sequence[Path],
    *,
    model: str = DEFAULT_EMBEDDER,
    face: str = "largest",
    device: str = "auto",
    min_face: float = 40,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> PhotoSet:
    """Embed one face of each of many labelled photos, for `Gallery.calibrate` and `facepipe.evaluate.measure`.

    face: which one, largest or centre (the nearest to the middle of the picture). cache: an .npz file that keeps them for the
    next run. progress: is called with the number of photos just done. Everything else: as `embed`.
    Errors: UsageError when `cache` is a file that facepipe did not write; a photo without a face is a failure in the set.
    """
    from facepipe.evaluate import photo_set

    settings = repr(detect_options(min_face))
    describer = describer_for(model, device, min_face, 0.4, 1280, True, False)
    return photo_set.embed_photos(paths, describer, face, cache, progress, settings)


@lru_cache(maxsize=4)
def _detector(
    device: str, min_face: float, min_score: float, max_side: int | None, second_chance: bool, quick: bool
) -> MtcnnDetector:
    return load_detector(device, detect_options(min_face, min_score, max_side, second_chance), quick=quick)


@lru_cache(maxsize=4)
def describer_for(
    model: str, device: str, min_face: float, min_score: float, max_side: int | None, second_chance: bool, quick: bool
) -> Describer:
    """Return steps 1 and 2 for these options, loaded once; see `facepipe.loading.load_describer`."""
    return load_describer(model, device, detect_options(min_face, min_score, max_side, second_chance), quick=quick)
