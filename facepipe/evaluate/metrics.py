"""Error rates from arrays of scores: pure functions, no pictures, no disk.

A score is a similarity: larger means more alike, and a comparison is accepted when its score is at or above the
threshold. A comparison that could not be made because a face was not found (failure to enrol, FTE) has the score
-inf: it is never accepted. Terms follow NIST's FRTE:

    FAR / TAR     verification: share of impostor / genuine comparisons that are accepted (FMR and 1 - FNMR)
    FPIR          identification: share of searches by people who are not enrolled that return a name
    FNIR          share of searches by enrolled people that do not return their name first and above the threshold
    rank-1, CMC   share of searches by enrolled people whose own name comes first, or among the first k, at no threshold
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

#: Rates are compared with this much slack, so that 0.001 * 3000 counts as 3 and not as 2.
_SLACK = 1e-9


def _scores(values: ArrayLike, name: str) -> Float64:
    """Return a float64 (n,) copy; ValueError when it is empty, not flat, or holds NaN."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name}: expected a flat array with at least one score, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name}: expected no NaN (a failure to enrol is -inf)")
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """The receiver operating characteristic: at `thresholds[i]`, `far[i]` and `tar[i]` of the comparisons are accepted.

    Float64 (n,) each, thresholds falling from +inf; the rates rise from 0. FNMR is 1 - tar.
    """

    thresholds: Float64
    far: Float64
    tar: Float64


def roc(genuine: ArrayLike, impostor: ArrayLike) -> Roc:
    """Return the rates at every threshold at which one of them changes."""
    same, other = _scores(genuine, "genuine"), _scores(impostor, "impostor")
    finite = np.unique(np.concatenate([same, other]))[::-1]
    thresholds = np.concatenate([[np.inf], finite[np.isfinite(finite)]])
    return Roc(thresholds, accepted_share(other, thresholds), accepted_share(same, thresholds))


def accepted_share(scores: ArrayLike, thresholds: ArrayLike) -> Float64:
    """Return for each threshold the share of scores at or above it, float64 0..1 in the shape of `thresholds`."""
    ordered = np.sort(_scores(scores, "scores"))
    below = np.searchsorted(ordered, np.asarray(thresholds, dtype=np.float64), side="left")
    return np.asarray((len(ordered) - below) / len(ordered), dtype=np.float64)


