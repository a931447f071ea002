"""Open-set identification, 1:N: who is it, or is it nobody we know? In the terms of NIST's FRTE.

A *mated* search is one by an enrolled person, a *non-mated* one by anybody else: the people of the set who are not
enrolled in this repetition, and the strangers. Errors:

    FNIR  share of mated searches whose own name is not shown: another came first, the score is below the threshold, the
          probe holds no face, or the person could not be enrolled (failure to enrol is a miss)
    FPIR  share of non-mated searches that show a name; a stranger's photo without a face is left out, so that failures
          cannot make FPIR look smaller
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import UsageError
from facepipe.evaluate import metrics
from facepipe.evaluate.bootstrap import WeightedRates, band, interval
from facepipe.evaluate.bounds import clopper_pearson
from facepipe.evaluate.identify_report import (
    Case,
    FusionRow,
    GroupErrors,
    IdentificationFigures,
    IdentificationReport,
    SizeRow,
    SourceRow,
)
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.searching import FUSIONS, Searches, join, rank_searches
from facepipe.evaluate.trials import Trials
from facepipe.evaluate.verify import group_warning, rate_key
from facepipe.types import Int64

FPIRS = (1e-1, 1e-2, 1e-3)
MARGINS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
#: FPIRs at which the DET's band is drawn.
GRID: Float64 = np.logspace(-3, 0, 61)
_LONGEST_CMC = 20
_WORST = 8
#: Smaller galleries drawn from each repetition's.
_DRAWS = 5


def evaluate_people(
    trials: Trials, groups: Sequence[str] = (), target: float = 0.01, replicates: int = 1000, seed: int = 0
) -> IdentificationReport:
    """Compute the whole report from searches.

    groups: a name for each search (empty: no breakdown). target: FPIR of the tables by source, fusion, size and group; where
    the strangers are too few to show it, the lowest that they can show, and no such tables where they can show none.
    UsageError when there is no mated or no non-mated search.
    """
    searches = trials.searches[FUSIONS[0]]
    outside = searches.strangers()
    if not searches.mated.any() or not len(outside):
        raise UsageError(
            "identification needs searches by enrolled people and by strangers: give --strangers DIR, or --known 0.5"
        )
    crowd = len(np.unique(searches.unit[searches.impostor]))
    fpirs = [rate for rate in FPIRS if metrics.supported(rate, crowd)]
    thresholds = {rate_key(rate): metrics.threshold_at(outside, rate) for rate in fpirs}
    intervals, curves = _bootstrap(searches, fpirs, replicates, seed)
    main = target if metrics.supported(target, crowd) else min(fpirs, default=None)
    figures = IdentificationFigures(
        model=trials.model,
        people=trials.people,
        enrolled=trials.enrolled,
        probes=trials.probes,
        mated_searches=int(searches.mated.sum()),
        non_mated_searches=len(outside),
        strangers=crowd,
        repeats=int(searches.trial.max()) + 1,
        failed_to_enrol=trials.failed_probes,
        people_not_enrolled=trials.not_enrollable,
        rank1=float(np.mean(searches.right[searches.mated])),
        cmc=tuple(metrics.cmc(searches.rank[searches.mated], min(_LONGEST_CMC, trials.enrolled)).tolist()),
        fnir_at_fpir={key: metrics.fnir(searches.hits(), threshold) for key, threshold in thresholds.items()},
        threshold_at_fpir=thresholds,
        more_strangers_needed={rate_key(r): metrics.missing(r, crowd) for r in FPIRS if r not in fpirs},
        intervals_95=intervals,
        **({} if main is None else _tables(trials, groups, main, seed)),
    )
    return IdentificationReport(
        figures,
        searches,
        trials.relatives,
        false_names=_worst(trials, searches.impostor, -searches.top),
        missed=_worst(
            trials, searches.mated & np.isfinite(searches.top), np.where(searches.right, searches.top, searches.top - 2)
        ),
        grid_band=curves,
    )


def _tables(trials: Trials, groups: Sequence[str], target: float, seed: int) -> dict[str, Any]:
    """Return what is measured at the threshold for one FPIR, by the names of `IdentificationFigures`."""
    searches = trials.searches[FUSIONS[0]]
    threshold = metrics.threshold_at(searches.strangers(), target)
    shown = searches.mated & (searches.top >= threshold)
    return {
        "wrong_names": float(np.sum(shown & ~searches.right) / searches.mated.sum()),
        "by_source": _by_source(searches, threshold),
        "relatives": _relatives(trials.relatives, threshold, target),
        "fusions": _fusions(trials, target),
        "gallery_sizes": _sizes(trials, target, seed),
        "groups": _by_group(searches, groups, threshold),
    }


def _worst(trials: Trials, chosen: NDArray[np.bool_], order: Float64) -> tuple[Case, ...]:
    """Return the first few chosen searches in rising order, each probe photo once."""
    searches = trials.searches[FUSIONS[0]]
    seen: dict[Path, Case] = {}
    for at in np.flatnonzero(chosen)[np.argsort(order[chosen], kind="stable")]:
        probe = trials.probe_photos[at][0]
        rival = trials.rivals[at]
        seen.setdefault(
            probe, Case(probe, rival, trials.boxes[probe], trials.boxes.get(rival), float(searches.top[at]))
        )
        if len(seen) == _WORST:
            break
    return tuple(seen.values())


def _bootstrap(
    searches: Searches, fpirs: list[float], replicates: int, seed: int
) -> tuple[dict[str, tuple[float, float]], tuple[Float64, Float64] | None]:
    """Draw a repetition and the people anew; recompute FNIR at each FPIR, rank-1 and the DET curve."""
    generator = np.random.default_rng(seed)
    units = int(searches.unit.max()) + 1
    prepared = []
    for trial in np.unique(searches.trial):
        part = searches.take(searches.trial == trial)
        prepared.append((part, WeightedRates(part.hits(), part.strangers())))
    rates = np.asarray(fpirs)
    fnirs, firsts, curves = [], [], []
    for _ in range(replicates):
        part, weighted = prepared[int(generator.integers(len(prepared)))]
        drawn = generator.multinomial(units, np.full(units, 1.0 / units)).astype(np.float64)
        mated, outside = drawn[part.unit[part.mated]], drawn[part.unit[part.impostor]]
        if not mated.sum() or not outside.sum():
            continue
        fnirs.append(1.0 - weighted.tar(mated, outside, rates))
        firsts.append(float(np.sum(part.right[part.mated] * mated) / mated.sum()))
        curves.append(1.0 - weighted.tar(mated, outside, GRID))
    intervals = {"rank1": interval(np.asarray(firsts))}
    table = np.reshape(fnirs, (len(fnirs), len(fpirs)))
    intervals |= {f"fnir_at_fpir_{rate_key(rate)}": interval(table[:, i]) for i, rate in enumerate(fpirs)}
    return intervals, band(np.asarray(curves)) if curves else None


def _rate_row(name: str, scores: Float64, units: Int64, threshold: float) -> SourceRow:
    """FPIR of some searches; the interval counts people (a person's photos and repetitions are averaged first)."""
    passed = (scores >= threshold).astype(np.float64)
    _, person = np.unique(units, return_inverse=True)
    share = np.bincount(person, weights=passed) / np.bincount(person)
    return SourceRow(name, len(scores), len(share), float(passed.mean()), clopper_pearson(share.sum(), len(share)))


def _warned(row: SourceRow, overall: float) -> SourceRow:
    """Return the row with its warning."""
    return replace(row, warning=group_warning(row.source, "FPIR", row.fpir * row.people, row.people, overall))


def _by_source(searches: Searches, threshold: float) -> tuple[SourceRow, ...]:
    overall = float(np.mean(searches.strangers() >= threshold))
    chosen = [(name, searches.impostor & (searches.source == number)) for number, name in enumerate(searches.sources)]
    return tuple(
        _warned(_rate_row(name, searches.top[rows], searches.unit[rows], threshold), overall)
        for name, rows in chosen
        if rows.any()
    )


def _relatives(relatives: Searches | None, threshold: float, target: float) -> SourceRow | None:
    if relatives is None:
        return None
    row = _rate_row("relatives of an enrolled person", relatives.top, relatives.unit, threshold)
    if row.fpir <= 2.0 * target:
        return row
    warning = (
        f"relatives of enrolled people are named in {row.fpir:.1%} of searches at the threshold for FPIR {target:.1%}"
    )
    return replace(row, warning=warning)


def _fusions(trials: Trials, fpir: float) -> tuple[FusionRow, ...]:
    rows = []
    for fusion, searches in trials.searches.items():
        for margin in MARGINS:
            threshold = max(metrics.threshold_at(searches.strangers(margin), fpir), -1.0)
            with np.errstate(invalid="ignore"):
                doubtful = (searches.top >= threshold) & (searches.top - searches.second < margin)
            rows.append(
                FusionRow(
                    fusion,
                    margin,
                    fpir,
                    threshold,
                    metrics.fnir(searches.hits(margin), threshold),
                    float(np.mean(searches.right[searches.mated])),
                    float(np.mean(doubtful[searches.mated])),
                )
            )
    return tuple(rows)


def _sizes(trials: Trials, fpir: float, seed: int) -> tuple[SizeRow, ...]:
    """Draw smaller galleries from each repetition and measure directly; no independence is assumed."""
    generator = np.random.default_rng(seed)
    full = trials.enrolled
    sizes = sorted({n for n in (1, 2, 5, 10, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000) if n < full} | {full})
    whole = trials.searches[FUSIONS[0]]
    threshold = metrics.threshold_at(whole.strangers(), fpir)
    # Per comparison: each score of a non-mated search with each enrolled person.
    single = np.mean(
        np.concatenate([scores[(mates < 0) & found].ravel() >= threshold for scores, mates, found in trials.galleries])
    )
    rows = []
    for size in sizes:
        drawn = []
        for scores, mates, found in [
            gallery for gallery in trials.galleries for _ in range(_DRAWS if size < full else 1)
        ]:
            columns = np.sort(generator.permutation(scores.shape[1])[:size])
            place = np.full(scores.shape[1], -2, np.int64)
            place[columns] = np.arange(len(columns))
            column = np.where(mates >= 0, place[mates], -1)
            kept = column > -2  # people who are not drawn into the gallery do not search
            zeros = np.zeros(int(kept.sum()), np.int64)
            drawn.append(rank_searches(scores[kept][:, columns], found[kept], column[kept], zeros, zeros, ("",)))
        searches = join(drawn)
        own = metrics.threshold_at(searches.strangers(), fpir)
        rows.append(
            SizeRow(
                size,
                own,
                metrics.fnir(searches.hits(), own),
                float(np.mean(searches.right[searches.mated])),
                float(np.mean(searches.strangers() >= threshold)),
                float(1.0 - (1.0 - single) ** size),
            )
        )
    return tuple(rows)


def _by_group(searches: Searches, groups: Sequence[str], threshold: float) -> tuple[GroupErrors, ...]:
    if not groups:
        return ()
    overall = float(np.mean(searches.strangers() >= threshold))
    hit = np.where(searches.right, searches.top, -np.inf)
    rows = []
    for name, at in metrics.by_group(groups).items():
        inside = np.zeros(len(searches), np.bool_)
        inside[at] = True
        outside, mated = inside & searches.impostor, inside & searches.mated
        row = None
        if outside.any():
            row = _warned(_rate_row(name, searches.top[outside], searches.unit[outside], threshold), overall)
        rows.append(
            GroupErrors(
                name,
                int(mated.sum()),
                int(outside.sum()),
                metrics.fnir(hit[mated], threshold) if mated.any() else None,
                row.fpir if row else None,
                row.fpir_interval_95 if row else None,
                row.warning if row else None,
            )
        )
    return tuple(rows)
