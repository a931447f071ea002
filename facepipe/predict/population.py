"""What a gallery's own photos say about its people, and what a name needs there.

Thresholds and curves of a model's record come from other people. Where the enrolled look alike to the network (a family, people of
one region), they promise too much. Each enrolled photo, left out of its person's template and searched among all, shows how often
that happens here. What the record says counts as so many photos of its own (a beta prior); the more photos the gallery has, the
further it moves. Threshold and margin only rise, probabilities only fall.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from facepipe.errors import UsageError
from facepipe.models.registry import ModelRecord
from facepipe.predict.policy import policy_for
from facepipe.types import Float32, Int64, Policy

NO_FIGURES = "no error rates are recorded for an embedder of your own; give a threshold"
#: Fewer people with several photos say nothing.
_FEWEST = 3
#: Photos of each person, and of all, that are tried.
_EACH, _MOST = 5, 1000
#: Of the names that are given at a margin, the share that may be wrong; the share that the record's people had, and how many answers
#: of the gallery's own that counts as.
_WRONG, _RECORD_WRONG, _RECORD_ANSWERS = 0.01, 0.002, 50
#: Share of the enrolled who may get another's name if they were not enrolled themselves; what the record promises for strangers; what
#: that counts as.
_STRANGERS, _RECORD_STRANGERS, _RECORD_SEARCHES = 0.05, 0.01, 100
_STEP = 0.01
_GREATEST_MARGIN, _GREATEST_THRESHOLD, _GREATEST_SHIFT = 0.25, 0.75, 20.0


@dataclass(frozen=True, slots=True, eq=False)
class OwnTrials:
    """Photos of enrolled people, searched without themselves.

    own: float32 (n,), cosine with the template of their person's other photos. first, second: float32 (n,), with the two most similar
    other people. who, rival: int64 (n,), the person and the most similar other one.
    """

    own: Float32
    first: Float32
    second: Float32
    who: Int64
    rival: Int64

    def __post_init__(self) -> None:
        cosines = (self.own, self.first, self.second)
        if len({len(array) for array in (*cosines, self.who, self.rival)}) != 1 or len(self.own) > _MOST:
            raise ValueError(f"OwnTrials: expected as many of each, and {_MOST} at most")
        if any(array.ndim != 1 or not (np.abs(array) <= 1.001).all() for array in cosines):
            raise ValueError("OwnTrials: expected cosines")

    def __len__(self) -> int:
        return len(self.own)

    @property
    def lead(self) -> Float32:
        """By how much the best person leads the next."""
        best = np.maximum(self.own, self.first)
        return np.asarray(best - np.maximum(np.minimum(self.own, self.first), np.maximum(self.second, 0.0)), np.float32)


def own_trials(vectors: Float32, owners: Int64, templates: Float32) -> OwnTrials | None:
    """Search with up to a thousand enrolled photos; None where fewer than three people have several.

    vectors: float32 (n, d), unit. owners: int64 (n,), rising rows of templates, float32 (p, d), unit.
    """
    counts = np.bincount(owners, minlength=len(templates))
    if (counts > 1).sum() < _FEWEST:
        return None
    starts = np.cumsum(counts) - counts
    # Of each person photos that are spread evenly; of many people some, the same at each time.
    places = [start + np.arange(n)[:: max(1, -(-n // _EACH))] for start, n in zip(starts, counts, strict=True) if n > 1]
    rows = np.random.default_rng(0).permutation(np.concatenate(places))[:_MOST]
    who = owners[rows]
    sums = np.stack([vectors[starts[person] : starts[person] + counts[person]].sum(axis=0) for person in who])
    others = sums - vectors[rows]
    own = (others * vectors[rows]).sum(axis=1) / np.maximum(np.linalg.norm(others, axis=1), 1e-6)
    scores = vectors[rows] @ templates.T
    scores[np.arange(len(rows)), who] = -1.0
    rival = scores.argmax(axis=1)
    top = np.partition(scores, -2, axis=1)[:, -2:]
    return OwnTrials(own.astype(np.float32), top[:, 1], top[:, 0], who.astype(np.int64), rival.astype(np.int64))


def policy_of(
    record: ModelRecord | None,
    people: int,
    calibration: Mapping[str, Any] | None,
    trials: Callable[[], OwnTrials | None],
    threshold: float | None,
    margin: float | None,
    *,
    exclusive: bool = True,
    top_k: int = 3,
) -> Policy:
    """Return how step 4 decides in a gallery: by its calibration, else by the model's record and what its own people need.

    trials: searches the gallery with its own photos. Errors: UsageError without a record and a threshold; see `policy_for`.
    """
    if record is None:
        if threshold is None:
            raise UsageError(NO_FIGURES)
        return Policy(threshold, margin or 0.0, exclusive, top_k)
    limits = {"threshold": threshold, "margin": margin}
    policy = policy_for(record, people, calibration, **limits, exclusive=exclusive, top_k=top_k)
    own = None if calibration is not None else trials()
    return policy if own is None else adapt(policy, own, threshold=threshold is None, margin=margin is None)


def adapt(policy: Policy, trials: OwnTrials, *, threshold: bool = True, margin: bool = True) -> Policy:
    """Return the policy for the people who were tried. threshold, margin: whether these may rise."""
    if margin:
        policy = replace(policy, margin=_margin(policy, trials))
    if threshold:
        policy = replace(policy, threshold=_threshold(policy, trials))
    if policy.certainty is not None:
        policy = replace(
            policy, certainty=replace(policy.certainty, intercept=policy.certainty.intercept + _shift(policy, trials))
        )
    return policy


def alike(policy: Policy, trials: OwnTrials) -> list[tuple[int, int]]:
    """Return pairs of people whose photos do not lead by the margin that the gallery needs, closest first."""
    gap = trials.own - trials.first
    close = (np.maximum(trials.own, trials.first) >= policy.threshold) & (gap < policy.margin)
    pairs = ((int(trials.who[row]), int(trials.rival[row])) for row in np.flatnonzero(close)[np.argsort(gap[close])])
    return list(dict.fromkeys((min(pair), max(pair)) for pair in pairs))


def _margin(policy: Policy, trials: OwnTrials) -> float:
    """Return the least margin at which few enough of the names would be wrong."""
    named = np.maximum(trials.own, trials.first) >= policy.threshold
    for margin in np.arange(policy.margin, _GREATEST_MARGIN, _STEP):
        given = named & (trials.lead >= margin)
        wrong = int((given & (trials.first > trials.own)).sum())
        if (_RECORD_ANSWERS * _RECORD_WRONG + wrong) / (_RECORD_ANSWERS + int(given.sum())) <= _WRONG:
            return float(round(margin, 4))
    return max(policy.margin, _GREATEST_MARGIN)


def _threshold(policy: Policy, trials: OwnTrials) -> float:
    """Return the threshold, moved towards that at which few enough would get another's name if they were not enrolled."""
    count = len(trials)
    for wanted in np.arange(policy.threshold, max(policy.threshold, _GREATEST_THRESHOLD) + _STEP, _STEP):
        passed = int((trials.first >= wanted).sum())
        if (_RECORD_SEARCHES * _RECORD_STRANGERS + passed) / (_RECORD_SEARCHES + count) <= _STRANGERS:
            break
    share = count / (_RECORD_SEARCHES + count)
    return float(round(policy.threshold + share * (float(wanted) - policy.threshold), 4))


def _shift(policy: Policy, trials: OwnTrials) -> float:
    """Return by how much the log-odds fall: the most likely fall, where a standard normal one is expected, and never a rise."""
    certainty = policy.certainty
    assert certainty is not None
    best, lead = np.maximum(trials.own, trials.first), trials.lead
    shown = best >= policy.threshold
    if not shown.any():
        return 0.0
    said = np.asarray([certainty(float(s), float(gap)) for s, gap in zip(best[shown], lead[shown], strict=True)])
    odds = np.log(said / (1.0 - said))
    right = (trials.own >= trials.first)[shown]

    def slope(shift: float) -> float:
        return float((right - 1.0 / (1.0 + np.exp(-(odds + shift)))).sum() - shift)

    low, high = -_GREATEST_SHIFT, 0.0  # the slope falls with the shift
    for _ in range(30 if slope(high) < 0.0 else 0):
        middle = (low + high) / 2.0
        low, high = (middle, high) if slope(middle) > 0.0 else (low, middle)
    return round(high, 4)
