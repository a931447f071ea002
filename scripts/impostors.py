"""The impostor statistics that a model's record ships: how similar strangers get as a gallery grows.

A search of a gallery of N people by a stranger returns a name when the largest of N impostor scores reaches the
threshold. Two estimates:

*Measured.* Of the M other people whom a probe was compared with, c reach the threshold. Over all galleries of N that can
be drawn from those M, the share that returns a name is 1 - C(M - c, N) / C(M, N), exactly; no comparison is assumed
independent of another. FPIR is the mean over people. Needs N <= M.

*Extrapolated.* Beyond M: FPIR = 1 - (1 - FMR)^N, with the FMR of a comparison from a generalised Pareto tail fitted to the
scores above a high quantile (peaks over threshold; Pickands 1975, Coles 2001). The formula takes the N comparisons of a
search as independent; they are not (some faces resemble many), and by Jensen's inequality the true FPIR is then lower, so
the threshold errs to the safe side. The tail itself is a fit: such figures are labelled, and stand with a bootstrap bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facepipe.evaluate.metrics import Float64

#: Share of comparisons above which the tail is fitted.
_TAIL = 0.01
_STEP = 1e-4
_FEWEST = 10


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """People who resemble each other as people of one place do, compared with each other and not with themselves.

    scores: float64 (probes, people), the score of each probe with each person's template; -inf where the two are the same
    person, related, or could not be compared. unit: int64 (probes,), whose probe it is.
    """

    name: str
    scores: Float64
    unit: NDArray[np.int64]

    @property
    def people(self) -> int:
        """Number of people who search."""
        return len(np.unique(self.unit))

    @property
    def largest(self) -> int:
        """The largest gallery that every probe can be measured with."""
        return int(np.isfinite(self.scores).sum(axis=1).min())


@dataclass(frozen=True, slots=True)
class Tail:
    """The share of comparisons above t: `share` at `start`, from there a generalised Pareto tail."""

    start: float
    share: float
    shape: float
    scale: float

    def fmr(self, threshold: Float64) -> Float64:
        """Return the false match rate at thresholds at or above `start`."""
        over = np.maximum(threshold - self.start, 0.0) / self.scale
        if abs(self.shape) < 1e-6:
            return np.asarray(self.share * np.exp(-over), dtype=np.float64)
        inside = np.maximum(1.0 + self.shape * over, 0.0)
        return np.asarray(self.share * np.power(inside, -1.0 / self.shape), dtype=np.float64)


class ImpostorModel:
    """FPIR as a function of gallery size and threshold, from populations that weigh equally.

    Within a population each person weighs the same, however many probes there are. weights: for each population a count
    for each person (a bootstrap draw), all 1 when None.
    """

    def __init__(self, populations: Sequence[Population], weights: Sequence[Float64] | None = None) -> None:
        self.populations = tuple(populations)
        self._weights = []
        for number, population in enumerate(populations):
            people, inverse, counts = np.unique(population.unit, return_inverse=True, return_counts=True)
            drawn = np.ones(len(people)) if weights is None else weights[number]
            each = drawn[inverse] / counts[inverse]
            self._weights.append(each / each.sum() / len(populations))
        self.tail = self._fit()

    def measured(self, size: int) -> bool:
        """Tell whether galleries of this size were measured in every population."""
        return all(size <= population.largest for population in self.populations)

    def fpir(self, size: int, threshold: float) -> float:
        """Return FPIR at a gallery size: measured where it can be, else extrapolated (see the module's text)."""
        if not self.measured(size):
            return self.extrapolated(size, threshold)
        total = 0.0
        for population, weights in zip(self.populations, self._weights, strict=True):
            others = np.isfinite(population.scores).sum(axis=1)
            above = (population.scores >= threshold).sum(axis=1)
            total += float(np.sum(weights * (1.0 - _none_drawn(others, above, size))))
        return total

    def extrapolated(self, size: int, threshold: float) -> float:
        """Return 1 - (1 - FMR)^size with the fitted tail; below the tail's start the measured FMR."""
        fmr = self.fmr(threshold)
        return float(-np.expm1(size * np.log1p(-min(fmr, 1.0 - 1e-12))))

    def fmr(self, threshold: float) -> float:
        """Return the false match rate of one comparison."""
        if threshold >= self.tail.start:
            return float(self.tail.fmr(np.asarray(threshold)))
        total = 0.0
        for population, weights in zip(self.populations, self._weights, strict=True):
            others = np.isfinite(population.scores).sum(axis=1)
            above = (population.scores >= threshold).sum(axis=1)
            total += float(np.sum(weights * above / others))
        return total

    def threshold(self, size: int, target: float) -> float:
        """Return the lowest threshold, to four decimals, whose FPIR at this size is at most the target."""
        low, high = 0, round(1.0 / _STEP)  # FPIR falls as the threshold rises: bisect over steps of 1e-4
        while low < high:
            middle = (low + high) // 2
            if self.fpir(size, middle * _STEP) <= target:
                high = middle
            else:
                low = middle + 1
        return round(low * _STEP, 4)

    def _fit(self) -> Tail:
        """Fit the tail by weighted maximum likelihood."""
        scores, weights = [], []
        for population, each in zip(self.populations, self._weights, strict=True):
            finite = np.isfinite(population.scores)
            scores.append(population.scores[finite])
            weights.append(np.broadcast_to((each / finite.sum(axis=1))[:, None], finite.shape)[finite])
        value, weight = np.concatenate(scores), np.concatenate(weights)
        order = np.argsort(-value)
        value, weight = value[order], weight[order]
        passed = np.cumsum(weight)
        cut = int(np.searchsorted(passed, _TAIL))
        start, share = float(value[cut]), float(passed[cut])
        excess, above = value[:cut] - start, weight[:cut]
        if int((above > 0.0).sum()) < _FEWEST:  # too few for two parameters: exponential, with their mean
            mean = float(np.average(excess, weights=above)) if above.sum() else 0.0
            return Tail(start, share, 0.0, max(mean, _STEP))
        shape, scale = _pareto(excess, above)
        return Tail(start, share, shape, scale)


def _none_drawn(others: NDArray[np.int64], above: NDArray[np.int64], size: int) -> Float64:
    """Return C(others - above, size) / C(others, size): the chance that a drawn gallery holds none of those above."""
    from scipy.special import gammaln

    rest = others - above
    possible = rest >= size
    safe = np.where(possible, rest, size)
    log = gammaln(safe + 1.0) - gammaln(safe - size + 1.0) - gammaln(others + 1.0) + gammaln(others - size + 1.0)
    return np.where(possible, np.exp(log), 0.0)


def _pareto(excess: Float64, weight: Float64) -> tuple[float, float]:
    """Return shape and scale of a generalised Pareto distribution of excesses >= 0, by weighted maximum likelihood."""
    from scipy.optimize import minimize

    mean = float(np.average(excess, weights=weight))

    def cost(parameters: Float64) -> float:
        shape, scale = float(parameters[0]), float(np.exp(parameters[1]))
        inside = 1.0 + shape * excess / scale
        if (inside <= 0.0).any():
            return 1e9
        term = excess / scale if abs(shape) < 1e-6 else (1.0 + 1.0 / shape) * np.log(inside)
        return float(np.sum(weight * (np.log(scale) + term)) / weight.sum())

    best = minimize(cost, np.asarray([-0.1, np.log(mean)]), method="Nelder-Mead", options={"xatol": 1e-5})
    return float(best.x[0]), float(np.exp(best.x[1]))


def bootstrap_models(populations: Sequence[Population], replicates: int, seed: int = 0) -> list[ImpostorModel]:
    """Return models of populations whose people were drawn anew: the doubt about every figure of the model."""
    generator = np.random.default_rng(seed)
    models = []
    for _ in range(replicates):
        draws = []
        for population in populations:
            count = population.people
            draws.append(generator.multinomial(count, np.full(count, 1.0 / count)).astype(np.float64))
        models.append(ImpostorModel(populations, draws))
    return models
