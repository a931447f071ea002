"""Step 4 in words: why this answer, and what would change it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from facepipe.explain.enrolled import without
from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.chips import cut_out
from facepipe.loading import matcher_for
from facepipe.match.matcher import match
from facepipe.predict.decision import predict
from facepipe.records import readable, rounded
from facepipe.text import plural
from facepipe.types import Described, Embeddings, Face, Image, Policy, Prediction, Recognized, Status, UInt8

#: Enrolled photos of the best person that are left out, one at a time: the most similar ones.
MOST_LEFT_OUT = 12
#: Side of the face in the copies that are recognised again, and of the small one: pixels; blur as a share of the side.
_SIDE, _SMALL, _BLUR = 160, 48, 0.03
_Describe = Callable[[Sequence[Image]], list[Described]]


def sentence(answer: Mapping[str, Any], people: int, photos: Mapping[str, int], given: bool = False) -> str:
    """Say why a face got its answer.

    answer: the record of the face, with `margin`. people: enrolled. photos: of each candidate. given: the user chose the threshold.
    """
    ranked, threshold = answer["candidates"], answer["threshold"]
    limit = "the given threshold" if given else f"the threshold for {plural(people, 'person', 'people')}"
    if not ranked:
        return "Unknown because there is nobody in the gallery whom it could be."
    best = next((one for one in ranked if one["person"] == answer["person"]), None)
    best = best or next((one for one in ranked if one["similarity"] == answer["similarity"]), ranked[0])
    name, similarity = best["person"], best["similarity"]
    value, bound = two_figures(similarity, threshold)
    count = photos.get(name, 1)
    those = f"the {count} photos of {name} together are" if count > 1 else f"the photo of {name} is"
    taken = [one["person"] for one in ranked if one["similarity"] > similarity]
    behind = [one for one in ranked if one is not best and one["similarity"] <= similarity]
    more = (
        f" {taken[0]} is more similar, but is another face of this photo (--repeat names a person twice)."
        if taken
        else ""
    )
    if answer["status"] == "unknown":
        rest = "nobody else who is free" if taken else "nobody else"
        return (
            f"Unknown because {those} less similar ({value}) than {limit} ({bound}), and {rest} is more similar.{more}"
        )
    if answer["status"] == "ambiguous":
        second = behind[0]
        lead, margin = two_figures(similarity - second["similarity"], answer["margin"])
        return (
            f"Ambiguous because {those} more similar ({value}) than {limit} ({bound}), but the next person, {second['person']}, is "
            f"only {lead} behind, less than the margin ({margin}).{more}"
        )
    rest = (
        f", and the next person, {behind[0]['person']}, is {similarity - behind[0]['similarity']:.2f} behind"
        if behind
        else ""
    )
    rest = rest or ("" if taken else ", and nobody else is enrolled")
    return f"Known as {name} because {those} more similar ({value}) than {limit} ({bound}){rest}.{more}"


#: Units of the figures of a face's quality.
_UNITS = {"yaw": "°", "pitch": "°", "roll": "°", "size": " px"}


def figure(name: str, value: float) -> str:
    """Return a figure of a face's quality in words: `pitch -17.7°`."""
    return f"{name.replace('_', ' ')} {value:.3g}{_UNITS.get(name, '')}"


def why_not(
    answer: Mapping[str, Any], name: str, similarity: float, photos: int, rank: int, people: int, *, taken: bool = False
) -> str:
    """Say why a face did not get this name, which stands at this rank (from 1) of so many people.

    taken: another face of the photo is more similar to this person, who is named once.
    """
    if answer["person"] == name:
        return f"It is {name}: see the answer above."
    those = f"{plural(photos, 'photo')} of {name} {'is' if photos == 1 else 'together are'}"
    if taken:
        return (
            f"Not {name}, though the {those} most similar ({similarity:.2f}), because another face of this photo is more similar to "
            f"{name}, and a person is named once in a photo; --repeat names them twice."
        )
    if answer["status"] == "ambiguous" and rounded(similarity, 4) == answer["similarity"]:
        return f"{name} is the most similar ({similarity:.2f}), and not named because the next is too close: see the answer above."
    value, bound = two_figures(similarity, answer["threshold"])
    side = "less similar" if similarity < answer["threshold"] else "more similar"
    ahead = answer["candidates"][0] if answer["candidates"] else None
    before = f"; of {people} people {name} is number {rank}" if people > 1 else ""
    if rank > 1 and ahead is not None:
        joint = "and" if side == "less similar" else "but"
        before = f", {joint} {ahead['person']} is {ahead['similarity'] - similarity:.2f} ahead{before}"
    return f"Not {name} because the {those} {side} ({value}) than the threshold ({bound}){before}."


def two_figures(value: float, limit: float) -> tuple[str, str]:
    """Return two figures with as many digits as show which is greater."""
    digits = next((n for n in (2, 3) if round(value, n) != round(limit, n)), 4)
    return f"{round(value, digits) + 0.0:.{digits}f}", f"{round(limit, digits) + 0.0:.{digits}f}"  # no -0.00


