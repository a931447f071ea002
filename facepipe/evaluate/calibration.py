"""A threshold for one gallery, with what it promises.

Strangers, one score each (the best candidate's), are sorted. With n of them and a target FPIR, the threshold goes just
above the k-th largest score, k the largest for which k / (n + 1) <= target: the expected FPIR is then k / (n + 1) exactly,
whatever the shape of the scores, as long as later strangers come from the same population (`facepipe.evaluate.bounds`).
A person with several photos counts once: each photo weighs 1 / photos.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from facepipe.certainty import ProbabilityCurve
from facepipe.errors import UsageError
from facepipe.evaluate.bounds import allowed_errors, strangers_needed, upper_bound
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.probability import NamedSearches, enrolled_searches, fit_curve, held_out_error
from facepipe.evaluate.searching import fuse
from facepipe.types import Float32, Int64

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Impostors:
    """Scores of people who are not the ones they were compared with.

    top: float64 (n,), the best candidate's score. unit: int64 (n,), whose photo; rival: int64 (n,), the candidate's index.
    """

    source: str
    top: Float64
    unit: Int64
    rival: Int64

    @property
    def people(self) -> int:
        """How many people searched."""
        return len(np.unique(self.unit))


def enrolled_impostors(vectors: Float32, owners: Int64, people: int) -> Impostors:
    """Search with each enrolled face in the gallery without its own person; empty for a gallery of one person.

    vectors: (n, d), unit. owners: (n,), 0-based person.
    """
    if people < 2 or not len(vectors):
        return Impostors("enrolled people", np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    templates = fuse(vectors, owners, people).astype(np.float32)
    top, rival = np.empty(len(vectors)), np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), 1024):  # in blocks: a gallery of 100,000 people must not need their square
        rows = slice(start, start + 1024)
        scores = vectors[rows] @ templates.T
        scores[np.arange(len(scores)), owners[rows]] = -np.inf
        rival[rows] = scores.argmax(axis=1)
        top[rows] = scores[np.arange(len(scores)), rival[rows]]
    return Impostors("enrolled people", top, owners.astype(np.int64), rival)


def stranger_impostors(source: str, vectors: Float32, units: Int64, templates: Float64) -> Impostors:
    """Search with the faces of strangers, (n, d) and whose they are (n,), in a gallery of templates (p, d)."""
    scores = vectors.astype(np.float64) @ templates.T
    return Impostors(source, scores.max(axis=1), units.astype(np.int64), scores.argmax(axis=1).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold and what it promises.

    impostor_people: how many set it.
    impostors_allowed: how many of them pass.
    impostors_passing: the share of people's photos that pass at the threshold as rounded (at most allowed / people).
    expected_fpir: the expected FPIR.
    fpir_bound: its upper bound with the confidence.
    """

    threshold: float
    target_fpir: float
    impostor_people: int
    impostors_allowed: int
    impostors_passing: float
    expected_fpir: float
    fpir_bound: float
    confidence: float


