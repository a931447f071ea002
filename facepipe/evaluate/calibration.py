"""A threshold for one gallery, with what it promises, and the probability that a shown name is right.

Strangers, one score each (the best candidate's), are sorted. With n of them and a target FPIR, the threshold goes just
above the k-th largest score, k the largest for which k / (n + 1) <= target: the expected FPIR is then k / (n + 1) exactly,
whatever the shape of the scores, as long as later strangers come from the same population (`facepipe.evaluate.bounds`).
A person with several photos counts once: each photo weighs 1 / photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import UsageError
from facepipe.evaluate.bounds import allowed_errors, future_bound, strangers_needed, upper_bound
from facepipe.evaluate.metrics import Float64, reliability
from facepipe.evaluate.searching import Index, fuse, unit
from facepipe.types import Float32, ProbabilityCurve

CONFIDENCE = 0.95
#: Similarities at which probability curves have their knots.
KNOTS: Float64 = np.round(np.linspace(-0.1, 1.0, 56), 2)
#: Isotonic regression needs many people before its steps mean anything; below, a logistic curve with one bend (after Platt 1999).
_ISOTONIC_FROM = 1000
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Impostors:
    """Scores of people who are not the ones they were compared with.

    top: float64 (n,), the best candidate's score. unit: int64 (n,), whose photo; rival: int64 (n,), the candidate's index.
    """

    source: str
    top: Float64
    unit: Index
    rival: Index

    @property
    def people(self) -> int:
        """How many people searched."""
        return len(np.unique(self.unit))


def enrolled_impostors(vectors: Float32, owners: Index, people: int) -> Impostors:
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


def stranger_impostors(source: str, vectors: Float32, units: Index, templates: Float64) -> Impostors:
    """Search with the faces of strangers, (n, d) and whose they are (n,), in a gallery of templates (p, d)."""
    scores = vectors.astype(np.float64) @ templates.T
    return Impostors(source, scores.max(axis=1), units.astype(np.int64), scores.argmax(axis=1).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold and what it promises.

    people: how many set it.
    allowed: how many of them pass.
    expected: the expected FPIR, bound: its upper bound with the confidence.
    passing: the share of people's photos that pass at the threshold as rounded (at most allowed / people).
    """

    threshold: float
    target: float
    people: int
    allowed: int
    expected: float
    bound: float
    confidence: float
    passing: float

    def future(self, people: int) -> float:
        """Return the FPIR that `people` further strangers (one photo each) stay within, with the same confidence."""
        return future_bound(self.allowed, self.people, people, self.confidence) / people


def choose_threshold(
    top: Float64, units: Index, target: float, confidence: float = CONFIDENCE, strict: bool = False
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
        target=target,
        people=people,
        allowed=allowed,
        expected=(allowed + 1) / (people + 1),
        bound=upper_bound(allowed, people, confidence),
        confidence=confidence,
        passing=float(weight[top >= threshold].sum() / people),
    )


@dataclass(frozen=True, slots=True, eq=False)
class NamedSearches:
    """Searches with a known outcome, for probabilities.

    similarity: float64 (n,), of the best candidate. right: bool (n,), it is the person. unit: int64 (n,), who searched.
    mated: bool (n,), the person is enrolled.
    """

    similarity: Float64
    right: NDArray[np.bool_]
    unit: Index
    mated: NDArray[np.bool_]

    def weights(self, known_share: float) -> Float64:
        """Return weights by which each person counts once and enrolled people make up `known_share` of the searches."""
        _, inverse, counts = np.unique(self.unit, return_inverse=True, return_counts=True)
        each = 1.0 / counts[inverse]
        for side, share in ((self.mated, known_share), (~self.mated, 1.0 - known_share)):
            total = each[side].sum()
            each[side] *= share / total if total else 0.0
        return np.asarray(each * len(each), dtype=np.float64)


