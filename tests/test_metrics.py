"""Error rates against scikit-learn, brute force, known answers by hand, and properties that must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.evaluate import metrics

SCORES = st.lists(st.integers(-8, 8).map(lambda i: i / 8), min_size=1, max_size=40)


def brute_tar(genuine: list[float], impostor: list[float], far: float) -> float:
    """Try every threshold that matters and keep the most accepted genuine comparisons within the rate."""
    allowed = [
        t
        for t in [np.inf, *genuine, *impostor, -np.inf]
        if sum(s >= t for s in impostor) / len(impostor) <= far + 1e-12
    ]
    return max(sum(s >= t for s in genuine) / len(genuine) for t in allowed)


@given(SCORES, SCORES)
def test_the_roc_and_its_area_are_those_of_scikit_learn(genuine: list[float], impostor: list[float]) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    labels = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    scores = np.r_[genuine, impostor]
    far, tar, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    ours = metrics.roc(genuine, impostor)
    np.testing.assert_allclose(ours.far, far)
    np.testing.assert_allclose(ours.tar, tar)
    np.testing.assert_array_equal(ours.thresholds, thresholds)
    assert metrics.auc(genuine, impostor) == pytest.approx(roc_auc_score(labels, scores))


@given(SCORES, SCORES, st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 1.0]))
def test_tar_at_far_is_what_trying_every_threshold_gives(
    genuine: list[float], impostor: list[float], far: float
) -> None:
    assert metrics.tar_at_far(genuine, impostor, far) == pytest.approx(brute_tar(genuine, impostor, far))


@given(SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
def test_a_threshold_keeps_its_rate_and_is_the_lowest_that_does(impostor: list[float], rate: float) -> None:
    threshold = metrics.threshold_at(impostor, rate)
    assert np.mean(np.asarray(impostor) >= threshold) <= rate + 1e-9
    lower = [s for s in impostor if s < threshold]
    if lower:
        assert np.mean(np.asarray(impostor) >= max(lower)) > rate


@given(SCORES, SCORES, st.randoms())
def test_figures_do_not_depend_on_the_order_of_the_scores(
    genuine: list[float], impostor: list[float], random: object
) -> None:
    shuffled, mixed = list(genuine), list(impostor)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    for figure in (metrics.auc, metrics.eer, metrics.best_threshold, lambda g, i: metrics.tar_at_far(g, i, 0.1)):
        assert figure(genuine, impostor) == figure(shuffled, mixed)


@given(SCORES, SCORES)
def test_rates_rise_as_the_threshold_falls(genuine: list[float], impostor: list[float]) -> None:
    curve = metrics.roc(genuine, impostor)
    assert (np.diff(curve.far) >= 0).all()
    assert (np.diff(curve.tar) >= 0).all()
    assert (np.diff(curve.thresholds) < 0).all()
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)
    tars = [metrics.tar_at_far(genuine, impostor, far) for far in (0.0, 0.01, 0.1, 0.5, 1.0)]
    assert tars == sorted(tars)


@given(SCORES, SCORES)
def test_no_threshold_decides_better_than_the_best_one(genuine: list[float], impostor: list[float]) -> None:
    best = metrics.accuracy(genuine, impostor, metrics.best_threshold(genuine, impostor))
    assert all(best >= metrics.accuracy(genuine, impostor, t) - 1e-12 for t in [-np.inf, np.inf, *genuine, *impostor])


@given(SCORES, SCORES)
def test_the_equal_error_rate_lies_between_the_rates_on_both_sides(genuine: list[float], impostor: list[float]) -> None:
    rate, threshold = metrics.eer(genuine, impostor)
    far, fnmr = metrics.accepted_share(impostor, threshold), 1 - metrics.accepted_share(genuine, threshold)
    stricter = np.nextafter(threshold, np.inf)
    far_before = metrics.accepted_share(impostor, stricter)
    fnmr_before = 1 - metrics.accepted_share(genuine, stricter)
    assert min(far, fnmr, far_before) - 1e-9 <= rate <= max(far, fnmr_before) + 1e-9


def test_known_answers_by_hand() -> None:
    genuine, impostor = [0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.2, 0.1]
    assert metrics.auc(genuine, impostor) == pytest.approx(14 / 16)  # 0.3 loses against 0.6 and 0.4
    assert metrics.eer(genuine, impostor)[0] == pytest.approx(0.25)
    assert metrics.tar_at_far(genuine, impostor, 0.0) == 0.75
    assert metrics.tar_at_far(genuine, impostor, 0.5) == 1.0
    assert metrics.accuracy(genuine, impostor, 0.65) == pytest.approx(7 / 8)
    assert metrics.best_threshold(genuine, impostor) == pytest.approx(0.65)


def test_scores_that_do_not_overlap_make_no_error() -> None:
    assert metrics.auc([0.8, 0.9], [0.1, 0.2]) == 1.0
    assert metrics.eer([0.8, 0.9], [0.1, 0.2])[0] == 0.0
    assert metrics.best_threshold([0.8, 0.9], [0.1, 0.2]) == pytest.approx(0.5)


def test_a_failure_to_enrol_is_a_miss_at_every_threshold_and_an_error_on_either_side() -> None:
    genuine, impostor = [0.9, -np.inf], [0.1, 0.2]
    assert metrics.tar_at_far(genuine, impostor, 1.0) == 0.5
    assert metrics.roc(genuine, impostor).tar[-1] == 0.5
    assert metrics.accuracy(genuine, [*impostor, -np.inf], 0.5) == pytest.approx(3 / 5)
    assert metrics.eer([0.9, -np.inf, -np.inf], [0.1, 0.2])[0] == pytest.approx(2 / 3)
    assert metrics.fnir([0.9, -np.inf], -1.0) == 0.5


def test_ties_with_the_threshold_stay_together() -> None:
    impostor = [0.5] * 5 + [0.1] * 95
    assert metrics.threshold_at(impostor, 0.05) <= 0.5  # all five
    assert metrics.threshold_at(impostor, 0.04) > 0.5  # none of them: four cannot be told from the fifth


def test_support_is_one_error_within_the_rate() -> None:
    assert metrics.supported(0.001, 1000)
    assert metrics.supported(0.001, 3000)
    assert not metrics.supported(0.001, 999)
    assert metrics.missing(0.001, 999) == 1
    assert metrics.missing(1e-5, 3000) == 97_000
    assert metrics.missing(0.1, 3000) == 0


def test_cmc_counts_a_person_without_a_template_as_never_found() -> None:
    np.testing.assert_allclose(metrics.cmc([1, 2, 2, np.inf], 3), [0.25, 0.75, 0.75])


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    probability = np.repeat([0.1, 0.9], 10)
    outcome = np.r_[[1], np.zeros(9), np.ones(9), [0]]
    assert metrics.calibration_error(probability, outcome) == pytest.approx(0.0)
    assert metrics.calibration_error(np.full(10, 0.75), np.ones(10)) == pytest.approx(0.25)
    weights = np.asarray([3.0, 1.0])
    assert metrics.calibration_error([0.75, 0.75], [1, 0], weights) == pytest.approx(0.0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_calibration_error_equals_a_loop_over_bins(pairs: list[tuple[float, bool]]) -> None:
    probability, outcome = np.asarray([p for p, _ in pairs]), np.asarray([o for _, o in pairs], float)
    error = 0.0
    for bin_ in range(10):
        inside = [i for i, p in enumerate(probability) if min(int(p * 10), 9) == bin_]
        if inside:
            error += abs(probability[inside].mean() - outcome[inside].mean()) * len(inside) / len(pairs)
    assert metrics.calibration_error(probability, outcome) == pytest.approx(error)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.roc([], [0.1]), "genuine"),
        (lambda: metrics.roc([0.1], [np.nan]), "no NaN"),
        (lambda: metrics.threshold_at([0.1], 1.5), r"0\.\.1"),
        (lambda: metrics.calibration_error([1.2], [1]), r"0\.\.1"),
        (lambda: metrics.best_threshold([-np.inf], [-np.inf]), "finite"),
    ],
)
def test_wrong_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_groups_are_positions() -> None:
    groups = metrics.by_group(["b", "a", "b"])
    assert {name: list(at) for name, at in groups.items()} == {"a": [1], "b": [0, 2]}