def auc(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Return the area under the ROC: the chance that a genuine score beats an impostor's, a tie counting half."""
    same, other = _scores(genuine, "genuine"), np.sort(_scores(impostor, "impostor"))
    below = np.searchsorted(other, same, side="left")
    at_or_below = np.searchsorted(other, same, side="right")
    return float((below + at_or_below).sum() / (2 * len(same) * len(other)))


def eer(genuine: ArrayLike, impostor: ArrayLike) -> tuple[float, float]:
    """Return the equal error rate, where FAR = FNMR on the straight line between ROC points, and its threshold."""
    curve = roc(genuine, impostor)
    gap = curve.far - (1.0 - curve.tar)  # rises from -1 to 1 - FNMR at -inf
    after = int(np.argmax(gap >= 0.0))
    if gap[after] < 0.0:  # so many failures to enrol that FNMR stays above FAR: the lowest threshold is the closest
        return float(1.0 - curve.tar[-1]), float(curve.thresholds[-1])
    if gap[after] == 0.0:
        return float(curve.far[after]), float(curve.thresholds[after])
    before = after - 1
    part = -gap[before] / (gap[after] - gap[before])
    rate = curve.far[before] + part * (curve.far[after] - curve.far[before])
    return float(rate), float(curve.thresholds[after])


def threshold_at(impostor: ArrayLike, rate: float) -> float:
    """Return the lowest threshold that accepts at most `rate` of the impostor scores (equal scores stay together).

    -inf when even accepting all of them stays within the rate. ValueError unless 0 <= rate <= 1.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate: expected 0..1, got {rate}")
    falling = np.sort(_scores(impostor, "impostor"))[::-1]
    allowed = int(np.floor(rate * len(falling) + _SLACK))
    if allowed >= len(falling):
        return -np.inf
    return float(np.nextafter(falling[allowed], np.inf))


def tar_at_far(genuine: ArrayLike, impostor: ArrayLike, far: float) -> float:
    """Return the share of genuine comparisons accepted at the threshold for `far`; failures to enrol are misses."""
    threshold = threshold_at(impostor, far)
    same = _scores(genuine, "genuine")
    return float(np.mean((same >= threshold) & np.isfinite(same)))


def supported(rate: float, count: int) -> bool:
    """Tell whether `count` impostors can show an error rate: at least one error among them must stay within it."""
    return rate * count >= 1.0 - _SLACK


def missing(rate: float, count: int) -> int:
    """Return how many impostors more are needed before `supported(rate, count)`."""
    return max(0, int(np.ceil(1.0 / rate - _SLACK)) - count)


def best_threshold(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Return the threshold with the fewest errors, the middle of the best stretch between two neighbouring scores."""
    same, other = _scores(genuine, "genuine"), _scores(impostor, "impostor")
    cuts = np.unique(np.concatenate([same, other]))
    cuts = cuts[np.isfinite(cuts)]
    if not len(cuts):
        raise ValueError("best_threshold: expected at least one finite score")
    middles = np.concatenate([[cuts[0]], (cuts[1:] + cuts[:-1]) / 2, [np.nextafter(cuts[-1], np.inf)]])
    right = accepted_share(same, middles) * len(same) + (1.0 - accepted_share(other, middles)) * len(other)
    best = np.flatnonzero(right >= right.max() - _SLACK)
    return float(middles[best[len(best) // 2]])


def accuracy(genuine: ArrayLike, impostor: ArrayLike, threshold: float) -> float:
    """Return the share of comparisons decided rightly.

    A comparison that could not be made (-inf) is wrong on either side: not to have compared two strangers is not a success.
    """
    same, other = np.asarray(genuine, np.float64), np.asarray(impostor, np.float64)
    right = np.sum((same >= threshold) & np.isfinite(same)) + np.sum((other < threshold) & np.isfinite(other))
    return float(right / (len(same) + len(other)))


def cmc(ranks: ArrayLike, longest: int) -> Float64:
    """Return the cumulative match characteristic: the share of ranks <= 1, 2, ..., `longest`.

    ranks: (n,), 1 is first; inf where the search failed (no face, or the person has no template).
    """
    values = _scores(ranks, "ranks")
    return np.asarray([np.mean(values <= k) for k in range(1, longest + 1)], dtype=np.float64)


def fnir(hit_scores: ArrayLike, threshold: float) -> float:
    """Return the share of searches by enrolled people that miss at this threshold: FNIR(N, R=1, T).

    hit_scores: (n,), the score of the first candidate where it is the right person, else -inf.
    """
    scores = _scores(hit_scores, "hit_scores")
    return float(1.0 - np.mean((scores >= threshold) & np.isfinite(scores)))


def calibration_error(
    probability: ArrayLike, outcome: ArrayLike, weights: ArrayLike | None = None, bins: int = 10
) -> float:
    """Return the expected calibration error (ECE): the mean distance of prediction and observation in equally wide bins.

    Each bin counts by its weight (Guo et al. 2017, "On Calibration of Modern Neural Networks"). probability: (n,) 0..1.
    outcome: (n,) true where the name was right. weights: (n,), all 1 when None.
    """
    predicted = _scores(probability, "probability")
    if predicted.min() < 0.0 or predicted.max() > 1.0:
        raise ValueError("probability: expected 0..1")
    weight = np.ones(len(predicted)) if weights is None else np.asarray(weights, np.float64)
    index = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    gap = np.bincount(index, weights=weight * (predicted - np.asarray(outcome, np.float64)), minlength=bins)
    return float(np.abs(gap).sum() / weight.sum())


def by_group(groups: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return for each group, in alphabetical order, the positions at which it stands."""
    names = np.asarray(groups)
    return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
