"""Builds the steps of the recipe: the networks for a device, the matcher of a gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from facepipe.match.cuda import CUDA_PEOPLE, cuda_index
from facepipe.match.matcher import Index, Matcher
from facepipe.pipeline import CPU_PHOTOS, Describer
from facepipe.types import Described, Image

if TYPE_CHECKING:
    from facepipe.detect.detector import DetectOptions, MtcnnDetector
    from facepipe.gallery.snapshot import GallerySnapshot

#: As `CPU_PHOTOS`, on a graphics processor.
CUDA_PHOTOS = 48


class LateDescriber(Describer):
    """Loads detector and embedder when the first photo is to be looked at: where all faces are known, none is."""

    def __init__(self, load: Callable[[], Describer], photos: int) -> None:
        """photos: how many `describe` should get at a time."""
        self.photos = photos
        self._load = load
        self._loaded: Describer | None = None
        self._lock = Lock()

    def describe(self, images: Sequence[Image]) -> list[Described]:
        """See `Describer.describe`. Errors: also those of `load`."""
        from facepipe import threads

        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
        # This thread may have told the libraries its number when some of them were not loaded yet.
        threads.limit()
        return self._loaded.describe(images)


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


def load_describer(
    model: str = "mini", device: str = "auto", options: DetectOptions | None = None, *, quick: bool = False
) -> Describer:
    """Load detector and embedder. Errors: ModelError and DeviceError when one of them is not there.

    quick: for a few photos. On the CPU both run without torch, whose import alone takes longer than those photos; the
    answers are the same to rounding. Where that is not possible it changes nothing.
    """
    from facepipe.models.registry import load_embedder

    embedder = load_embedder(model, device, "quick" if quick else "auto")
    return Describer(load_detector(device, options, quick=quick), embedder, photos_at_a_time(device))


def photos_at_a_time(device: str) -> int:
    """Return how many photos fill the networks' batches on a device. Errors: DeviceError when it is not there."""
    return CUDA_PHOTOS if _is_cuda(device) else CPU_PHOTOS


def load_detector(device: str = "auto", options: DetectOptions | None = None, *, quick: bool = False) -> MtcnnDetector:
    """Load the detector alone; see `load_describer`."""
    from facepipe.detect.detector import MtcnnDetector
    from facepipe.models.engines import starts_without_torch

    if quick and starts_without_torch(device):
        from facepipe.models.opencv_cascade import OpenCvCascade

        return MtcnnDetector(OpenCvCascade(), options)
    from facepipe.models.devices import resolve_device
    from facepipe.models.mtcnn import load_cascade

    return MtcnnDetector(load_cascade(resolve_device(device)), options)