def choose_threshold(
    top: Float64, units: Int64, target: float, confidence: float = CONFIDENCE, strict: bool = False
) -> Choice:
    """Choose the lowest threshold, to four decimals, for which the expected FPIR stays within the target.

    top: (n,), scores of impostor searches. units: (n,), whose search it was. strict: the upper bound, not only the
    expected FPIR, must stay within the target. UsageError names the number of strangers that a target needs.
    """
    people = len(np.unique(units))
    needed = strangers_needed(target, confidence if strict else None)
    allowed = allowed_errors(target, people, confidence if strict else None)
    if allowed is None:
        raise UsageError(
            f"an FPIR of {target:.4g}{' with certainty ' + format(confidence, 'g') if strict else ''} "
            f"needs {needed} strangers, these are {people}: "
            f"add {needed - people} more people with --strangers, or ask for a larger --fpir"
        )
    _, inverse, counts = np.unique(units, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[inverse]
    order = np.argsort(-top)
    passed = np.cumsum(weight[order])
    stop = int(np.searchsorted(passed, allowed + 1e-9, side="right"))
    # Just above the first score that must not pass; rounded up, so that rounding in float32 cannot let it through.
    threshold = (np.floor(top[order][stop] * 1e4) + 1.0) / 1e4 if stop < len(top) else -1.0
    return Choice(
        threshold=float(np.clip(threshold, -1.0, 1.0)),
        target_fpir=target,
        impostor_people=people,
        impostors_allowed=allowed,
        impostors_passing=float(weight[top >= threshold].sum() / people),
        expected_fpir=(allowed + 1) / (people + 1),
        fpir_bound=upper_bound(allowed, people, confidence),
        confidence=confidence,
    )


def with_strangers(mated: NamedSearches, top: Float64, units: Int64) -> NamedSearches:
    """Add the searches of strangers, whose best candidate is never right; top, units: as `choose_threshold` takes them."""
    never = np.zeros(len(top), np.bool_)
    return NamedSearches(
        np.concatenate([mated.similarity, top]),
        np.concatenate([mated.right, never]),
        np.concatenate([mated.unit, units + mated.unit.max(initial=-1) + 1]),
        np.concatenate([mated.mated, never]),
    )


#: By so much lower the similarities of strangers must be before that is told.
_EASIER = 0.05


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `facepipe calibrate` found for a gallery.

    sources: people of each source of impostors. curve: None where nobody is enrolled with two faces. curve_ece: its calibration
    error on people held out. record_threshold: that of the model's record for this size.
    """

    model: str
    gallery_size: int
    margin: float
    choice: Choice
    sources: dict[str, int]
    record_threshold: float | None
    known_share: float
    curve: ProbabilityCurve | None
    curve_method: str | None
    curve_people: int
    curve_ece: float | None
    notes: tuple[str, ...] = ()
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON values: what the gallery stores."""
        values = asdict(self)
        return dict(json.loads(json.dumps({"schema_version": 1, **values.pop("choice"), **values})))


def calibrate_gallery(
    model: str,
    persons: Sequence[str],
    vectors: Float32,
    owners: Int64,
    strangers: Sequence[tuple[str, Float32, Int64]],
    margin: float,
    target: float = 0.01,
    confidence: float = CONFIDENCE,
    strict: bool = False,
    enrolled: bool = True,
    known_share: float = 0.5,
    record_threshold: float | None = None,
) -> Calibration:
    """Measure impostors and choose the threshold for this gallery.

    persons: p names. vectors: float32 (n, d), unit; owners: int64 (n,). strangers: source, vectors, whose they are.
    enrolled: let enrolled people count as impostors of each other, each against the gallery without itself.
    UsageError when the gallery is empty or the data cannot support the target.
    """
    if not len(persons) or not len(vectors):
        raise UsageError("the gallery is empty: enrol people before you calibrate")
    templates = fuse(vectors, owners, len(persons))
    among = enrolled_impostors(vectors, owners, len(persons))
    parts = [stranger_impostors(name, rows, units, templates) for name, rows, units in strangers if len(rows)]
    if enrolled and among.people:
        parts.append(among)
    if not parts:
        raise UsageError(
            f"there are no impostors to measure: give --strangers DIR with {strangers_needed(target)} people or more"
        )
    starts = np.cumsum([0, *(int(part.unit.max()) + 1 for part in parts)])
    top = np.concatenate([part.top for part in parts])
    units = np.concatenate([part.unit + start for part, start in zip(parts, starts, strict=False)])
    choice = choose_threshold(top, units, target, confidence, strict)
    mated = enrolled_searches(vectors, owners, len(persons))
    curve = method = ece = None
    if mated.right.any():
        searches = with_strangers(mated, top, units)
        curve, method = fit_curve(searches, known_share)
        ece = held_out_error(searches, known_share)
    notes = _lookalikes(among, persons, choice.threshold) if enrolled else []
    others = np.concatenate([part.top for part in parts if part is not among] or [np.zeros(0)])
    notes += _easy_strangers(choice.threshold, record_threshold, among.top, others)
    if curve is None:
        notes.append("no person has two or more enrolled faces: the probability curve stays that of the model's record")
    return Calibration(
        model=model,
        gallery_size=len(persons),
        margin=margin,
        choice=choice,
        sources={part.source: part.people for part in parts},
        curve=curve,
        curve_method=method,
        curve_people=len(np.unique(mated.unit)),
        curve_ece=ece,
        known_share=known_share,
        record_threshold=record_threshold,
        notes=tuple(notes),
    )


def _easy_strangers(threshold: float, usual: float | None, among: Float64, others: Float64) -> list[str]:
    """Say that strangers tell little. usual: the record's threshold. among, others: scores of the enrolled people, of strangers."""
    notes = []
    if usual is not None and threshold < usual - _EASIER:
        notes.append(
            f"these strangers are easier than those of the model's record (threshold {threshold:.3f} against "
            f"{usual:.3f}): people who look more like the enrolled ones will get their names; give strangers of "
            "their sex, age and region"
        )
    if len(among) and len(others) and (middle := np.median(among)) > np.median(others) + _EASIER:
        notes.append(
            f"the enrolled people are more like each other ({middle:.2f} in the middle) than these strangers are "
            f"like them ({np.median(others):.2f}): the threshold is for strangers such as these"
        )
    return notes


def _lookalikes(among: Impostors, persons: Sequence[str], threshold: float) -> list[str]:
    """Name enrolled people who pass as each other: twins, relatives, or one person under two names."""
    pairs: dict[tuple[int, int], float] = {}
    for score, one, other in zip(among.top, among.unit, among.rival, strict=True):
        if score >= threshold:
            key = (min(int(one), int(other)), max(int(one), int(other)))
            pairs[key] = max(pairs.get(key, -1.0), float(score))
    return [
        f"{persons[one]} and {persons[other]} look alike ({score:.2f}): "
        "one person under two names? then merge them and calibrate again"
        for (one, other), score in sorted(pairs.items(), key=lambda item: -item[1])[:5]
    ]
