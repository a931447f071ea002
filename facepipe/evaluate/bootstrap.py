"""How sure a figure is: resampling people, because two photos of one person are not two witnesses.

Each replicate draws the people anew, with replacement. A comparison counts as often as its person was drawn; a
comparison of two people as often as the product of both (the pigeonhole bootstrap of Owen 2007, never too narrow).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from facepipe.evaluate.metrics import Float64
from facepipe.types import Int64

_SLACK = 1e-9


def person_weights(people: int, replicates: int, seed: int = 0) -> Iterator[Float64]:
    """Yield for each replicate how often each of `people` was drawn, float64 (people,), sum = people."""
    generator = np.random.default_rng(seed)
    for _ in range(replicates):
        yield generator.multinomial(people, np.full(people, 1.0 / people)).astype(np.float64)


def interval(values: Float64, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of replicates (n,), leaving out NaN: draws in which the figure was undefined."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return float(low), float(high)


def band(curves: Float64, confidence: float = 0.95) -> tuple[Float64, Float64]:
    """Return the pointwise percentile band of curves (replicates, points)."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(curves, [tail, 1.0 - tail], axis=0)
    return low, high


class WeightedRates:
    """Genuine and impostor scores sorted once, so that a weighted rate costs one cumulative sum.

    genuine (n,), impostor (m,): scores, -inf where a face was not found.
    """

    def __init__(self, genuine: Float64, impostor: Float64) -> None:
        self.genuine_order: Int64 = np.argsort(-genuine, kind="stable")
        self.impostor_order: Int64 = np.argsort(-impostor, kind="stable")
        same, other = genuine[self.genuine_order], impostor[self.impostor_order]
        # above[k]: genuine scores above the k-th largest impostor; the last entry: all that are scores at all.
        self._above: Int64 = np.append(np.searchsorted(-same, -other, side="left"), np.isfinite(same).sum())
        # The same for "at or above", and where a run of equal impostor scores begins.
        self._reached: Int64 = np.searchsorted(-same, -other, side="right")
        self._run: Int64 = np.searchsorted(-other, -other, side="left")

    def tar(self, genuine_weights: Float64, impostor_weights: Float64, fars: Float64) -> Float64:
        """Return TAR at each FAR, weights in the order in which the scores were given; NaN when all weights are 0."""
        return self._genuine_share(genuine_weights)[self._above[self._cut(impostor_weights, fars)]]

    def auc(self, genuine_weights: Float64, impostor_weights: Float64) -> float:
        """Return the area under the weighted ROC, ties counting half."""
        share = self._genuine_share(genuine_weights)
        weights = impostor_weights[self.impostor_order]
        mean = (share[self._above[:-1]] + share[self._reached]) / 2.0
        return float(np.sum(mean * weights) / weights.sum()) if weights.sum() else float("nan")

    def eer(self, genuine_weights: Float64, impostor_weights: Float64) -> float:
        """Return the equal error rate: the smallest max(FAR, FNMR) over the thresholds at the impostor scores."""
        weights = impostor_weights[self.impostor_order]
        if not weights.sum():
            return float("nan")
        far = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
        fnmr = 1.0 - self._genuine_share(genuine_weights)[self._above]
        # Threshold just above impostor k: far[k] passes and fnmr[k] is missed; between k and k+1 both change in steps.
        return float(np.min(np.maximum(far, fnmr)))

    def _cut(self, weights: Float64, fars: Float64) -> Int64:
        """Return for each rate the position of the first impostor score that must stay out."""
        ordered = weights[self.impostor_order]
        passed = np.cumsum(ordered) / max(float(ordered.sum()), _SLACK)
        cut = np.searchsorted(passed, fars + _SLACK, side="right")
        inside = cut < len(ordered)
        cut[inside] = self._run[cut[inside]]
        return np.asarray(cut, dtype=np.int64)

    def _genuine_share(self, weights: Float64) -> Float64:
        total = float(weights.sum())
        if not total:
            return np.full(len(weights) + 1, np.nan)
        return np.concatenate([[0.0], np.cumsum(weights[self.genuine_order]) / total])


@dataclass(frozen=True, slots=True, eq=False)
class VerificationReplicates:
    """What the replicates of a verification gave: auc, eer (B,), tar (B, fars), curve (B, grid)."""

    auc: Float64
    eer: Float64
    tar: Float64
    curve: Float64


def bootstrap_verification(
    genuine: Float64,
    genuine_people: Int64,
    impostor: Float64,
    impostor_people: Int64,
    fars: Float64,
    grid: Float64,
    replicates: int = 1000,
    seed: int = 0,
) -> VerificationReplicates:
    """Resample people and recompute AUC, EER, TAR at `fars` and the ROC on `grid` (FARs).

    genuine (n,), genuine_people (n,): index of the person. impostor (m,), impostor_people (m, 2): indices of both.
    """
    people = int(max(genuine_people.max(initial=-1), impostor_people.max(initial=-1))) + 1
    rates = WeightedRates(genuine, impostor)
    auc, eer, tar, curve = [], [], [], []
    for drawn in person_weights(people, replicates, seed):
        same = drawn[genuine_people]
        other = drawn[impostor_people[:, 0]] * drawn[impostor_people[:, 1]]
        if not same.sum() or not other.sum():
            continue
        auc.append(rates.auc(same, other))
        eer.append(rates.eer(same, other))
        tar.append(rates.tar(same, other, fars))
        curve.append(rates.tar(same, other, grid))
    return VerificationReplicates(
        np.asarray(auc),
        np.asarray(eer),
        np.reshape(tar, (len(tar), len(fars))),
        np.reshape(curve, (len(curve), len(grid))),
    )
