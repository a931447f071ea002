"""The recipe: the four steps in order over photos. The only module that knows all four stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facepipe.stages.match import Index, Matcher
from facepipe.stages.predict import predict
from facepipe.types import Detector, Embedder, Embeddings, Face, Image, PhotoResult, Policy

if TYPE_CHECKING:
    from facepipe.gallery.snapshot import GallerySnapshot
    from facepipe.stages.detect import DetectOptions, MtcnnDetector


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """A photo after the first two steps: its faces, best score first, and a vector for each."""

    image: Image
    faces: tuple[Face, ...]
    embeddings: Embeddings


class Extractor:
    """Steps 1 and 2: photos in, faces and embeddings out."""

    def __init__(self, detector: Detector, embedder: Embedder) -> None:
        self.detector = detector
        self.embedder = embedder

    def extract(self, images: Sequence[Image]) -> list[Extracted]:
        """Find and embed the faces of all photos; the faces of all of them share the embedder's batches."""
        from facepipe.stages.embed import embed_faces

        faces = self.detector.detect(images)
        embeddings = embed_faces(self.embedder, images, faces)
        return [Extracted(*photo) for photo in zip(images, faces, embeddings, strict=True)]


class Recognizer:
    """All four steps: photos in, predictions out."""

    def __init__(
        self,
        extractor: Extractor,
        matcher: Matcher,
        policy: Policy,
        witness: Callable[[Sequence[PhotoResult]], None] | None = None,
    ) -> None:
        """witness: is given all results before they are returned, for a log."""
        self.extractor = extractor
        self.matcher = matcher
        self.policy = policy
        self._witness = witness

    def recognize(self, images: Sequence[Image]) -> list[PhotoResult]:
        """Say who is in each photo. Errors: GalleryModelError when gallery and embedder do not belong together."""
        return self.judge_all(self.extractor.extract(images))

    def judge(self, photo: Extracted) -> PhotoResult:
        """Steps 3 and 4 for one photo."""
        return self.judge_all([photo])[0]

    def judge_all(self, photos: Sequence[Extracted]) -> list[PhotoResult]:
        """Steps 3 and 4 for many photos: their faces are searched together, each photo is decided for itself."""
        if not photos:
            return []
        # One more candidate than is shown: the margin needs a rival, and an assignment needs somebody to fall back on.
        crowd = max(len(photo.faces) for photo in photos) if self.policy.exclusive else 1
        wanted = max(self.policy.top_k, crowd) + 1
        vectors = np.concatenate([photo.embeddings.vectors for photo in photos])
        candidates = iter(self.matcher.search(Embeddings(vectors, photos[0].embeddings.fingerprint), wanted))
        results = []
        for photo in photos:
            predictions = predict(photo.faces, [next(candidates) for _ in photo.faces], self.policy)
            size = photo.image.width, photo.image.height
            results.append(PhotoResult(photo.image.path, *size, predictions, self.matcher.fingerprint))
        if self._witness is not None:
            self._witness(results)
        return results


def matcher_for(snapshot: GallerySnapshot, index: Index | None = None) -> Matcher:
    """Return the matcher of a gallery's people; index: the gallery's own over its templates, None: exact."""
    return Matcher(
        snapshot.fingerprint,
        snapshot.persons,
        snapshot.templates,
        snapshot.vectors,
        snapshot.owners,
        snapshot.face_ids,
        negatives=snapshot.negatives,
        negative_owners=snapshot.negative_owners,
        index=index,
    )


def load_extractor(
    model: str = "mini", device: str = "auto", options: DetectOptions | None = None, *, quick: bool = False
) -> Extractor:
    """Load detector and embedder. Errors: ModelError and DeviceError when one of them is not there.

    quick: for a few photos. On the CPU both run without torch, whose import alone takes longer than those photos; the
    answers are the same to rounding. Where that is not possible it changes nothing.
    """
    from facepipe.networks.registry import load_embedder

    embedder = load_embedder(model, device, "quick" if quick else "auto")
    return Extractor(load_detector(device, options, quick=quick), embedder)


def load_detector(device: str = "auto", options: DetectOptions | None = None, *, quick: bool = False) -> MtcnnDetector:
    """Load the detector alone; see `load_extractor`."""
    from facepipe.networks.engines import starts_without_torch
    from facepipe.stages.detect import MtcnnDetector

    if quick and starts_without_torch(device):
        from facepipe.networks.opencv_cascade import OpenCvCascade

        return MtcnnDetector(OpenCvCascade(), options)
    from facepipe.networks.devices import resolve_device
    from facepipe.networks.mtcnn import load_cascade

    return MtcnnDetector(load_cascade(resolve_device(device)), options)
