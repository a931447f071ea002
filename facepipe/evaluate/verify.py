"""Verification, 1:1: are these two photos of one person? From a pair list and embeddings to a report.

Failures to enrol count against the model: a genuine pair with a photo in which no face was found is a miss at every
threshold; an impostor pair with such a photo is left out of FAR, so that it cannot make FAR look smaller; and in the
accuracy either is a wrong decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.evaluate import metrics
from facepipe.evaluate.bootstrap import band, bootstrap_verification, interval
from facepipe.evaluate.bounds import clopper_pearson
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.photo_set import PhotoSet
from facepipe.evaluate.protocols import PairList

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
#: FARs at which the ROC's band is drawn.
GRID: Float64 = np.logspace(-5, 0, 101)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group: its size, its accuracy, EER, and its FAR and TAR at the whole's threshold, with 95 % intervals."""

    group: str
    pairs: int
    accuracy: float
    eer: float | None
    far: float | None
    far_interval: tuple[float, float] | None
    tar: float | None
    warning: str | None


@dataclass(frozen=True, slots=True, eq=False)
class VerificationReport:
    """All figures of one verification run. Rates are shares 0..1, intervals are 95 % over people.

    tar_at_far: only FARs that the number of impostor pairs supports; `needs` says how many pairs the others lack.
    scores: float64 (pairs,), -inf where a photo failed.
    """

    accuracy: float
    accuracy_sd: float
    fold_accuracy: tuple[float, ...]
    auc: float
    eer: float
    eer_threshold: float
    tar_at_far: dict[str, float]
    threshold_at_far: dict[str, float]
    needs: dict[str, int]
    intervals: dict[str, tuple[float, float]]
    genuine: int
    impostor: int
    failed_photos: int
    failed_pairs: int
    groups: tuple[GroupRow, ...]
    scores: Float64
    pairs: PairList
    photos: PhotoSet
    grid_band: tuple[Float64, Float64] | None = field(default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document's content."""
        return {
            "schema_version": 1,
            "model": self.photos.fingerprint,
            "pairs": len(self.pairs),
            "genuine": self.genuine,
            "impostor": self.impostor,
            "photos": len(self.photos),
            "failed_to_enrol": self.failed_photos,
            "failed_pairs": self.failed_pairs,
            "accuracy": self.accuracy,
            "accuracy_sd": self.accuracy_sd,
            "accuracy_by_fold": list(self.fold_accuracy),
            "auc": self.auc,
            "eer": self.eer,
            "eer_threshold": self.eer_threshold,
            "tar_at_far": self.tar_at_far,
            "threshold_at_far": self.threshold_at_far,
            "more_impostor_pairs_needed": self.needs,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "groups": [
                {
                    "group": row.group,
                    "pairs": row.pairs,
                    "accuracy": row.accuracy,
                    "eer": row.eer,
                    "far": row.far,
                    "far_interval_95": row.far_interval,
                    "tar": row.tar,
                    "warning": row.warning,
                }
                for row in self.groups
            ],
            "failures": {str(path): reason for path, reason in self.photos.failures.items()},
        }


def rate_key(rate: float) -> str:
    """Return a rate as JSON key: 0.1, 0.001, 0.00001."""
    return np.format_float_positional(rate, trim="-")


def score_pairs(pairs: PairList, photos: PhotoSet) -> Float64:
    """Return the cosine of each pair, float64 (n,), -inf where one of the photos has no vector."""
    vectors = photos.vectors.astype(np.float64)
    scores = np.einsum("nd,nd->n", vectors[pairs.a], vectors[pairs.b])
    return np.where(photos.found[pairs.a] & photos.found[pairs.b], scores, -np.inf)


def evaluate_pairs(pairs: PairList, photos: PhotoSet, replicates: int = 1000, seed: int = 0) -> VerificationReport:
    """Compute the whole report. ValueError when no genuine or no impostor pair could be compared."""
    scores = score_pairs(pairs, photos)
    done = np.isfinite(scores)
    same = scores[pairs.same]
    other = scores[~pairs.same & done]
    if not np.isfinite(same).any() or not len(other):
        raise ValueError(
            "evaluate_pairs: expected at least one genuine and one impostor pair with faces in both photos"
        )
    folds = _fold_accuracy(scores, pairs.same, pairs.fold)
    fars = [far for far in FARS if metrics.supported(far, len(other))]
    replicas = bootstrap_verification(
        same,
        pairs.people[pairs.a[pairs.same]],
        other,
        np.stack([pairs.people[side[~pairs.same & done]] for side in (pairs.a, pairs.b)], axis=1),
        np.asarray(fars),
        GRID,
        replicates,
        seed,
    )
    intervals = {"auc": interval(replicas.auc), "eer": interval(replicas.eer)}
    intervals |= {f"tar_at_far_{rate_key(far)}": interval(replicas.tar[:, i]) for i, far in enumerate(fars)}
    if len(folds) > 1:
        from scipy.stats import t

        # Folds share no people, so they are the resampling: Student's t over folds.
        half = float(t.ppf(0.975, len(folds) - 1) * np.std(folds, ddof=1) / np.sqrt(len(folds)))
        middle = float(np.mean(folds))
        intervals["accuracy"] = (middle - half, min(1.0, middle + half))
    error, at = metrics.eer(same, other)
    return VerificationReport(
        accuracy=float(np.mean(folds)),
        accuracy_sd=float(np.std(folds, ddof=1)) if len(folds) > 1 else 0.0,
        fold_accuracy=tuple(folds),
        auc=metrics.auc(same, other),
        eer=error,
        eer_threshold=at,
        tar_at_far={rate_key(far): metrics.tar_at_far(same, other, far) for far in fars},
        threshold_at_far={rate_key(far): metrics.threshold_at(other, far) for far in fars},
        needs={rate_key(far): metrics.missing(far, len(other)) for far in FARS if far not in fars},
        intervals=intervals,
        genuine=int(pairs.same.sum()),
        impostor=int((~pairs.same).sum()),
        failed_photos=int((~photos.found).sum()),
        failed_pairs=int((~done).sum()),
        groups=_groups(scores, pairs, fars),
        scores=scores,
        pairs=pairs,
        photos=photos,
        grid_band=band(replicas.curve) if len(replicas.curve) else None,
    )


def _fold_accuracy(scores: Float64, same: NDArray[np.bool_], fold: NDArray[np.int64]) -> list[float]:
    """Choose the threshold on all other folds, test on each; a single fold has nothing to choose it on but itself."""
    names = np.unique(fold)
    found = []
    for name in names:
        test = fold == name
        train = ~test if len(names) > 1 else test
        if not np.isfinite(scores[train & same]).any() or not (train & ~same).any():
            train = np.ones_like(test)
        threshold = metrics.best_threshold(scores[train & same], scores[train & ~same])
        found.append(metrics.accuracy(scores[test & same], scores[test & ~same], threshold))
    return found


def _groups(scores: Float64, pairs: PairList, fars: list[float]) -> tuple[GroupRow, ...]:
    """Break down by group at the threshold of the whole for FAR 1 % (or the lowest FAR that the data support)."""
    if not pairs.groups or not fars:
        return ()
    whole = scores[~pairs.same & np.isfinite(scores)]
    far = max(0.01, fars[-1])
    threshold = metrics.threshold_at(whole, far)
    overall = float(np.mean(whole >= threshold))
    decide = metrics.best_threshold(scores[pairs.same], whole)
    rows = []
    for name, at in metrics.by_group(pairs.groups).items():
        same, other = scores[at][pairs.same[at]], scores[at][~pairs.same[at]]
        tried = other[np.isfinite(other)]
        passed = int((tried >= threshold).sum())
        rows.append(
            GroupRow(
                group=name,
                pairs=len(at),
                accuracy=metrics.accuracy(same, other, decide),
                eer=metrics.eer(same, tried)[0] if len(same) and len(tried) and np.isfinite(same).any() else None,
                far=passed / len(tried) if len(tried) else None,
                far_interval=clopper_pearson(passed, len(tried)) if len(tried) else None,
                tar=1.0 - metrics.fnir(same, threshold) if len(same) else None,
                warning=group_warning(name, "FAR", passed, len(tried), overall),
            )
        )
    return tuple(rows)


def group_warning(group: str, what: str, passed: float, tried: int, overall: float) -> str | None:
    """Return a warning when a group's false positive rate is over twice the whole's, and whether chance explains it."""
    if not tried or overall <= 0.0 or passed / tried <= 2.0 * overall:
        return None
    low, high = clopper_pearson(passed, tried)
    chance = "chance does not explain it" if low > overall else "few data: chance could explain it"
    return (
        f"group {group}: {what} {passed / tried:.2%} ({low:.2%} to {high:.2%}) is over twice the whole's {overall:.2%}; "
        f"{chance}"
    )
