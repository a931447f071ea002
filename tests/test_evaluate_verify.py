"""The verification report: known answers, folds, failures, groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facepipe.evaluate.pairs import PairList
from facepipe.evaluate.photo_set import QUALITY, PhotoSet
from facepipe.evaluate.verify import evaluate_pairs, group_warning, rate_key, score_pairs
from tests.evaluation_data import vectors_of


def sample(
    people: int = 60, spread: float = 0.9, missing: tuple[int, ...] = (), groups: bool = False
) -> tuple[PairList, PhotoSet]:
    """Return three photos of each person, all genuine pairs, and as many impostor pairs, in five folds."""
    vectors = vectors_of(people, 3, spread, seed=5)
    owner = np.repeat(np.arange(people), 3)
    genuine = [(3 * p + i, 3 * p + j) for p in range(people) for i, j in ((0, 1), (0, 2), (1, 2))]
    generator = np.random.default_rng(1)
    impostor = [(3 * a, 3 * b + 1) for a, b in generator.integers(0, people, (400, 2)) if a != b]
    pairs = np.asarray([*genuine, *impostor])
    same = owner[pairs[:, 0]] == owner[pairs[:, 1]]
    names = tuple("left" if a < 90 else "right" for a in pairs[:, 0]) if groups else ()
    found = np.ones(len(vectors), np.bool_)
    found[list(missing)] = False
    paths = tuple(Path(f"{i}.jpg") for i in range(len(vectors)))
    photos = PhotoSet(
        paths,
        vectors,
        found,
        np.zeros((len(vectors), 4), np.float32),
        np.ones((len(vectors), len(QUALITY)), np.float32),
        {paths[i]: "no face found" for i in missing},
        "fake:1",
    )
    return PairList(paths, pairs[:, 0], pairs[:, 1], same, owner, owner[pairs[:, 0]] % 5, names), photos


def test_the_report_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    pairs, photos = sample()
    report = evaluate_pairs(pairs, photos, replicates=100)
    assert report.figures.auc == pytest.approx(roc_auc_score(pairs.same, report.scores))
    far, tar, _ = roc_curve(pairs.same, report.scores, drop_intermediate=False)
    assert report.figures.tar_at_far["0.01"] == pytest.approx(tar[far <= 0.01 + 1e-12].max())
    for name, value in (
        ("auc", report.figures.auc),
        ("eer", report.figures.eer),
        ("tar_at_far_0.1", report.figures.tar_at_far["0.1"]),
    ):
        low, high = report.figures.intervals_95[name]
        assert low - 0.01 <= value <= high + 0.01


def test_the_threshold_of_a_fold_comes_from_the_others() -> None:
    """Brute force: the accuracy of each fold at the best threshold of the other four."""
    from facepipe.evaluate import metrics

    pairs, photos = sample(spread=1.3)
    report = evaluate_pairs(pairs, photos, replicates=100)
    scores = score_pairs(pairs, photos)
    expected = []
    for fold in range(5):
        train, test = pairs.fold != fold, pairs.fold == fold
        threshold = metrics.best_threshold(scores[train & pairs.same], scores[train & ~pairs.same])
        expected.append(np.mean((scores[test] >= threshold) == pairs.same[test]))
    assert report.figures.accuracy_by_fold == pytest.approx(expected)
    assert report.figures.accuracy == pytest.approx(np.mean(expected))
    assert report.figures.accuracy_sd == pytest.approx(np.std(expected, ddof=1))


def test_what_the_data_cannot_show_is_not_shown() -> None:
    pairs, photos = sample()
    values = evaluate_pairs(pairs, photos, replicates=100).as_dict()
    impostors = int((~pairs.same).sum())
    assert set(values["tar_at_far"]) == {"0.1", "0.01"}
    assert values["more_impostor_pairs_needed"] == {
        "0.001": 1000 - impostors,
        "0.0001": 10_000 - impostors,
        "0.00001": 100_000 - impostors,
    }
    json.dumps(values)


def test_a_photo_without_a_face_costs_its_pairs() -> None:
    whole = evaluate_pairs(*sample(spread=0.3), replicates=100)
    assert whole.figures.accuracy == 1.0
    pairs, photos = sample(spread=0.3, missing=(0,))
    report = evaluate_pairs(pairs, photos, replicates=100)
    touched = (pairs.a == 0) | (pairs.b == 0)
    assert (report.figures.failed_to_enrol, report.figures.failed_pairs) == (1, touched.sum())
    lost = (touched & pairs.same).sum() / pairs.same.sum()
    assert report.figures.tar_at_far["0.1"] == pytest.approx(1 - lost)  # genuine pairs: missed at every threshold
    right = len(pairs) * np.mean([*report.figures.accuracy_by_fold])
    assert right < len(pairs) - touched.sum() * 0.5  # and wrong in the accuracy, genuine or not
    assert report.as_dict()["failures"] == {"0.jpg": "no face found"}


def test_a_group_with_twice_the_false_positives_is_warned_about() -> None:
    pairs, photos = sample(groups=True)
    report = evaluate_pairs(pairs, photos, replicates=100)
    assert {row.group for row in report.figures.groups} == {"left", "right"}
    assert sum(row.pairs for row in report.figures.groups) == len(pairs)
    assert group_warning("g", "FPIR", 30, 1000, 0.01) is not None
    assert "chance does not explain" in str(group_warning("g", "FPIR", 30, 1000, 0.01))
    assert "few data" in str(group_warning("g", "FPIR", 1, 40, 0.01))
    assert group_warning("g", "FPIR", 15, 1000, 0.01) is None
    assert group_warning("g", "FPIR", 0, 0, 0.01) is None


def test_nothing_to_compare_is_an_error() -> None:
    pairs, photos = sample(people=5, missing=tuple(range(15)))
    with pytest.raises(ValueError, match="at least one genuine"):
        evaluate_pairs(pairs, photos)


def test_rates_as_keys() -> None:
    assert [rate_key(r) for r in (0.1, 0.01, 1e-3, 1e-5)] == ["0.1", "0.01", "0.001", "0.00001"]
