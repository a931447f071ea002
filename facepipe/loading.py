"""Builds the steps of the recipe: detector and embedder for a device, matcher and policy for a gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from facepipe.detect import BEHAVIOUR as DETECT_BEHAVIOUR
from facepipe.embed import BEHAVIOUR as EMBED_BEHAVIOUR
from facepipe.embed.describer import CPU_PHOTOS, Describer
from facepipe.errors import GalleryMissingError, GalleryModelError, ModelError, UsageError
from facepipe.match.cuda import CUDA_PEOPLE, cuda_index
from facepipe.match.exact import ExactIndex
from facepipe.match.matcher import Matcher
from facepipe.models.registry import DEFAULT_EMBEDDER, ModelRecord, find_embedder, get_record
from facepipe.predict import BEHAVIOUR as PREDICT_BEHAVIOUR
from facepipe.predict.policy import policy_for
from facepipe.predict.population import NO_FIGURES, policy_of
from facepipe.types import DecideOptions, Detector, Embedder, Index, Policy, Recognized

if TYPE_CHECKING:
    from facepipe.detect.detector import MtcnnDetector
    from facepipe.detect.options import DetectOptions
    from facepipe.gallery.arrays.snapshot import GallerySnapshot
    from facepipe.gallery.store import GalleryStore

#: As `CPU_PHOTOS`, on a graphics processor.
CUDA_PHOTOS = 48


@dataclass(frozen=True, slots=True)
class Steps:
    """What the recipe is made of: steps 1 and 2, step 3, step 4, and who is given the results before they are returned.

    facts: what the answers of steps 3 and 4 depend on besides the photo, as JSON has it, for a catalog.
    """

    describer: Describer
    matcher: Matcher
    policy: Policy
    witness: Callable[[Sequence[Recognized]], None] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def load_steps(
    gallery: GalleryStore,
    *,
    device: str = "auto",
    model: str | None = None,
    threshold: float | None = None,
    margin: float | None = None,
    top_k: int = 3,
    repeat: bool = False,
    min_face: float = 40,
    min_score: float = 0.4,
    max_side: int | None = 1280,
    second_chance: bool = True,
    quick: bool = False,
    late: bool = False,
    detector: Detector | None = None,
    embedder: Embedder | None = None,
    tell: Callable[[str], None] | None = None,
) -> Steps:
    """Load everything that answers "who is this?"; see `facepipe.pipeline.Recognizer`."""
    from facepipe.gallery.journal import log_results, logs_identify

    if not gallery.exists:
        raise GalleryMissingError(f"{gallery.folder}: nobody is enrolled here yet; enrol somebody first")
    if embedder is not None:
        gallery.require_model(embedder.fingerprint)
    record = record_of(gallery, model) if embedder is None else find_record(gallery, model)
    snapshot = gallery.snapshot()
    index: Index = gallery.index(snapshot, tell)
    if isinstance(index, ExactIndex) and not quick:
        index = exact_index_on(device, snapshot) or index
    policy = policy_of(
        record,
        len(snapshot.persons),
        gallery.calibration(),
        partial(gallery.own_trials, snapshot),
        threshold,
        margin,
        exclusive=not repeat,
        top_k=top_k,
    )
    describer = load_describer(
        "" if record is None else record.name,
        device,
        detect_options(min_face, min_score, max_side, second_chance),
        quick=quick,
        late=late,
        detector=detector,
        embedder=embedder,
    )
    witness = partial(log_results, gallery.folder) if logs_identify(gallery.database) else None
    facts = {
        "predict": PREDICT_BEHAVIOUR,
        "gallery": str(gallery.folder.resolve()),
        "generation": snapshot.generation,
        "policy": asdict(policy),
        "options": asdict(DecideOptions(threshold, margin, repeat)),
    }
    return Steps(describer, matcher_for(snapshot, index), policy, witness, facts)


def load_nobody(
    model: str | None,
    describer: Describer,
    *,
    threshold: float | None = None,
    margin: float | None = None,
    top_k: int = 3,
    repeat: bool = False,
) -> Steps:
    """Return the steps for a gallery that is not there yet: every face is unknown."""
    record = get_record(model or DEFAULT_EMBEDDER)
    policy = policy_for(record, 1, threshold=threshold, margin=margin, exclusive=not repeat, top_k=top_k)
    nobody = np.zeros((0, record.dim or 1), np.float32)
    matcher = Matcher(record.fingerprint, (), nobody, nobody, np.zeros(0, np.int64), np.zeros(0, np.int64))
    options = asdict(DecideOptions(threshold, margin, repeat))
    facts = {
        "predict": PREDICT_BEHAVIOUR,
        "gallery": "",
        "generation": 0,
        "policy": asdict(policy),
        "options": options,
    }
    return Steps(describer, matcher, policy, None, facts)


def record_of(gallery: GalleryStore, model: str | None = None) -> ModelRecord:
    """Return the record of the embedder that a gallery was made with.

    Errors: GalleryModelError when another model was asked for, or no model on this machine matches that.
    """
    record = find_record(gallery, model)
    if record is None:
        gallery.require_present_model()
        raise GalleryModelError(
            f"{gallery.folder}: made by {gallery.fingerprint}, and no model on this machine matches that; "
            "see `facepipe models list`, or move the gallery with `facepipe gallery reembed --model NAME`"
        )
    return record


def find_record(gallery: GalleryStore, model: str | None = None) -> ModelRecord | None:
    """Return the record of a gallery's embedder, None where it has none: an embedder of the caller's own."""
    if model is not None:
        record = get_record(model)
        gallery.require_model(record.fingerprint)
        return record
    return find_embedder(gallery.fingerprint)


def enroll_limits(
    gallery: GalleryStore, embedder: Embedder | None, threshold: float | None, names: Iterable[str]
) -> tuple[float, float]:
    """Return from which cosine on two people are confused, and from which on two faces are one person's.

    names: of the people who are to be enrolled; the first limit holds for a gallery that has them all, so that the order of
    enrolments does not matter. Errors: GalleryModelError as `record_of`; UsageError for an embedder of no record without a threshold.
    """
    if threshold is not None:
        return threshold, threshold
    record = record_of(gallery) if embedder is None else find_record(gallery)
    if record is None:
        raise UsageError(NO_FIGURES)
    # A new gallery is judged as one of ten people: it will not stay empty.
    people = max(10, len({*names, *gallery.snapshot().persons}))
    return policy_for(record, people).threshold, policy_for(record, 1).threshold


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
    model: str = DEFAULT_EMBEDDER,
    device: str = "auto",
    options: DetectOptions | None = None,
    *,
    quick: bool = False,
    late: bool = False,
    detector: Detector | None = None,
    embedder: Embedder | None = None,
) -> Describer:
    """Load detector and embedder. Errors: ModelError and DeviceError when one of them is not there.

    quick: for a few photos. On the CPU both run without torch, whose import alone takes longer than those photos; the
    answers are the same to rounding. Where that is not possible it changes nothing.
    late: the networks are loaded when they are first needed; a missing device is an error at once.
    detector, embedder: these instead.
    """

    def load() -> tuple[Detector, Embedder]:
        from facepipe.embed.embedder import load_embedder

        second = embedder or load_embedder(model, device, quick=quick)
        return detector or load_detector(device, options, quick=quick), second

    facts = _facts(model, options, detector, embedder)
    describer = Describer.late(load, photos_at_a_time(device), facts, (options or detect_options()).min_score)
    if not late:
        describer.load()
    return describer


def load_like(facts: Mapping[str, Any], device: str) -> Describer:
    """Load what another machine has, by the facts of its describer. Errors: ModelError when the model is not on this one."""
    record = find_embedder(facts["model"])
    if record is None:
        raise ModelError(f"the model {facts['model']} is not on this machine; facepipe models pull fetches it")
    chosen = detect_options(facts["min_face"], facts["min_score"], facts["max_side"], facts["second_chance"])
    return load_describer(record.name, device, chosen)


def _facts(
    model: str, options: DetectOptions | None, detector: Detector | None, embedder: Embedder | None
) -> dict[str, Any]:
    """Return everything that faces and vectors depend on besides the photo; device and engine change rounding only."""
    chosen = options or detect_options()
    return {
        "detect": DETECT_BEHAVIOUR,
        "embed": EMBED_BEHAVIOUR,
        "detector": get_record("mtcnn").fingerprint if detector is None else detector.name,
        "model": get_record(model).fingerprint if embedder is None else embedder.fingerprint,
        "min_face": chosen.min_face,
        "min_score": chosen.min_score,
        "max_side": chosen.max_side,
        "second_chance": chosen.second_chance,
    }


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
    from facepipe.models.networks import load_cascade

    return MtcnnDetector(load_cascade(resolve_device(device)), options)


def detect_options(
    min_face: float = 40, min_score: float = 0.4, max_side: int | None = 1280, second_chance: bool = True
) -> DetectOptions:
    """Return the detector's options; see `facepipe.pipeline.Recognizer`. ValueError for values out of range."""
    from facepipe.detect.options import DetectOptions

    return DetectOptions(min_face=min_face, min_score=min_score, max_side=max_side or None, second_chance=second_chance)
