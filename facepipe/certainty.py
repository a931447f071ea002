"""How sure an answer is: probabilities as functions of the similarity, and of the lead over the next person."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ProbabilityCurve:
    """Probability that the best candidate is right as a function of its similarity: a monotone, piecewise linear curve.

    similarity: rising. probability: not falling, each 0..1. Outside the knots the end values hold.
    """

    similarity: tuple[float, ...]
    probability: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.similarity) != len(self.probability) or not self.similarity:
            raise ValueError("ProbabilityCurve: expected as many probabilities as similarities, at least one")
        if any(a > b for a, b in zip(self.similarity, self.similarity[1:], strict=False)):
            raise ValueError("ProbabilityCurve.similarity: expected rising values")
        if any(a > b for a, b in zip(self.probability, self.probability[1:], strict=False)):
            raise ValueError("ProbabilityCurve.probability: expected values that do not fall")
        if self.probability[0] < 0.0 or self.probability[-1] > 1.0:
            raise ValueError("ProbabilityCurve.probability: expected values in 0..1")

    def __call__(self, similarity: float) -> float:
        """Return the probability at this similarity."""
        return float(np.interp(similarity, self.similarity, self.probability))


@dataclass(frozen=True, slots=True)
class LeadCertainty:
    """Probability that the best candidate is right, from its similarity and its lead over the next person (both cosines).

    Log-odds: intercept + similarity times its weight + the lead, in pieces: (up to which lead, weight of what lies in the piece);
    weights are not negative. most: 0..1, the greatest probability that is ever given.
    """

    similarity: float
    leads: tuple[tuple[float, float], ...]
    intercept: float
    most: float

    def __post_init__(self) -> None:
        ends = [0.0, *(end for end, _ in self.leads)]
        if any(a >= b for a, b in itertools.pairwise(ends)):
            raise ValueError("LeadCertainty.leads: expected rising leads above 0")
        if min(self.similarity, *(weight for _, weight in self.leads)) < 0.0 or not 0.0 <= self.most <= 1.0:
            raise ValueError("LeadCertainty: expected weights that are not negative, and most in 0..1")

    def __call__(self, similarity: float, lead: float) -> float:
        """Return the probability."""
        odds, start = self.intercept + self.similarity * similarity, 0.0
        for end, weight in self.leads:
            odds += weight * min(max(lead - start, 0.0), end - start)
            start = end
        return min(self.most, 1.0 / (1.0 + math.exp(-odds)))
