"""How sure a name is, from its similarity and its lead over the next person: the part of a model's record that is fitted here.

Galleries are drawn from people in the wild, and from families, where the enrolled and those who search are relatives; everybody's
other photos search. The log-odds that the best candidate is right are linear in the similarity and, in two pieces, in its lead
(logistic regression, Platt 1999, with weights that are not negative: more never makes an answer less sure). Both populations weigh
the same, and so do enrolled people and strangers. How good the fit is is told by people and families whom it has not seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from facepipe.certainty import LeadCertainty
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.searching import unit
from facepipe.types import Int64

#: A lead above the last one makes an answer no surer.
LEADS = (0.15, 0.40)
#: Photos of each enrolled person.
_PHOTOS = (1, 2, 3, 5)
_GALLERIES = 100
#: "> 99 %" is said only where so many answers of people who were not fitted on had that probability, and so many of them were right.
_ANSWERS, _RIGHT = 300, 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Searches with a known outcome: similarity and lead of the best candidate, float64 (n,); whether it is right and the person is
    enrolled, bool (n,); who searched, int64 (n,)."""

    similarity: Float64
    lead: Float64
    right: NDArray[np.bool_]
    mated: NDArray[np.bool_]
    who: Int64

    def weights(self) -> Float64:
        """Return weights by which each person counts once, and enrolled people as much as strangers; their sum is 1."""
        _, place, counts = np.unique(2 * self.who + self.mated, return_inverse=True, return_counts=True)
        each = 1.0 / counts[place]
        for side in (self.mated, ~self.mated):
            each[side] *= 0.5 / max(each[side].sum(), 1e-9)
        return np.asarray(each, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Photos of people who resemble each other as people of one place do: vectors float64 (n, d), unit; owner int64 (n,), whose;
    family int64 (n,), of which family, or the owner again."""

    name: str
    vectors: Float64
    owner: Int64
    family: Int64

    def half(self, first: bool) -> People:
        """Return one half of the families."""
        families = np.random.default_rng(0).permutation(np.unique(self.family))
        kept = np.isin(self.family, families[: len(families) // 2] if first else families[len(families) // 2 :])
        return People(self.name, self.vectors[kept], self.owner[kept], self.family[kept])


def search(people: People, strangers: Float64, seed: int) -> Answers:
    """Draw galleries and search them. strangers: float64 (m, d), of people who may be enrolled with their only photo."""
    parts = [np.column_stack(one) for one in _galleries(people, strangers, np.random.default_rng(seed))]
    similarity, lead, right, mated, who = np.concatenate(parts).T
    return Answers(similarity, lead, right > 0, mated > 0, who.astype(np.int64))


def _galleries(people: People, strangers: Float64, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    everybody = np.unique(people.owner)
    for number in range(_GALLERIES):
        enrolled = _enrolled(people, everybody, number, rng)
        most, rows, used = int(rng.choice(_PHOTOS)), [], np.zeros(len(people.owner), np.bool_)
        for person in enrolled:
            own = rng.permutation(np.flatnonzero(people.owner == person))
            rows.append(own[: max(1, min(most, len(own) - 1))])
            used[rows[-1]] = True
        templates = unit(np.stack([people.vectors[own].mean(axis=0) for own in rows]))
        others = strangers[rng.permutation(len(strangers))[: int(rng.integers(0, len(strangers) + 1)) * (number % 2)]]
        probes = np.flatnonzero(~used)
        scores = people.vectors[probes] @ np.concatenate([templates, others]).T
        best = scores.argmax(axis=1)
        top = np.sort(np.concatenate([scores, np.zeros((len(probes), 1))], axis=1), axis=1)[:, -2:]
        owner = people.owner[probes]
        right = np.append(enrolled, np.full(len(others), -1))[best] == owner
        yield top[:, 1], top[:, 1] - top[:, 0], right, np.isin(owner, enrolled), owner


def _enrolled(people: People, everybody: Int64, number: int, rng: np.random.Generator) -> Int64:
    """Return who is enrolled in a gallery: half of each family in every third, else a number of people between 3 and all but 5."""
    if number % 3 == 0 and len(np.unique(people.family)) < len(everybody):
        chosen = []
        for family in np.unique(people.family):
            members = rng.permutation(np.unique(people.owner[people.family == family]))
            chosen += members[: max(1, len(members) // 2)].tolist()
        return np.asarray(chosen, np.int64)
    count = round(np.exp(rng.uniform(np.log(3), np.log(len(everybody) - 5))))
    return np.asarray(rng.choice(everybody, count, replace=False), np.int64)


def fit(sets: Sequence[Answers]) -> LeadCertainty:
    """Fit the certainty; each set weighs the same."""
    x = np.concatenate([_features(answers) for answers in sets])
    right = np.concatenate([answers.right for answers in sets])
    weight = np.concatenate([answers.weights() for answers in sets]) / len(sets)
    middle = x.mean(axis=0)

    def loss(values: Float64) -> tuple[float, Float64]:
        z = (x - middle) @ values[:-1] + values[-1]
        error = 1.0 / (1.0 + np.exp(-z)) - right
        total = weight @ np.where(right, np.logaddexp(0.0, -z), np.logaddexp(0.0, z))
        return float(total), np.append((weight * error) @ (x - middle), weight @ error)

    count = x.shape[1]
    found = minimize(loss, np.zeros(count + 1), jac=True, bounds=[(0.0, None)] * count + [(None, None)]).x
    return LeadCertainty(
        similarity=float(found[0]),
        leads=tuple(zip(LEADS, map(float, found[1:-1]), strict=True)),
        intercept=float(found[-1] - middle @ found[:-1]),
        most=1.0,
    )


def _features(answers: Answers) -> Float64:
    starts = (0.0, *LEADS[:-1])
    pieces = [np.clip(answers.lead - low, 0.0, high - low) for low, high in zip(starts, LEADS, strict=True)]
    return np.column_stack([answers.similarity, *pieces])


def certainty_figures(populations: Sequence[tuple[People, Float64]]) -> tuple[LeadCertainty, dict[str, Any]]:
    """Fit on everybody, and report how answers about people and families whom a fit has not seen turn out.

    populations: people, and strangers who may be enrolled beside them.
    """
    found: dict[str, list[tuple[Float64, NDArray[np.bool_]]]] = {people.name: [] for people, _ in populations}
    for first in (True, False):
        fitted = fit([search(people.half(first), strangers[::2], 1) for people, strangers in populations])
        for people, strangers in populations:
            answers = search(people.half(not first), strangers[1::2], 2)
            weights = [fitted.similarity, *(weight for _, weight in fitted.leads)]
            found[people.name].append((fitted.intercept + _features(answers) @ weights, answers.right))
    odds = {name: [np.concatenate(column) for column in zip(*parts, strict=True)] for name, parts in found.items()}
    final = fit([search(people, strangers, 3) for people, strangers in populations])
    # No share of a finite sample is certainty: one more wrong person is assumed (Laplace).
    everybody = sum(len(np.unique(people.owner)) for people, _ in populations)
    for shrink in np.arange(1.0, 0.7, -0.02):
        figures = {name: _reliability(1.0 / (1.0 + np.exp(-shrink * z)), right) for name, (z, right) in odds.items()}
        if all(part[-1]["answers"] >= _ANSWERS and part[-1]["right"] >= _RIGHT for part in figures.values()):
            return _shrunk(final, float(shrink), 1.0 - 1.0 / (everybody + 2.0)), figures
    return _shrunk(final, 1.0, _RIGHT), figures


def _shrunk(certainty: LeadCertainty, by: float, most: float) -> LeadCertainty:
    """Return a certainty whose log-odds are multiplied: no sharper than people who were not fitted on bear out."""
    leads = tuple((end, by * weight) for end, weight in certainty.leads)
    return LeadCertainty(by * certainty.similarity, leads, by * certainty.intercept, most)


def _reliability(said: Float64, right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Return for ranges of what was said how many answers there were and which share was right."""
    edges = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = (said > low) & (said <= high)
        if inside.any():
            rows.append(
                {
                    "above": low,
                    "answers": int(inside.sum()),
                    "said": float(said[inside].mean()),
                    "right": float(right[inside].mean()),
                }
            )
    return rows
