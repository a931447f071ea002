"""Adapting the network to one's own people: what was gained on their other photos, and what strangers pay for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facepipe.errors import UsageError
from facepipe.evaluation import metrics
from facepipe.evaluation.bounds import clopper_pearson
from facepipe.types import Embedder, Float32, Int64, UInt8
from scripts.train.augment import middle
from scripts.train.shards import CropSet

_FPIR = 0.01


def chips_of(crops: CropSet) -> UInt8:
    """Return the chips of all crops."""
    return np.stack([middle(crops.read(i)) for i in range(len(crops))])


def figures(
    own: Float32, people: Int64, unseen: np.ndarray, others: Float32, other_people: Int64, threshold: float
) -> dict[str, float]:
    """Measure one network. Vectors are unit, (n, d); people: int64 (n,), -1 for crops without a name.

    own: the people adapted to; each is enrolled with the mean of their seen crops and searched for with the unseen ones. others:
    strangers, who search as well (`fpir`, at the threshold and where it is 1 %) and are compared with one another (`far`).
    """
    names = np.unique(people[(people >= 0) & ~unseen])
    templates = np.stack([own[(people == name) & ~unseen].mean(axis=0) for name in names])
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    probes = unseen & np.isin(people, names)
    if not probes.any():
        raise UsageError("adapt: no photo of these people was held out; give at least two photos of each person")
    scores = own[probes] @ templates.T
    right = names[scores.argmax(axis=1)] == people[probes]
    mated = np.where(right, scores.max(axis=1), -np.inf)
    searches = (others @ templates.T).max(axis=1)
    a, b = np.triu_indices(len(others), 1)
    same = (other_people[a] == other_people[b]) & (other_people[a] >= 0)
    cosines = np.einsum("nd,nd->n", others[a], others[b])
    found = {
        "probes": float(probes.sum()),
        "rank1": float(right.mean()),
        "found_at_threshold": float((mated >= threshold).mean()),
        "found_at_fpir_1%": float((mated >= metrics.threshold_at(searches, _FPIR)).mean()),
        "fpir_at_threshold": float((searches >= threshold).mean()),
        "far_of_strangers_at_threshold": float((cosines[~same] >= threshold).mean()),
    }
    if same.any():
        far = max(1e-3, 1.0 / int((~same).sum()))
        found["tar_of_strangers_at_far_1e-3"] = metrics.tar_at_far(cosines[same], cosines[~same], far)
    return found


def gain(
    before: Embedder, after: Embedder, threshold: float, crops: CropSet, unseen: np.ndarray, strangers: CropSet
) -> dict[str, Any]:
    """Measure both networks on held-out photos of the people and on strangers, and say in `warnings` what became worse."""
    own, others = chips_of(crops), chips_of(strangers)
    people, other_people = crops.identities()[0], strangers.identities()[0]
    result: dict[str, Any] = {"threshold": threshold, "strangers": len(others)}
    for label, embedder in (("before", before), ("after", after)):
        result[label] = figures(
            embedder.embed(own).vectors, people, unseen, embedder.embed(others).vectors, other_people, threshold
        )
    result["warnings"] = warnings(result["before"], result["after"], len(others))
    return result


def warnings(before: Mapping[str, float], after: Mapping[str, float], strangers: int) -> list[str]:
    """Return a line for each way in which strangers fare worse, and one when the people themselves gained nothing."""
    lines = []
    old, new = before["fpir_at_threshold"], after["fpir_at_threshold"]
    low, _ = clopper_pearson(round(new * strangers), strangers)
    if new > old:
        sure = "chance does not explain it" if low > old else "few strangers: chance could explain it"
        lines.append(
            f"strangers are named more often: {100 * new:.1f} % instead of {100 * old:.1f} % at the threshold; {sure}"
        )
    old, new = before["far_of_strangers_at_threshold"], after["far_of_strangers_at_threshold"]
    if new > 1.2 * old and new > 0:
        lines.append(f"strangers look more alike: {100 * new:.2f} % of their pairs pass instead of {100 * old:.2f} %")
    key = "tar_of_strangers_at_far_1e-3"
    if key in before and after[key] < before[key] - 0.01:
        lines.append(
            f"other people are told apart worse: TAR at FAR 1e-3 {100 * after[key]:.1f} % instead of {100 * before[key]:.1f} %"
        )
    if after["found_at_fpir_1%"] <= before["found_at_fpir_1%"]:
        lines.append("the people themselves are found no better than before; keep the old network")
    return lines
