"""Why this name: one face through the four steps, with what each step made of it, and what would have changed the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.selection import FaceChoice, require_faces
from facepipe.detect.trace import trace
from facepipe.embed.alignment import align
from facepipe.embed.embedding import embed
from facepipe.errors import UsageError
from facepipe.explain import drawing, enrolled, reasons
from facepipe.explain.maps import for_many, grid, layers_of, map_pictures, maps_of
from facepipe.explain.values import Explanation
from facepipe.explain.writing import write
from facepipe.gallery.enrolment.enroller import faults, headroom
from facepipe.gallery.people import require_person, stored_name
from facepipe.gallery.store import GalleryStore
from facepipe.images.inputs import Source, as_image
from facepipe.loading import find_record
from facepipe.match.matcher import match
from facepipe.models.registry import ModelRecord
from facepipe.outputs.draw import crop_face, draw_edges, draw_predictions
from facepipe.outputs.steps import draw_vector
from facepipe.pipeline import Recognizer
from facepipe.predict.decision import predict
from facepipe.predict.population import own_trials, policy_of
from facepipe.records import SCHEMA_VERSION, Record, readable, rounded, to_record
from facepipe.text import printable
from facepipe.types import Described, Detected, Face, Float32, Image, Policy, Prediction, Recognized, UInt8

if TYPE_CHECKING:
    from facepipe.explain.layers import Layers
    from facepipe.gallery.arrays.snapshot import GallerySnapshot

#: Above so many enrolled faces a threshold that the gallery's own photos raised stays as it is while a photo is left out.
_SMALL = 4096
#: A figure with more headroom than this limits nothing.
_AMPLE = 0.75
#: Channels of a layer that are shown, and enrolled patches of each.
_CHANNELS, _PATCHES = 3, 3


def explain(
    photo: Source,
    gallery: GalleryStore,
    *,
    face: FaceChoice = "largest",
    against: str | None = None,
    out: str | PathLike[str] | None = None,
    threshold: float | None = None,
    margin: float | None = None,
    top_k: int = 3,
    repeat: bool = False,
    max_side: int | None = 1280,
    **options: Any,
) -> Explanation:
    """Say why a face of a photo gets its name, or none, step by step, with pictures.

    face: which face of a photo with several: largest, clear, only, or its number. against: a person: why not this one?
    out: file to write, .html, .png or .json. threshold, margin, top_k, repeat, max_side, and options (device, model, min_face,
    min_score, second_chance, detector, embedder): see `facepipe.Recognizer`.
    Errors: as `facepipe.Recognizer` and `facepipe.detect`; UsageError when nobody is called `against`; OutputError.
    """
    # `quick`, as for any single photo: the figures are those of `identify`.
    options = {"threshold": threshold, "margin": margin, "repeat": repeat, "max_side": max_side, **options}
    recognizer = Recognizer(gallery, top_k=top_k, quick=True, **options)
    image = as_image(photo, max_side=max_side or None)
    seen, described = look(recognizer.describer, image)
    (place,) = require_faces(described.faces, face, described.path)
    snapshot = gallery.snapshot()
    name = None
    if against is not None:
        require_person(gallery.database, against)
        name = stored_name(gallery.database, against)
        if name not in snapshot.persons:
            raise UsageError(f"{printable(against)}: has no enrolled face to compare with")
    record = find_record(gallery, options.get("model"))
    decided = recognizer.decide([described])[0]
    # Of a photo's other faces each may have taken somebody: so many people can count.
    whole = replace(recognizer.policy, top_k=max(top_k, len(described.faces) + 1))
    calibration = gallery.calibration()

    def policy(some: GallerySnapshot, threshold: float | None = threshold) -> Policy:
        """Return how a gallery decides with these faces."""
        if len(snapshot.vectors) > _SMALL:
            return replace(whole, threshold=whole.threshold if threshold is None else threshold)
        trials = partial(own_trials, some.vectors, some.owners, some.templates)
        people, alone = len(some.persons), not repeat
        return policy_of(record, people, calibration, trials, threshold, margin, exclusive=alone, top_k=whole.top_k)

    made = _Maker(
        recognizer, gallery, snapshot, record, seen, described, decided, whole, place, options.get("device", "auto")
    )
    explanation = made.made(name, policy, threshold)
    if out is not None:
        write(out, explanation)
    return explanation


def look(describer: Any, image: Image) -> tuple[Detected, Described]:
    """Return a photo after step 1, with its larger pixels where a face is small, and after step 2."""
    seen = next(iter(describer.detector.detect([image])))
    return seen, embed(describer.embedder, [seen], describer.min_score)[0]


class _Maker:
    """Collects facts and pictures about one face."""

    def __init__(
        self,
        recognizer: Recognizer,
        gallery: GalleryStore,
        snapshot: GallerySnapshot,
        record: ModelRecord | None,
        seen: Detected,
        described: Described,
        decided: Recognized,
        policy: Policy,
        place: int,
        device: str,
    ) -> None:
        self._recognizer, self._gallery, self._snapshot, self._record = recognizer, gallery, snapshot, record
        self._seen, self._described, self._place = seen, described, place
        self._vector = described.embeddings.vectors[place]
        self._policy = policy
        full = self._decide([described], policy)[0]
        self._prediction = full.predictions[place]
        margin = {"margin": rounded(policy.margin, 4)}
        self._photo = to_record(decided)
        self._shown = [one.person for one in decided.predictions[place].candidates]
        self._answer = {**self._photo["faces"][place], **margin}
        #: The same with all candidates that could count.
        self._judged = {**to_record(full)["faces"][place], **margin}
        self._embedder = recognizer.describer.embedder
        self._network, self._device = layers_of(record), device
        self._pixels = seen.larger or seen.image
        self._chip = align(self._pixels, [self._prediction.face], self._embedder.template)[0]
        self._pictures: dict[str, UInt8] = {}
        self._missing: list[str] = []

    def _decide(self, photos: Sequence[Described], policy: Policy) -> list[Recognized]:
        return predict(match(self._recognizer.matcher, photos, policy), policy)

    def made(self, against: str | None, policy: Callable[..., Policy], threshold: float | None) -> Explanation:
        """Return the explanation. against: why not this person? policy: that of a gallery. threshold: None, or what the user gave."""
        people = self._shown
        best = next(
            (c.person for c in self._prediction.candidates if c.similarity == self._prediction.similarity), None
        )
        best = self._prediction.person or best
        other = against if against not in (None, best) else next((one for one in people if one != best), None)
        shown = list(dict.fromkeys([one for one in (best, *people, against) if one is not None]))
        counts = {one: int((self._snapshot.owners == self._number(one)).sum()) for one in shown}
        ready = {readable(one): count for one, count in counts.items()}
        sentence = reasons.sentence(self._judged, len(self._snapshot.persons), ready, threshold is not None)
        maps, saliency = self._saliency(best, other)
        facts = {
            "schema_version": SCHEMA_VERSION,
            "path": self._photo["path"],
            "model": self._photo["model"],
            "face": self._place + 1,
            "faces": len(self._described.faces),
            "sentence": sentence,
            "answer": self._answer,
            "detect": self._detect(),
            "embed": self._embed(best),
            "match": {
                "people": len(self._snapshot.persons),
                "candidates": [self._compared(one, counts[one]) for one in shown],
            },
            "predict": self._predict(best, policy),
            "saliency": saliency,
            "against": None if against is None else self._against(against, counts[against]),
            "missing": self._missing,
        }
        if best is not None:
            facts["match"]["usual"] = enrolled.distributions(self._snapshot, self._record, best)
        return Explanation(sentence, facts, self._pictures, maps)

    def _number(self, person: str) -> int:
        return self._snapshot.persons.index(person)

    # -- step 1 ----------------------------------------------------------------------------------------------------------------

    def _detect(self) -> Record:
        face, shown = self._prediction.face, drawing.reduced(self._seen.image)
        facts, pictures = detection(self._recognizer.describer.detector, self._seen, face)
        if facts["windows"] is None:
            self._missing.append("step 1: a detector of your own; what it does inside is not known")
        photo = draw_predictions(shown, self._photo)
        if len(self._described.faces) > 1:
            photo = drawing.framed(photo, face, shown.scale)
        self._pictures |= {"photo": photo, **pictures, "chip": self._chip}
        return facts

    # -- step 2 ----------------------------------------------------------------------------------------------------------------

    def _embed(self, best: str | None) -> Record:
        self._pictures["vector"] = np.asarray(draw_vector(self._vector, 192))
        if best is not None:
            template = self._snapshot.templates[self._number(best)]
            self._pictures["template"] = np.asarray(draw_vector(template, 192))
        facts = {"template": self._embedder.template, "dim": self._embedder.dim, "layers": None}
        if self._network is None:
            name = self._embedder.name
            self._missing.append(
                f"step 2: {name} does not run in torch, so its layers are not shown and no gradients are taken"
            )
            return facts
        others = enrolled.chips_of(self._gallery, self._snapshot, best, self._embedder.template)
        if not len(others):
            self._missing.append(
                "step 2: neither chips nor photos of enrolled faces are at hand, so there are no patches beside the channels; "
                "`facepipe enroll --keep-chips` keeps chips"
            )
        facts["layers"] = self._layers(self._network, others)
        return facts

    def _layers(self, network: Layers, others: UInt8) -> list[Record]:
        chips = np.concatenate([self._chip[None], others]) if len(others) else self._chip[None]
        found = []
        activations = network.activations(chips)
        for depth, (name, values) in enumerate(activations.items()):
            peaks = values.max(axis=(2, 3))
            usual = peaks[1:].mean(axis=0) if len(others) else np.zeros(peaks.shape[1], np.float32)
            strongest = np.argsort(-(peaks[0] - usual), kind="stable")[:_CHANNELS].tolist()
            share = 0.14 + 0.86 * (depth / (len(activations) - 1)) ** 2
            for channel in strongest:
                places = np.argsort(-peaks[1:, channel], kind="stable")[:_PATCHES]
                patches = [_patch(others[i], values[i + 1, channel], share) for i in places]
                strip = drawing.channel_strip(self._chip, values[0, channel], patches)
                self._pictures[f"layer-{depth}-{channel}"] = strip
            channels = [
                {"channel": c, "peak": rounded(peaks[0, c], 3), "usual": rounded(usual[c], 3) if len(others) else None}
                for c in strongest
            ]
            found.append({"name": name, "size": list(values.shape[2:]), "of": values.shape[1], "channels": channels})
        return found

    # -- step 3 ----------------------------------------------------------------------------------------------------------------

    def _compared(self, person: str, count: int) -> Record:
        near = enrolled.near_and_far(self._snapshot, self._vector, person)
        records = enrolled.records_of(self._gallery, person)
        ends = [near[0], near[-1]] if len(near) > 1 else near[:1]
        for one in ends:
            one["photo"] = enrolled.label(records.get(one["face"]), one["face"])
            picture = enrolled.picture_of(self._gallery, records.get(one["face"]))
            if picture is not None:
                self._pictures[f"face-{one['face']}"] = picture
        line = "step 3: neither chip nor photo is at hand of some enrolled faces; `facepipe enroll --keep-chips` keeps chips"
        if line not in self._missing and any(f"face-{one['face']}" not in self._pictures for one in ends):
            self._missing.append(line)
        similarity = float(self._snapshot.templates[self._number(person)] @ self._vector)
        return {
            "person": readable(person),
            "similarity": rounded(similarity, 4),
            "photos": count,
            "nearest": ends[0],
            "farthest": ends[1] if len(ends) > 1 else None,
        }

    # -- step 4 ----------------------------------------------------------------------------------------------------------------

    def _predict(self, best: str | None, policy: Callable[..., Policy]) -> Record:
        answers: list[Record] = []
        labels: dict[int, str] = {}
        total = 0
        if best is not None:
            near = enrolled.near_and_far(self._snapshot, self._vector, best)
            ids = [one["face"] for one in near[: reasons.MOST_LEFT_OUT]]
            records = enrolled.records_of(self._gallery, best)
            labels = {one: enrolled.label(records.get(one), one) for one in ids}
            answers = reasons.left_out(self._described, self._place, self._snapshot, ids, policy)
            answers = [{"photo": labels[one["face"]], **one} for one in answers]
            total = len(near)
        again = reasons.recognised_again(
            reasons.copies(self._pixels, self._prediction.face),
            self._described,
            self._place,
            self._recognizer.describer.describe,
            lambda photos: self._decide(photos, self._policy),
        )

        def at(threshold: float) -> Prediction:
            return self._decide([self._described], policy(self._snapshot, threshold=threshold))[0].predictions[
                self._place
            ]

        return {
            "threshold": rounded(self._prediction.threshold, 4),
            "margin": self._answer["margin"],
            "probability": self._answer["probability"],
            "turns": reasons.turning_points(self._prediction, self._policy.margin, at),
            "without": answers,
            "hangs_on": reasons.hanging(self._answer, answers, labels, total),
            "copies": again,
        }

    # -- which pixels ----------------------------------------------------------------------------------------------------------

    def _saliency(self, best: str | None, other: str | None) -> tuple[dict[str, Float32], Record]:
        if best is None:
            return {}, {"for": None, "rather_than": None, "maps": {}}
        target = self._snapshot.templates[self._number(best)]
        directions = {"person": target}
        if other is not None:
            directions["rather"] = target - self._snapshot.templates[self._number(other)]
        maps = maps_of(for_many(self._embedder, self._network, self._device), self._network, self._chip, directions)
        self._pictures |= map_pictures(maps, self._chip, self._pixels, self._prediction.face, self._embedder.template)
        return maps, {
            "for": readable(best),
            "rather_than": None if other is None else readable(other),
            "maps": {name: grid(found) for name, found in maps.items()},
        }

    def _against(self, person: str, photos: int) -> Record:
        scores = self._snapshot.templates @ self._vector
        similarity = float(scores[self._number(person)])
        rank = int((scores > similarity).sum()) + 1
        above = [
            one.person for one in self._prediction.candidates if one.similarity > (self._prediction.similarity or 1.0)
        ]
        sentence = reasons.why_not(
            self._judged, readable(person), similarity, photos, rank, len(scores), taken=person in above
        )
        return {"person": readable(person), "similarity": rounded(similarity, 4), "rank": rank, "sentence": sentence}


def detection(detector: Any, seen: Detected, face: Face) -> tuple[Record, dict[str, UInt8]]:
    """Return what step 1 made of a face, and pictures of it."""
    room = headroom(face)
    limit = min(room, key=lambda name: room[name])
    figures = {"score": face.score, "roll": face.lean}
    value = figures.get(limit, getattr(face.quality, limit, None))
    facts: Record = {
        "turn": face.turn,
        "enhanced": face.enhanced,
        "border": False,
        "closer": seen.larger is not None,
        "faults": faults(face),
        "limit": None
        if room[limit] > _AMPLE
        else {"figure": limit, "value": rounded(value, 3), "headroom": rounded(room[limit], 3)},
        "windows": None,
        "searched": None,
        "kept": None,
        "level": None,
        "looks": [],
    }
    pictures = {"face": crop_face(seen.image, to_face(face), max_side=224)}
    if not isinstance(detector, MtcnnDetector):
        return facts, pictures
    found, shown = trace(detector, seen.image, face), drawing.reduced(seen.image)
    pictures |= {"edges": drawing.enlarged(draw_edges(found.edges), 480), "boxes": drawing.kept_boxes(shown, found)}
    level = drawing.level_picture(found)
    if level is not None:
        pictures["level"] = level
    facts |= {
        "border": found.border,
        "windows": found.windows,
        "searched": found.searched,
        "kept": [len(boxes) for boxes in found.passed],
        "level": rounded(found.scale, 4),
        "looks": [rounded(score, 4) for score in found.looks],
    }
    return facts, pictures


def to_face(face: Face) -> Record:
    """Return what a crop needs of a face's record."""
    return {"box": face.box.tolist(), "turn": face.turn}


def _patch(chip: UInt8, activation: Float32, share: float) -> UInt8:
    """Return the part of a chip around the place where a channel is most active; share: of the chip's side."""
    size = len(chip)
    y, x = np.unravel_index(int(activation.argmax()), activation.shape)
    half = max(4, round(share * size / 2))
    middle = [
        int(np.clip((at + 0.5) * size / length, half, size - half))
        for at, length in zip((y, x), activation.shape, strict=True)
    ]
    return chip[middle[0] - half : middle[0] + half, middle[1] - half : middle[1] + half]
