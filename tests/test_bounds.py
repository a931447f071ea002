"""Exact bounds: known values, brute force over the binomial, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from facepipe.evaluate import bounds


def test_no_error_in_n_is_the_rule_of_three() -> None:
    assert bounds.upper_bound(0, 299) <= 0.01 < bounds.upper_bound(0, 298)
    assert bounds.upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert bounds.strangers_needed(0.01, 0.95) == 299
    assert bounds.strangers_needed(0.01) == 99


def test_clopper_pearson_is_where_the_binomial_tails_hold_half_the_doubt() -> None:
    low, high = bounds.clopper_pearson(3, 50)

    def tail(rate: float, counts: range) -> float:
        return sum(math.comb(50, k) * rate**k * (1 - rate) ** (50 - k) for k in counts)

    assert tail(low, range(3, 51)) == pytest.approx(0.025, abs=1e-6)
    assert tail(high, range(4)) == pytest.approx(0.025, abs=1e-6)
    assert bounds.clopper_pearson(0, 10)[0] == 0.0
    assert bounds.clopper_pearson(10, 10)[1] == 1.0


@given(st.sampled_from([0.1, 0.05, 0.01, 0.001]), st.integers(1, 3000), st.sampled_from([None, 0.95]))
def test_the_allowed_errors_are_the_most_that_keep_the_target(
    target: float, trials: int, confidence: float | None
) -> None:
    errors = bounds.allowed_errors(target, trials, confidence)

    def rate(count: int) -> float:
        return (count + 1) / (trials + 1) if confidence is None else bounds.upper_bound(count, trials, confidence)

    if errors is None:
        assert rate(0) > target - 1e-12
        assert trials < bounds.strangers_needed(target, confidence)
    else:
        assert rate(errors) <= target + 1e-9
        assert rate(errors + 1) > target
        assert trials >= bounds.strangers_needed(target, confidence)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_the_future_bound_holds_for_the_share_it_promises(seed: int) -> None:
    """200 strangers set a threshold that two pass; of 200 new ones at most `bound` pass in 95 % of draws or more."""
    generator = np.random.default_rng(seed)
    scores = generator.standard_t(3, size=(2000, 400))  # heavy tails: the bound knows no shape
    threshold = np.sort(scores[:, :200], axis=1)[:, -3]
    passed = (scores[:, 200:] > threshold[:, None]).sum(axis=1)
    assert np.mean(passed <= betabinom.ppf(0.95, 200, 3, 198)) >= 0.93  # as the module says: beta-binomial
    assert np.mean(passed) / 200 == pytest.approx(3 / 201, abs=0.002)  # the expected rate is exact


@pytest.mark.parametrize(("errors", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(errors: int, trials: int) -> None:
    with pytest.raises(ValueError, match="errors <= trials"):
        bounds.upper_bound(errors, trials)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounds.strangers_needed(1.0)


def test_when_all_pass_nothing_is_promised() -> None:
    assert bounds.upper_bound(5, 5) == 1.0
