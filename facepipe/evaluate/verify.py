"""Verification, 1:1: are these two photos of one person? From a pair list and embeddings to a report.

Failures to enrol count against the model: a genuine pair with a photo in which no face was found is a miss at every
threshold; an impostor pair with such a photo is left out of FAR, so that it cannot make FAR look smaller; and in the
accuracy either is a wrong decision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.evaluate import metrics
from facepipe.evaluate.bootstrap import band, bootstrap_verification, interval
from facepipe.evaluate.bounds import clopper_pearson
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.pairs import PairList
from facepipe.evaluate.photo_set import PhotoSet

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
#: FARs at which the ROC's band is drawn.
GRID: Float64 = np.logspace(-5, 0, 101)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group: its size, its accuracy, EER, and its FAR and TAR at the overall threshold."""

    group: str
    pairs: int
    accuracy: float
    eer: float | None
    far: float | None
    far_interval_95: tuple[float, float] | None
    tar: float | None
    warning: str | None


@dataclass(frozen=True, slots=True)
class VerificationFigures:
    """What the JSON document of a verification run holds. Rates are shares 0..1, intervals are 95 % over people.

    tar_at_far: only FARs that the number of impostor pairs supports; `more_impostor_pairs_needed` says how many the others lack.
    """

    model: str
    pairs: int
    genuine: int
    impostor: int
    photos: int
    failed_to_enrol: int
    failed_pairs: int
    accuracy: float
    accuracy_sd: float
    accuracy_by_fold: tuple[float, ...]
    auc: float
    eer: float
    eer_threshold: float
    tar_at_far: dict[str, float]
    threshold_at_far: dict[str, float]
    more_impostor_pairs_needed: dict[str, int]
    intervals_95: dict[str, tuple[float, float]]
    groups: tuple[GroupRow, ...]


@dataclass(frozen=True, slots=True, eq=False)
class VerificationReport:
    """A verification run: its figures, and what its sheet draws. scores: float64 (pairs,), -inf where a photo failed."""

    figures: VerificationFigures
    scores: Float64
    pairs: PairList
    photos: PhotoSet
    grid_band: tuple[Float64, Float64] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document's content."""
        failures = {str(path): reason for path, reason in self.photos.failures.items()}
        return {"schema_version": 1, **asdict(self.figures), "failures": failures}

    def warnings(self) -> list[str]:
        """Return a line for each group whose false positive rate is over twice the overall one."""
        return [row.warning for row in self.figures.groups if row.warning]


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
    spread = float(np.std(folds, ddof=1)) if len(folds) > 1 else 0.0
    if len(folds) > 1:
        from scipy.stats import t

        # Folds share no people, so they are the resampling: Student's t over folds.
        half = float(t.ppf(0.975, len(folds) - 1) * spread / np.sqrt(len(folds)))
        intervals["accuracy"] = (float(np.mean(folds)) - half, min(1.0, float(np.mean(folds)) + half))
    error, at = metrics.eer(same, other)
    figures = VerificationFigures(
        model=photos.fingerprint,
        pairs=len(pairs),
        genuine=int(pairs.same.sum()),
        impostor=int((~pairs.same).sum()),
        photos=len(photos),
        failed_to_enrol=int((~photos.found).sum()),
        failed_pairs=int((~done).sum()),
        accuracy=float(np.mean(folds)),
        accuracy_sd=spread,
        accuracy_by_fold=tuple(folds),
        auc=metrics.auc(same, other),
        eer=error,
        eer_threshold=at,
        tar_at_far={rate_key(far): metrics.tar_at_far(same, other, far) for far in fars},
        threshold_at_far={rate_key(far): metrics.threshold_at(other, far) for far in fars},
        more_impostor_pairs_needed={rate_key(far): metrics.missing(far, len(other)) for far in FARS if far not in fars},
        intervals_95=intervals,
        groups=_groups(scores, pairs, fars),
    )
    return VerificationReport(figures, scores, pairs, photos, band(replicas.curve) if len(replicas.curve) else None)


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
                far_interval_95=clopper_pearson(passed, len(tried)) if len(tried) else None,
                tar=1.0 - metrics.fnir(same, threshold) if len(same) else None,
                warning=group_warning(name, "FAR", passed, len(tried), overall),
            )
        )
    return tuple(rows)


def group_warning(group: str, what: str, passed: float, tried: int, overall: float) -> str | None:
    """Return a warning when a group's false positive rate is over twice the overall one, and whether chance explains it."""
    if not tried or overall <= 0.0 or passed / tried <= 2.0 * overall:
        return None
    low, high = clopper_pearson(passed, tried)
    chance = "chance does not explain it" if low > overall else "few data: chance could explain it"
    return (
        f"group {group}: {what} {passed / tried:.2%} ({low:.2%} to {high:.2%}) is over twice the overall {overall:.2%}; "
        f"{chance}"
    )
