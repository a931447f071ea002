"""What a count of errors says about the true rate: exact bounds that assume no shape of the score distribution.

The threshold chosen here lies just above the k-th largest of n strangers' scores, so k - 1 of them pass. The true rate
at such a threshold is Beta(k, n - k + 1) distributed whatever the scores look like (order statistics of a uniform
sample; David and Nagaraja, "Order Statistics"); its mean is k / (n + 1), and its upper quantile is the Clopper-Pearson
bound for k - 1 errors in n trials. How many of m further strangers pass is then beta-binomial.
"""

from __future__ import annotations

import bisect
import math


def clopper_pearson(errors: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a rate (Clopper and Pearson 1934).

    errors may be fractional (people whose photos pass in part). ValueError unless 0 <= errors <= trials, trials > 0.
    """
    _check(errors, trials, confidence)
    from scipy.stats import beta

    tail = (1.0 - confidence) / 2.0
    low = 0.0 if errors <= 0.0 else float(beta.ppf(tail, errors, trials - errors + 1.0))
    high = 1.0 if errors >= trials else float(beta.ppf(1.0 - tail, errors + 1.0, trials - errors))
    return low, high


def upper_bound(errors: float, trials: float, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a rate: the true one is below it with this confidence."""
    _check(errors, trials, confidence)
    from scipy.stats import beta

    return 1.0 if errors >= trials else float(beta.ppf(confidence, errors + 1.0, trials - errors))


def allowed_errors(target: float, trials: int, confidence: float | None = None) -> int | None:
    """Return how many of `trials` strangers may pass, or None when the target asks for more strangers.

    Without confidence the *expected* rate (errors + 1) / (trials + 1) stays within the target; with it the upper bound.
    """
    if confidence is None:
        errors = math.floor(target * (trials + 1) + 1e-9) - 1
        return min(errors, trials) if errors >= 0 else None
    if trials < 1 or upper_bound(0, trials, confidence) > target:
        return None
    # upper_bound rises with errors: the last one within the target.
    return (
        bisect.bisect_right(range(trials + 1), target, key=lambda errors: upper_bound(errors, trials, confidence)) - 1
    )


def strangers_needed(target: float, confidence: float | None = None) -> int:
    """Return the smallest number of strangers with which a target can be set (`allowed_errors` is not None)."""
    if not 0.0 < target < 1.0:
        raise ValueError(f"target: expected between 0 and 1, got {target}")
    if confidence is None:
        return math.ceil(1.0 / target - 1e-9) - 1
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-target) - 1e-9)


def _check(errors: float, trials: float, confidence: float) -> None:
    if trials <= 0 or not 0 <= errors <= trials:
        raise ValueError(f"expected 0 <= errors <= trials and at least one trial, got {errors} of {trials}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected between 0 and 1, got {confidence}")
