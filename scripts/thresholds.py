"""The measured part of a model's record: thresholds for gallery sizes from 1 (verification) to a million, and the model card.

Thresholds and probabilities come from people in the wild and from official portraits, each compared within itself and
weighing the same: faces that resemble each other as people of one place do are the hard case. LFW, relatives and
synthetic portraits are only reported; nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facepipe.certainty import ProbabilityCurve
from facepipe.evaluate.identify_report import IdentificationReport
from facepipe.evaluate.labelled import PeopleFaces
from facepipe.evaluate.metrics import Float64, fnir, supported
from facepipe.evaluate.probability import NamedSearches, fit_curve
from facepipe.evaluate.searching import fuse, person_scores, unit
from facepipe.evaluate.verify import VerificationReport, rate_key
from facepipe.types import Int64
from scripts.impostors import ImpostorModel, Population, bootstrap_models

SIZES = (1, 3, 10, 30, 50, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
TARGETS = (0.1, 0.01, 0.001)
_QUANTILES = 200
_REPLICATES = 200


@dataclass(frozen=True, slots=True, eq=False)
class Mated:
    """Searches by enrolled people with their own template only: score float64 (n,), unit int64 (n,), whose."""

    score: Float64
    unit: Int64


def people_population(name: str, faces: PeopleFaces, enrolled: Int64, probes: Int64) -> tuple[Population, Mated]:
    """Compare probe photos with the templates of everybody else in the set; enrolled, probes: rows of `faces`."""
    enrolled, probes = enrolled[faces.photos.found[enrolled]], probes[faces.photos.found[probes]]
    vectors, owner = faces.photos.vectors, faces.owner
    scores = person_scores(vectors[probes], vectors[enrolled], owner[enrolled], len(faces.people), "mean")
    at = np.arange(len(probes))
    own = scores[at, owner[probes]].copy()
    scores[at, owner[probes]] = -np.inf
    there = np.isfinite(own)
    return Population(name, scores, owner[probes]), Mated(own[there], owner[probes][there])


def single_population(name: str, faces: PeopleFaces) -> Population:
    """Compare people who have one photo each with each other."""
    vectors = unit(faces.photos.vectors[faces.photos.found].astype(np.float64))
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return Population(name, scores, faces.owner[faces.photos.found])


def size_statistics(
    populations: Sequence[Population], mated: Mated, known_share: float = 0.5, replicates: int = _REPLICATES
) -> tuple[list[dict[str, Any]], ImpostorModel]:
    """Return for each gallery size thresholds, bounds, what was measured, and the probability curve; and the model."""
    model = ImpostorModel(populations)
    doubt = bootstrap_models(populations, replicates)
    people = sum(population.people for population in populations)
    rows = []
    lowest = dict.fromkeys(TARGETS, -1.0)
    for size in SIZES:
        thresholds: dict[str, float] = {}
        bounds: dict[str, float] = {}
        measured: dict[str, bool] = {}
        for target in TARGETS:
            direct = model.measured(size) and supported(target, people)
            found = model.threshold(size, target) if direct else _extrapolated_threshold(doubt, size, target)
            lowest[target] = max(lowest[target], found, *(lowest[t] for t in TARGETS if t > target))
            key = rate_key(target)
            thresholds[key], measured[key] = lowest[target], direct
            rates = [
                one.fpir(size, lowest[target]) if direct else one.extrapolated(size, lowest[target]) for one in doubt
            ]
            bounds[key] = _rounded_up(float(np.quantile(rates, 0.95)))
        curve = size_curve(model, size, mated, known_share)
        rows.append(
            {
                "gallery_size": size,
                "thresholds": thresholds,
                "fpir_bounds_95": bounds,
                "measured": measured,
                "curve": {"similarity": list(curve.similarity), "probability": list(curve.probability)},
            }
        )
    return rows, model


def _rounded_up(value: float) -> float:
    return float(np.ceil(value * 1e5) / 1e5)


def _extrapolated_threshold(doubt: Sequence[ImpostorModel], size: int, target: float) -> float:
    """Return the lowest threshold whose FPIR, expected over the doubt about the tail, stays within the target.

    The plain fit would be right in half of the cases; far beyond the data the tail's doubt is most of the risk.
    """
    low, high = 0, 10_000  # steps of 1e-4
    while low < high:
        middle = (low + high) // 2
        if float(np.mean([one.extrapolated(size, middle / 1e4) for one in doubt])) <= target:
            high = middle
        else:
            low = middle + 1
    return low / 1e4


def size_curve(model: ImpostorModel, size: int, mated: Mated, known_share: float) -> ProbabilityCurve:
    """Return the probability curve for a gallery size.

    The best impostor's score at this size is drawn at even quantiles from the impostor model, each enrolled person's own
    score is measured; whichever is higher comes first.
    """
    grid = np.round(np.arange(-0.2, 1.0001, 0.01), 2)
    passed = np.maximum.accumulate([model.fpir(size, float(t)) for t in grid][::-1])[::-1]
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    # passed falls with the score: turn it round for interpolation.
    best = np.interp(levels, passed[::-1], grid[::-1])
    own = np.repeat(mated.score, _QUANTILES)
    rival = np.tile(best, len(mated.score))
    start = int(mated.unit.max()) + 1
    return fit_curve(
        NamedSearches(
            np.concatenate([np.maximum(own, rival), best]),
            np.concatenate([own > rival, np.zeros(_QUANTILES, np.bool_)]),
            np.concatenate([np.repeat(mated.unit, _QUANTILES), start + np.arange(_QUANTILES)]),
            np.concatenate([np.ones(len(own), np.bool_), np.zeros(_QUANTILES, np.bool_)]),
        ),
        known_share,
    )[0]


def open_set_check(
    faces: PeopleFaces, rows: Sequence[Mapping[str, Any]], draws: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """Report the FPIR that the recorded thresholds have on another set: galleries drawn from it, all others search.

    The first usable photo of each person is enrolled or searches. Reporting only.
    """
    found = np.flatnonzero(faces.photos.found)
    _, first = np.unique(faces.owner[found], return_index=True)
    vectors = faces.photos.vectors[found[first]]
    generator = np.random.default_rng(seed)
    report = []
    for row in rows:
        size = row["gallery_size"]
        if 2 * size > len(vectors):
            continue
        rates: dict[str, list[float]] = {key: [] for key in row["thresholds"]}
        for _ in range(draws):
            order = generator.permutation(len(vectors))
            templates = fuse(vectors[order[:size]], np.arange(size), size).astype(np.float32)
            top = (vectors[order[size:]] @ templates.T).max(axis=1)
            for key, threshold in row["thresholds"].items():
                rates[key].append(float(np.mean(top >= threshold)))
        report.append({"gallery_size": size, "fpir": {key: float(np.mean(values)) for key, values in rates.items()}})
    return report


def verification_figures(report: VerificationReport) -> dict[str, Any]:
    """Return the part of a verification report that the card keeps."""
    values = report.as_dict()
    kept = (
        "pairs", "photos", "failed_to_enrol", "failed_pairs", "accuracy", "accuracy_sd", "auc", "eer", "tar_at_far",
        "threshold_at_far", "more_impostor_pairs_needed", "intervals_95",
    )  # fmt: skip
    return {key: values[key] for key in kept}


def at_threshold(report: IdentificationReport, threshold: float, margin: float) -> dict[str, float]:
    """Return FNIR and FPIR at a given threshold and margin: what the shipped decision does on these people."""
    return {
        "threshold": threshold,
        "fnir": fnir(report.searches.hits(margin), threshold),
        "fpir": float(np.mean(report.searches.strangers(margin) >= threshold)),
    }


def identification_figures(report: IdentificationReport) -> dict[str, Any]:
    """Return the part of an identification report that the card keeps."""
    values = report.as_dict()
    kept = (
        "people", "enrolled", "strangers", "repeats", "mated_searches", "non_mated_searches", "failed_to_enrol", "rank1",
        "fnir_at_fpir", "threshold_at_fpir", "more_strangers_needed", "intervals_95", "by_source", "relatives", "fusions",
        "gallery_sizes", "groups",
    )  # fmt: skip
    return {key: values[key] for key in kept}
