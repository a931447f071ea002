"""Resampling people: equal to the plain figures at equal weights, and as wide as people differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.evaluate import metrics
from facepipe.evaluate.bootstrap import WeightedRates, band, bootstrap_verification, interval, person_weights

SCORES = st.lists(st.integers(-8, 8).map(lambda i: i / 8), min_size=1, max_size=30)


@given(SCORES, SCORES, st.data())
def test_a_weight_is_a_count(genuine: list[float], impostor: list[float], data: st.DataObject) -> None:
    """Weighted figures equal those of the list in which each score stands as often as its weight says."""
    same = np.asarray(data.draw(st.lists(st.integers(0, 3), min_size=len(genuine), max_size=len(genuine))))
    other = np.asarray(data.draw(st.lists(st.integers(0, 3), min_size=len(impostor), max_size=len(impostor))))
    rates = WeightedRates(np.asarray(genuine), np.asarray(impostor))
    if not same.sum() or not other.sum():
        assert np.isnan(rates.auc(same.astype(float), other.astype(float)))
        return
    repeated, others = np.repeat(genuine, same), np.repeat(impostor, other)
    fars = np.asarray([0.0, 0.1, 0.25, 0.5, 1.0])
    weights = same.astype(float), other.astype(float)
    assert rates.auc(*weights) == pytest.approx(metrics.auc(repeated, others))
    expected = [metrics.tar_at_far(repeated, others, far) for far in fars]
    np.testing.assert_allclose(rates.tar(*weights, fars), expected)
    assert rates.eer(*weights) >= metrics.eer(repeated, others)[0] - 1e-9


def test_failures_to_enrol_never_pass() -> None:
    rates = WeightedRates(np.asarray([0.9, -np.inf]), np.asarray([0.1, 0.2]))
    assert rates.tar(np.ones(2), np.ones(2), np.asarray([1.0]))[0] == 0.5


def test_weights_draw_as_many_people_as_there_are() -> None:
    draws = list(person_weights(7, 20, seed=1))
    assert all(d.sum() == 7 for d in draws)
    assert len({tuple(d) for d in draws}) > 10


def test_an_interval_holds_the_middle_and_leaves_out_what_is_undefined() -> None:
    assert interval(np.r_[np.arange(1001) / 1000, np.nan], 0.9) == pytest.approx((0.05, 0.95))
    assert np.isnan(interval(np.asarray([np.nan]))[0])
    low, high = band(np.tile([[1.0, 2.0]], (5, 1)))
    assert low.tolist() == high.tolist() == [1.0, 2.0]


def test_ten_photos_of_one_person_do_not_make_the_interval_narrower() -> None:
    """Pairs copied tenfold within their person carry no news: the interval over people stays, over pairs it shrinks."""
    generator = np.random.default_rng(0)
    people, fars, grid = 60, np.asarray([0.1]), np.asarray([0.1])
    genuine = generator.normal(0.5, 0.3, people)
    impostor, sides = generator.normal(0.0, 0.2, 400), generator.integers(0, people, (400, 2))
    owner = np.arange(people)
    once = bootstrap_verification(genuine, owner, impostor, sides, fars, grid, 400)
    tenfold = bootstrap_verification(np.repeat(genuine, 10), np.repeat(owner, 10), impostor, sides, fars, grid, 400)
    assert np.std(tenfold.tar) == pytest.approx(np.std(once.tar), rel=0.02)


def test_the_interval_covers_the_truth_when_people_differ() -> None:
    """100 simulated sets whose people have their own mean: the true AUC lies inside in about 95."""
    generator = np.random.default_rng(3)
    grid = np.asarray([0.1])

    def sample(people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        level = generator.normal(0.0, 0.15, people)
        owner = np.repeat(np.arange(people), 5)
        sides = generator.integers(0, people, (6 * people, 2))
        sides = sides[sides[:, 0] != sides[:, 1]]
        noise = generator.normal(0.0, 0.2, len(sides))
        genuine = 0.5 + level[owner] + generator.normal(0, 0.1, len(owner))
        return genuine, owner, level[sides].sum(axis=1) + noise, sides

    genuine, _, impostor, _ = sample(40000)
    truth = metrics.auc(genuine, impostor)
    inside = 0
    for _ in range(100):
        genuine, owner, impostor, sides = sample(80)
        low, high = interval(bootstrap_verification(genuine, owner, impostor, sides, grid, grid, 200).auc)
        inside += low <= truth <= high
    assert inside >= 90