def enrolled_searches(vectors: Float32, owners: Index, people: int) -> NamedSearches:
    """Search with each enrolled face of a person who has others, with the template of the others; empty if nobody has."""
    counts = np.bincount(owners, minlength=people)
    rows = np.flatnonzero(counts[owners] > 1)
    if not len(rows):
        return NamedSearches(np.zeros(0), np.zeros(0, np.bool_), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    total = np.zeros((people, vectors.shape[1]))
    np.add.at(total, owners, vectors.astype(np.float64))
    templates = unit(total).astype(np.float32)
    similarity, right = np.empty(len(rows)), np.empty(len(rows), np.bool_)
    for start in range(0, len(rows), 1024):
        block = rows[start : start + 1024]
        scores = (vectors[block] @ templates.T).astype(np.float64)
        own = np.einsum("nd,nd->n", unit(total[owners[block]] - vectors[block]), vectors[block].astype(np.float64))
        at = np.arange(len(block))
        scores[at, owners[block]] = own
        similarity[start : start + len(block)] = scores.max(axis=1)
        right[start : start + len(block)] = scores.argmax(axis=1) == owners[block]
    return NamedSearches(similarity, right, owners[rows].astype(np.int64), np.ones(len(rows), np.bool_))


def with_strangers(mated: NamedSearches, impostors: Sequence[Impostors]) -> NamedSearches:
    """Add the searches of strangers, whose best candidate is never right."""
    start = int(mated.unit.max(initial=-1)) + 1
    tops, units = [mated.similarity], [mated.unit]
    for part in impostors:
        tops.append(part.top)
        units.append(part.unit + start)
        start += int(part.unit.max(initial=-1)) + 1
    outside = sum(len(part.top) for part in impostors)
    return NamedSearches(
        np.concatenate(tops),
        np.concatenate([mated.right, np.zeros(outside, np.bool_)]),
        np.concatenate(units),
        np.concatenate([mated.mated, np.zeros(outside, np.bool_)]),
    )


def fit_curve(searches: NamedSearches, known_share: float = 0.5) -> tuple[ProbabilityCurve, str]:
    """Fit the probability that the best candidate is right, rising with its similarity; return curve and method.

    Isotonic regression from 1,000 people on, a logistic curve with one bend (after Platt) below. ValueError when all
    searches had the same outcome.
    """
    if searches.right.all() or not searches.right.any():
        raise ValueError("fit_curve: expected right and wrong candidates")
    weights = searches.weights(known_share)
    if len(np.unique(searches.unit)) >= _ISOTONIC_FROM:
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(searches.similarity, searches.right.astype(np.float64), sample_weight=weights)
        values, method = model.predict(KNOTS), "isotonic"
    else:
        from sklearn.linear_model import LogisticRegression

        # Scores of enrolled people spread wider than strangers' scores, so the log-odds are not a straight line: one bend,
        # half-way between the two medians (measured on people never used: ECE 0.014 with it, 0.019 without).
        middles = [np.median(searches.similarity[side]) for side in (searches.mated, ~searches.mated) if side.any()]
        bend = float(np.mean(middles))

        def features(similarity: Float64) -> Float64:
            return np.stack([similarity, np.maximum(similarity - bend, 0.0)], axis=1)

        logistic = LogisticRegression(C=1e2)
        logistic.fit(features(searches.similarity), searches.right, sample_weight=weights)
        values, method = logistic.predict_proba(features(KNOTS))[:, 1], "platt"
    # No share of a finite sample is certainty: one more right and one more wrong person are assumed (Laplace).
    doubt = 1.0 / (len(np.unique(searches.unit)) + 2.0)
    rising = np.maximum.accumulate(np.round(np.clip(values, doubt, 1.0 - doubt), 5))
    return ProbabilityCurve(tuple(float(v) for v in KNOTS), tuple(float(v) for v in rising)), method


def held_out_error(searches: NamedSearches, known_share: float = 0.5, seed: int = 0) -> float | None:
    """Return the calibration error (ECE) on people whom the curve has not seen: five folds of people.

    None when a fold lacks an outcome. Enrolled people and strangers weigh as `known_share` says, by repetition.
    """
    people = np.unique(searches.unit)
    fold = np.random.default_rng(seed).permutation(len(people)) % _FOLDS
    place = fold[np.searchsorted(people, searches.unit)]
    predicted = np.full(len(searches.similarity), np.nan)
    for number in range(_FOLDS):
        train, test = place != number, place == number
        if searches.right[train].all() or not searches.right[train].any():
            return None
        part = NamedSearches(
            searches.similarity[train], searches.right[train], searches.unit[train], searches.mated[train]
        )
        curve, _ = fit_curve(part, known_share)
        predicted[test] = [curve(value) for value in searches.similarity[test]]
    return weighted_ece(predicted, searches.right, searches.weights(known_share))


def weighted_ece(probability: Float64, right: NDArray[np.bool_], weights: Float64, bins: int = 10) -> float:
    """Return the expected calibration error with a weight for each search."""
    if np.allclose(weights, weights[0]):
        return reliability(probability, right, bins).ece
    index = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gap = np.bincount(index, weights=weights * (probability - right), minlength=bins)
    return float(np.abs(gap).sum() / weights.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What `facepipe calibrate` found for a gallery; `as_dict` is what the gallery stores."""

    model: str
    gallery_size: int
    choice: Choice
    margin: float
    sources: dict[str, int]
    curve: ProbabilityCurve | None
    curve_method: str | None
    curve_people: int
    curve_ece: float | None
    known_share: float
    record_threshold: float | None
    notes: tuple[str, ...] = ()
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        choice = self.choice
        return {
            "schema_version": 1,
            "date": self.date,
            "model": self.model,
            "gallery_size": self.gallery_size,
            "target_fpir": choice.target,
            "threshold": choice.threshold,
            "margin": self.margin,
            "expected_fpir": choice.expected,
            "fpir_bound": choice.bound,
            "confidence": choice.confidence,
            "impostor_people": choice.people,
            "impostors_allowed": choice.allowed,
            "impostors_passing": choice.passing,
            "sources": self.sources,
            "record_threshold": self.record_threshold,
            "known_share": self.known_share,
            "curve": (
                {"similarity": list(self.curve.similarity), "probability": list(self.curve.probability)}
                if self.curve
                else None
            ),
            "curve_method": self.curve_method,
            "curve_people": self.curve_people,
            "curve_ece": self.curve_ece,
            "notes": list(self.notes),
        }


def calibrate_gallery(
    model: str,
    persons: Sequence[str],
    vectors: Float32,
    owners: Index,
    strangers: Sequence[tuple[str, Float32, Index]],
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
        searches = with_strangers(mated, parts)
        curve, method = fit_curve(searches, known_share)
        ece = held_out_error(searches, known_share)
    notes = [*_lookalikes(among, persons, choice.threshold)] if enrolled else []
    if curve is None:
        notes.append("no person has two or more enrolled faces: the probability curve stays that of the model's record")
    return Calibration(
        model=model,
        gallery_size=len(persons),
        choice=choice,
        margin=margin,
        sources={part.source: part.people for part in parts},
        curve=curve,
        curve_method=method,
        curve_people=len(np.unique(mated.unit)),
        curve_ece=ece,
        known_share=known_share,
        record_threshold=record_threshold,
        notes=tuple(notes),
    )


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
