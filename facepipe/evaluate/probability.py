"""The probability that a shown name is right, from searches with a known outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facepipe.certainty import ProbabilityCurve
from facepipe.evaluate.metrics import Float64, calibration_error
from facepipe.evaluate.searching import unit
from facepipe.types import Float32, Int64

#: Similarities at which probability curves have their knots.
KNOTS: Float64 = np.round(np.linspace(-0.1, 1.0, 56), 2)
#: Isotonic regression needs many people before its steps mean anything; below, a logistic curve with one bend (after Platt 1999).
_ISOTONIC_FROM = 1000
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class NamedSearches:
    """Searches with a known outcome, for probabilities.

    similarity: float64 (n,), of the best candidate. right: bool (n,), it is the person. unit: int64 (n,), who searched.
    mated: bool (n,), the person is enrolled.
    """

    similarity: Float64
    right: NDArray[np.bool_]
    unit: Int64
    mated: NDArray[np.bool_]

    def weights(self, known_share: float) -> Float64:
        """Return weights by which each person counts once and enrolled people make up `known_share` of the searches."""
        _, inverse, counts = np.unique(self.unit, return_inverse=True, return_counts=True)
        each = 1.0 / counts[inverse]
        for side, share in ((self.mated, known_share), (~self.mated, 1.0 - known_share)):
            total = each[side].sum()
            each[side] *= share / total if total else 0.0
        return np.asarray(each * len(each), dtype=np.float64)


def enrolled_searches(vectors: Float32, owners: Int64, people: int) -> NamedSearches:
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
    return calibration_error(predicted, searches.right, searches.weights(known_share))
