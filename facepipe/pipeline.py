"""The recipe: the four steps in order over photos. The only module that knows all four stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from facepipe.match.cuda import CUDA_PEOPLE, cuda_index
from facepipe.match.matcher import Index, Matcher
from facepipe.predict.decision import predict
from facepipe.types import Detector, Embedder, Embeddings, Face, Image, PhotoResult, Policy

if TYPE_CHECKING:
    from facepipe.detect.closer import CloserLook
    from facepipe.detect.detector import DetectOptions, MtcnnDetector
    from facepipe.gallery.snapshot import GallerySnapshot


#: Photos at a time that fill the networks' batches, and are still little in memory.
CPU_PHOTOS, CUDA_PHOTOS = 24, 48


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """A photo after the first two steps: its faces, best score first, and a vector for each."""

    image: Image
    faces: tuple[Face, ...]
    embeddings: Embeddings

    @property
    def path(self) -> str:
        """Where the photo came from."""
        return self.image.path

    @property
    def size(self) -> tuple[int, int]:
        """Displayed (width, height)."""
        return self.image.width, self.image.height


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """A photo whose first two steps were done earlier, without its pixels. size: displayed (width, height)."""

    path: str
    size: tuple[int, int]
    faces: tuple[Face, ...]
    embeddings: Embeddings


class Extractor:
    """Steps 1 and 2: photos in, faces and embeddings out."""

    def __init__(
        self, detector: Detector, embedder: Embedder, photos: int = CPU_PHOTOS, closer: CloserLook | None = None
    ) -> None:
        """photos: how many `extract` should get at a time.

        closer: how small faces in large photos are looked at; None: like everything else.
        """
        self.detector = detector
        self.embedder = embedder
        self.photos = photos
        self._closer = closer

    def extract(self, images: Sequence[Image]) -> list[Extracted]:
        """Find and embed the faces of all photos; the faces of all of them share the embedder's batches.

        Errors: ImageError when a photo cannot be decoded again for a closer look.
        """
        from facepipe.embed.faces import embed_faces

        faces = list(self.detector.detect(images))

        def closer() -> Iterator[tuple[Image, tuple[Face, ...]]]:
            # One at a time, as they are embedded: larger pictures should not wait in memory.
            for place, image in enumerate(images):
                if self._closer is not None:
                    image, faces[place] = self._closer(image, faces[place])
                yield image, faces[place]

        embeddings = embed_faces(self.embedder, closer())
        return [Extracted(*photo) for photo in zip(images, faces, embeddings, strict=True)]


class Extracting(Protocol):
    """What does steps 1 and 2; see `Extractor`."""

    @property
    def photos(self) -> int:
        """How many photos `extract` should get at a time."""
        ...

    def extract(self, images: Sequence[Image]) -> list[Extracted]:
        """Find and embed the faces of all photos."""
        ...


class Recognizer:
    """All four steps: photos in, predictions out."""

    def __init__(
        self,
        extractor: Extracting,
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

    def judge_all(self, photos: Sequence[Extracted | Recalled]) -> list[PhotoResult]:
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
            results.append(PhotoResult(photo.path, *photo.size, predictions, self.matcher.fingerprint))
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


def exact_index_on(device: str, snapshot: GallerySnapshot) -> Index | None:
    """Return exact search over a gallery's people on a graphics processor, None where the CPU is as good: see `cuda_index`."""
    if len(snapshot.persons) < CUDA_PEOPLE or not _is_cuda(device):
        return None
    from facepipe.models.devices import resolve_device

    return cuda_index(snapshot.templates, resolve_device(device))


def _is_cuda(device: str) -> bool:
    """Say whether a device (auto, cpu, cuda[:N]) is a graphics processor here; torch is asked only where it could be one."""
    from facepipe.models.devices import resolve_device
    from facepipe.models.engines import starts_without_torch

    return not starts_without_torch(device) and resolve_device(device).type == "cuda"


def load_extractor(
    model: str = "mini", device: str = "auto", options: DetectOptions | None = None, *, quick: bool = False
) -> Extractor:
    """Load detector and embedder. Errors: ModelError and DeviceError when one of them is not there.

    quick: for a few photos. On the CPU both run without torch, whose import alone takes longer than those photos; the
    answers are the same to rounding. Where that is not possible it changes nothing.
    """
    from facepipe.models.registry import load_embedder

    embedder = load_embedder(model, device, "quick" if quick else "auto")
    detector = load_detector(device, options, quick=quick)
    return Extractor(detector, embedder, photos_at_a_time(device), detector.closer())


def photos_at_a_time(device: str) -> int:
    """Return how many photos fill the networks' batches on a device. Errors: DeviceError when it is not there."""
    return CUDA_PHOTOS if _is_cuda(device) else CPU_PHOTOS


def load_detector(device: str = "auto", options: DetectOptions | None = None, *, quick: bool = False) -> MtcnnDetector:
    """Load the detector alone; see `load_extractor`."""
    from facepipe.detect.detector import MtcnnDetector
    from facepipe.models.engines import starts_without_torch

    if quick and starts_without_torch(device):
        from facepipe.models.opencv_cascade import OpenCvCascade

        return MtcnnDetector(OpenCvCascade(), options)
    from facepipe.models.devices import resolve_device
    from facepipe.models.mtcnn import load_cascade

    return MtcnnDetector(load_cascade(resolve_device(device)), options)