def left_out(
    photo: Described,
    place: int,
    snapshot: GallerySnapshot,
    faces: Sequence[int],
    policy_in: Callable[[GallerySnapshot], Policy],
) -> list[dict[str, Any]]:
    """Return the answer about a face with each of these enrolled faces left out of the gallery, one at a time.

    policy_in: how the smaller gallery decides: its threshold may be another one.
    """
    answers = []
    for face in faces:
        smaller = without(snapshot, face)
        policy = policy_in(smaller)
        recognized = predict(match(matcher_for(smaller), [photo], policy), policy)[0]
        answers.append({"face": face, **_short(recognized.predictions[place])})
    return answers


def _short(prediction: Prediction) -> dict[str, Any]:
    return {
        "status": str(prediction.status),
        "person": None if prediction.person is None else readable(prediction.person),
        "similarity": rounded(prediction.similarity, 4),
        "threshold": rounded(prediction.threshold, 4),
    }


def hanging(
    answer: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], labels: Mapping[int, str], total: int
) -> str:
    """Say which enrolled photo the answer hangs on. total: photos of the person."""
    changed = [one for one in answers if (one["status"], one["person"]) != (answer["status"], answer["person"])]
    if not answers:
        return "Nobody is enrolled whose photos could be left out."
    if not changed:
        which = (
            "its only photo"
            if total == 1
            else f"any one of the {'' if len(answers) == total else 'nearest '}{len(answers)} photos"
        )
        return f"It hangs on no single photo: without {which} the answer stays the same."
    parts = [f"without {labels[one['face']]} it would be {one['person'] or one['status']}" for one in changed[:3]]
    rest = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
    return f"It hangs on {plural(len(changed), 'photo')}: {'; '.join(parts)}{rest}."


def copies(image: Image, face: Face) -> dict[str, Image]:
    """Return copies of a face with the room around it, standing: mirrored, blurred, smaller."""
    cut = np.ascontiguousarray(np.rot90(cut_out(image, face)[0], -face.turn // 90))
    side = float(min(face.box[2:] - face.box[:2])) * image.scale
    share = min(1.0, _SIDE / side)
    plain = _resized(cut, share)
    blurred = cv2.GaussianBlur(plain, (0, 0), max(0.5, _BLUR * side * share))
    return {
        "mirrored": Image(np.ascontiguousarray(plain[:, ::-1]), "mirrored"),
        "blurred": Image(np.asarray(blurred, np.uint8), "blurred"),
        "smaller": Image(_resized(cut, min(0.5, _SMALL / side)), "smaller"),
    }


def _resized(rgb: UInt8, share: float) -> UInt8:
    size = max(1, round(rgb.shape[1] * share)), max(1, round(rgb.shape[0] * share))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def recognised_again(
    made: Mapping[str, Image],
    photo: Described,
    place: int,
    describe: _Describe,
    decide: Callable[[Sequence[Described]], list[Recognized]],
) -> dict[str, dict[str, Any]]:
    """Return the answer about a face of a photo with each copy in its place: found and embedded anew.

    The other faces stay as they are: they may have somebody's name. status: None where no face is found in the copy.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, copy in zip(made, describe(list(made.values())), strict=True):
        sizes = [float(np.prod(face.box[2:] - face.box[:2])) for face in copy.faces]
        if not sizes:
            found[name] = {"status": None, "person": None, "similarity": None, "threshold": None}
            continue
        vectors = photo.embeddings.vectors.copy()
        vectors[place] = copy.embeddings.vectors[int(np.argmax(sizes))]
        changed = replace(photo, embeddings=Embeddings(vectors, photo.embeddings.fingerprint))
        found[name] = _short(decide([changed])[0].predictions[place])
    return found


def turning_points(prediction: Prediction, margin: float, at: Callable[[float], Prediction]) -> str:
    """Say at which threshold or margin the answer would be another one.

    prediction: with all candidates that could count. at: the answer at another threshold.
    """
    similarity, threshold = prediction.similarity, f"it is {prediction.threshold:.4f}"
    if similarity is None or not prediction.candidates:
        return "No threshold changes the answer."
    if prediction.status is Status.UNKNOWN:
        limit = _outward(similarity, -1)
        other = at(limit)
        if other.status is Status.UNKNOWN:
            return f"No lower threshold alone changes the answer; {threshold}."
        return f"With a threshold of {limit:.4f} or less it would be {readable(other.person or str(other.status))}; {threshold}."
    above = f"With a threshold above {_outward(similarity, 1):.4f} it would be unknown; {threshold}."
    if prediction.status is Status.KNOWN:
        return above
    best, *rest = [one for one in prediction.candidates if one.similarity <= similarity]
    lead = _outward(similarity - rest[0].similarity, -1)
    return f"With a margin of {lead:.4f} or less it would be {readable(best.person)}; it is {margin:.4f}. {above}"


def _outward(value: float, way: int) -> float:
    """Return a figure with four decimals that is not less (way 1), or not greater (-1)."""
    return (math.ceil(value * 1e4) if way > 0 else math.floor(value * 1e4)) / 1e4 + 0.0
