"""Impostor statistics: exact over drawn galleries, a tail that is recovered, an extrapolation that errs to the safe side."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from scripts.impostors import ImpostorModel, Population, Tail, _pareto, bootstrap_models
from scripts.thresholds import (
    Mated,
    open_set_check,
    people_population,
    single_population,
    size_curve,
    size_statistics,
)
from tests.evaluation_data import people_of


def noise(probes: int, people: int, seed: int = 0) -> Population:
    scores = np.random.default_rng(seed).normal(0.0, 0.1, (probes, people))
    return Population("noise", scores, np.arange(probes))


def test_fpir_is_the_mean_over_all_galleries_that_can_be_drawn() -> None:
    population = noise(6, 7, seed=1)
    model = ImpostorModel([population])
    for size in (1, 3, 7):
        for threshold in (-0.05, 0.05, 0.12):
            brute = np.mean(
                [
                    (population.scores[:, list(chosen)].max(axis=1) >= threshold).mean()
                    for chosen in combinations(range(7), size)
                ]
            )
            assert model.fpir(size, threshold) == pytest.approx(brute)


def test_own_person_is_no_impostor_and_people_weigh_the_same() -> None:
    scores = np.full((4, 4), -0.5)
    scores[0, 1] = 0.9
    scores[np.arange(4), np.arange(4)] = -np.inf
    model = ImpostorModel([Population("p", scores, np.asarray([0, 0, 0, 1]))])  # three photos of one person
    assert model.fpir(3, 0.5) == pytest.approx((1 / 3 + 0) / 2)
    assert model.populations[0].largest == 3
    assert model.measured(3)
    assert not model.measured(4)


def test_thresholds_keep_the_target_and_rise_with_the_gallery() -> None:
    model = ImpostorModel([noise(300, 200), noise(200, 200, seed=1)])
    thresholds = [model.threshold(size, 0.01) for size in (10, 30, 100, 200, 1000, 100_000)]
    assert thresholds == sorted(thresholds)
    for size, threshold in zip((10, 100), thresholds[::2], strict=False):
        assert model.fpir(size, threshold) <= 0.01 < model.fpir(size, threshold - 0.02)


def test_independent_comparisons_follow_the_formula() -> None:
    model = ImpostorModel([noise(2000, 100)])
    for threshold in (0.2, 0.25):
        assert model.extrapolated(100, threshold) == pytest.approx(model.fpir(100, threshold), rel=0.15)


def test_faces_that_resemble_many_make_the_formula_err_to_the_safe_side() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(0.0, 0.05, (400, 100)) + generator.normal(0.0, 0.1, (400, 1))
    model = ImpostorModel([Population("wolves", scores, np.arange(400))])
    assert model.extrapolated(100, 0.25) > 1.5 * model.fpir(100, 0.25)


def test_the_pareto_fit_recovers_a_known_tail() -> None:
    generator = np.random.default_rng(0)
    uniform = generator.random(20_000)
    excess = 0.05 * ((1 - uniform) ** 0.2 - 1) / -0.2
    shape, scale = _pareto(excess, np.ones(len(excess)))
    assert shape == pytest.approx(-0.2, abs=0.03)
    assert scale == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.1])
def test_a_tail_falls_from_its_share(shape: float) -> None:
    tail = Tail(0.4, 0.01, shape, 0.05)
    rates = tail.fmr(np.linspace(0.4, 0.9, 50))
    assert rates[0] == 0.01
    assert (np.diff(rates) <= 0).all()
    assert (rates >= 0).all()


def test_the_extrapolated_rate_of_a_normal_tail_is_near_or_above_the_truth() -> None:
    """True scores are normal: at a gallery a hundred times larger than measured the true FPIR is known exactly."""
    from scipy.stats import norm

    model = ImpostorModel([noise(400, 150)])
    threshold = model.threshold(10_000, 0.05)
    truth = -np.expm1(10_000 * np.log1p(-norm.sf(threshold / 0.1)))
    assert truth <= 0.25
    doubt = [one.extrapolated(10_000, threshold) for one in bootstrap_models(model.populations, 60)]
    assert np.quantile(doubt, 0.02) <= truth <= max(doubt)


def test_the_record_has_every_size_and_says_what_was_measured() -> None:
    faces = people_of(40, 4, spread=1.5, seed=3)
    rows = np.arange(len(faces.owner))
    wild, mated = people_population("wild", faces, rows[rows % 4 < 2], rows[rows % 4 >= 2])
    assert wild.largest == 39
    assert len(mated.score) == 80
    single = single_population("single", people_of(60, 1, seed=4))
    statistics, model = size_statistics([wild, single], mated, replicates=20)
    assert [row["gallery_size"] for row in statistics][:5] == [1, 3, 10, 30, 50]
    assert statistics[-1]["gallery_size"] == 1_000_000
    for target in ("0.1", "0.01", "0.001"):
        thresholds = [row["thresholds"][target] for row in statistics]
        assert thresholds == sorted(thresholds)
    for row in statistics:
        assert row["thresholds"]["0.1"] <= row["thresholds"]["0.01"] <= row["thresholds"]["0.001"]
        assert row["measured"]["0.1"] == (row["gallery_size"] <= 39)
        assert not row["measured"]["0.001"]  # 100 people cannot show one in a thousand
    assert all(curve["probability"] == sorted(curve["probability"]) for curve in (row["curve"] for row in statistics))
    check = open_set_check(people_of(120, 2, seed=5), statistics, draws=2)
    assert [row["gallery_size"] for row in check] == [1, 3, 10, 30, 50]
    assert model.tail.share == pytest.approx(0.01, rel=0.5)


def test_a_larger_gallery_makes_the_same_similarity_less_certain() -> None:
    model = ImpostorModel([noise(300, 200)])
    generator = np.random.default_rng(1)
    mated = Mated(generator.normal(0.5, 0.15, 300), np.repeat(np.arange(60), 5))
    small, large = (size_curve(model, size, mated, 0.5) for size in (10, 100_000))
    assert small(0.4) > large(0.4)
    assert small(0.8) > 0.95
