"""Open-set identification, 1:N: who is it, or is it nobody we know? In the terms of NIST's FRTE.

A *mated* search is one by an enrolled person, a *non-mated* one by anybody else: the people of the set who are not
enrolled in this repetition, and the strangers. Errors:

    FNIR  share of mated searches whose own name is not shown: another came first, the score is below the threshold, the
          probe holds no face, or the person could not be enrolled (failure to enrol is a miss)
    FPIR  share of non-mated searches that show a name; a stranger's photo without a face is left out, so that failures
          cannot make FPIR look smaller
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import UsageError
from facepipe.evaluation import metrics
from facepipe.evaluation.bootstrap import WeightedRates, band, interval
from facepipe.evaluation.bounds import clopper_pearson
from facepipe.evaluation.metrics import Float64
from facepipe.evaluation.photos import PhotoSet
from facepipe.evaluation.protocols import PeopleSet, Split
from facepipe.evaluation.searching import FUSIONS, Index, Searches, join, person_scores, rank_searches
from facepipe.evaluation.verify import group_warning, rate_key
from facepipe.types import Float32

FPIRS = (1e-1, 1e-2, 1e-3)
MARGINS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
#: FPIRs at which the DET's band is drawn.
GRID: Float64 = np.logspace(-3, 0, 61)
_LONGEST_CMC = 20
_WORST = 8
#: Smaller galleries drawn from each repetition's.
_DRAWS = 5
#: No family has as many members: numbers the relatives apart.
_FAMILY = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class PeopleFaces:
    """The embedded photos of a PeopleSet: `owner` int64 (n,) is the person of each photo, `number` its place there."""

    people: PeopleSet
    photos: PhotoSet
    owner: Index
    number: Index

    def rows(self, chosen: Sequence[Sequence[int]]) -> Index:
        """Return the rows of chosen photo numbers for each person."""
        wanted = {(person, number) for person, numbers in enumerate(chosen) for number in numbers}
        pairs = zip(self.owner.tolist(), self.number.tolist(), strict=True)
        return np.asarray([row for row, pair in enumerate(pairs) if pair in wanted], np.int64)

    def named_photos(self, rows: Iterable[int]) -> list[tuple[Path, str]]:
        """Return path and person of rows."""
        return [(self.photos.paths[row], self.people.people[int(self.owner[row])]) for row in rows]


def faces_of(people: PeopleSet, photos: PhotoSet) -> PeopleFaces:
    """Join people and the embeddings of all their photos in order."""
    owner = np.repeat(np.arange(len(people)), [len(p) for p in people.photos]).astype(np.int64)
    number = np.concatenate([np.arange(len(p)) for p in people.photos]).astype(np.int64)
    if len(owner) != len(photos):
        raise ValueError(f"faces_of: expected {len(owner)} photos, got {len(photos)}")
    return PeopleFaces(people, photos, owner, number)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Two photos that were taken for one person, or were not: their paths, their faces' boxes, their score."""

    first: Path
    second: Path
    first_box: Float32 | None
    second_box: Float32 | None
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """The searches of all repetitions, for each fusion, and what the gallery-size curve needs.

    probe_photos, rivals: for each search of the default fusion the probe's photo and person, and an enrolled photo of
    the person who came first. galleries: for each repetition the scores of the default fusion, (probes, enrolled), each
    probe's column, and whether it has a face. boxes: for each photo that of its face.
    """

    searches: dict[str, Searches]
    galleries: list[tuple[Float64, Index, NDArray[np.bool_]]]
    enrolled: int
    not_enrollable: int
    failed_probes: int
    units: int
    probe_photos: list[tuple[Path, str]]
    rivals: list[Path]
    boxes: dict[Path, Float32]

    def group_names(self, groups: Mapping[str, str]) -> list[str]:
        """Return the group of each search: looked up by the photo's path, its last two parts, its name, then the person."""
        return [
            next(
                (groups[key] for key in (str(path), f"{person}/{path.name}", path.name, person) if key in groups),
                "(none)",
            )
            for path, person in self.probe_photos
        ]


def run_trials(
    known: PeopleFaces,
    splits: Sequence[Split],
    strangers: Sequence[tuple[str, PeopleFaces]],
    families: Sequence[PeopleFaces] = (),
    seed: int = 0,
) -> tuple[Trials, Searches | None]:
    """Search every probe of every split; families: sets of relatives, of whom one is enrolled and the others search.

    A family is tried on its own: its enrolled member joins the gallery of the split, so the gallery grows by one.
    The second value holds the relatives' searches (None without families).
    """
    sources = ("enrolled", "not enrolled", *(name for name, _ in strangers))
    starts = np.cumsum([len(known.people), *(len(s.people) for _, s in strangers)])
    vectors, found, quality = known.photos.vectors, known.photos.found, known.photos.quality
    parts: dict[str, list[Searches]] = {fusion: [] for fusion in FUSIONS}
    relatives: list[Searches] = []
    galleries = []
    photos: list[tuple[Path, str]] = []
    rivals: list[Path] = []
    outside = [photo for _, s in strangers for photo in s.named_photos(range(len(s.photos)))]
    generator = np.random.default_rng(seed)
    failed_people: set[int] = set()
    for trial, split in enumerate(splits):
        column = np.full(len(known.people), -1, np.int64)
        column[list(split.enrolled)] = np.arange(len(split.enrolled))
        gallery = known.rows(split.gallery)
        gallery = gallery[found[gallery]]
        probes = known.rows(split.probes)
        failed_people |= set(split.enrolled) - set(known.owner[gallery].tolist())
        probe_vectors = np.concatenate([vectors[probes], *(s.photos.vectors for _, s in strangers)])
        probe_found = np.concatenate([found[probes], *(s.photos.found for _, s in strangers)])
        mates = np.concatenate([column[known.owner[probes]], *(np.full(len(s.photos), -1) for _, s in strangers)])
        unit = np.concatenate(
            [known.owner[probes], *(s.owner + start for start, (_, s) in zip(starts, strangers, strict=False))]
        )
        source = np.concatenate(
            [
                np.where(column[known.owner[probes]] >= 0, 0, 1),
                *(np.full(len(s.photos), 2 + i) for i, (_, s) in enumerate(strangers)),
            ]
        )
        owners = column[known.owner[gallery]]
        photos += [*known.named_photos(probes), *outside]
        for fusion in FUSIONS:
            scores = person_scores(
                probe_vectors, vectors[gallery], owners, len(split.enrolled), fusion, quality[gallery]
            )
            parts[fusion].append(rank_searches(scores, probe_found, mates, unit, source, sources, trial))
            if fusion == FUSIONS[0]:
                face = {int(owners[i]): known.photos.paths[row] for i, row in reversed(list(enumerate(gallery)))}
                rivals += [face.get(int(column_), Path()) for column_ in parts[fusion][-1].best]
                galleries.append((np.where(probe_found[:, None], scores, -np.inf), mates, probe_found))
        for number, family in enumerate(families):
            one = _search_relatives(family, number, vectors[gallery], owners, len(split.enrolled), generator, trial)
            if one is not None:
                relatives.append(one)
    boxes = {
        path: box
        for s in (known, *(s for _, s in strangers))
        for path, box in zip(s.photos.paths, s.photos.boxes, strict=True)
    }
    joined = {fusion: join(list_) for fusion, list_ in parts.items()}
    failed = int((~found).sum()) + sum(int((~s.photos.found).sum()) for _, s in strangers)
    trials = Trials(
        joined, galleries, len(splits[0].enrolled), len(failed_people), failed, int(starts[-1]), photos, rivals, boxes
    )
    return trials, join(relatives) if relatives else None


def _search_relatives(
    family: PeopleFaces,
    number: int,
    gallery: Float32,
    owners: Index,
    people: int,
    generator: np.random.Generator,
    trial: int,
) -> Searches | None:
    """Enrol one member of a family (up to three photos) and search with the photos of all others."""
    member = int(generator.integers(len(family.people)))
    own = np.flatnonzero((family.owner == member) & family.photos.found)[:3]
    others = np.flatnonzero((family.owner != member) & family.photos.found)
    if not len(own) or not len(others):
        return None
    scores = person_scores(
        family.photos.vectors[others],
        np.concatenate([gallery, family.photos.vectors[own]]),
        np.concatenate([owners, np.full(len(own), people, np.int64)]),
        people + 1,
        FUSIONS[0],
    )
    stranger = np.full(len(others), -1, np.int64)
    there = np.ones(len(others), np.bool_)
    units = family.owner[others] + number * _FAMILY
    return rank_searches(scores, there, stranger, units, np.zeros(len(others), np.int64), ("relatives",), trial)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Searches of one source of strangers (or one group) at a threshold: how many, of how many people, FPIR."""

    name: str
    searches: int
    people: int
    fpir: float
    interval: tuple[float, float]
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class FusionRow:
    """One way to fuse templates and one margin: threshold for the FPIR, FNIR there, share that is ambiguous."""

    fusion: str
    margin: float
    fpir: float
    threshold: float
    fnir: float
    rank1: float
    ambiguous: float


@dataclass(frozen=True, slots=True)
class SizeRow:
    """One gallery size: FNIR with the threshold chosen for it; FPIR at the full gallery's threshold against theory."""

    gallery_size: int
    threshold: float
    fnir: float
    rank1: float
    fpir_at_full_threshold: float
    independent_fpir: float


@dataclass(frozen=True, slots=True)
class GroupErrors:
    """One group: its FPIR and FNIR at the whole's threshold."""

    group: str
    mated: int
    non_mated: int
    fnir: float | None
    fpir: float | None
    fpir_interval: tuple[float, float] | None
    warning: str | None


@dataclass(frozen=True, slots=True, eq=False)
class IdentificationReport:
    """All figures of one open-set run. Rates are shares 0..1, intervals are 95 % over people and repetitions.

    false_names: the strangers with the highest scores, each photo once: probe, enrolled photo of the name, score. missed:
    the enrolled people whose searches missed by most, with the photo of who came first.
    """

    rank1: float
    cmc: Float64
    fnir_at_fpir: dict[str, float]
    threshold_at_fpir: dict[str, float]
    needs: dict[str, int]
    intervals: dict[str, tuple[float, float]]
    people: int
    enrolled: int
    probes: int
    mated: int
    non_mated: int
    strangers: int
    repeats: int
    failed_to_enrol: int
    people_not_enrolled: int
    wrong_names: float | None
    sources: tuple[SourceRow, ...]
    relatives: SourceRow | None
    fusions: tuple[FusionRow, ...]
    sizes: tuple[SizeRow, ...]
    groups: tuple[GroupErrors, ...]
    model: str
    searches: Searches
    relative_searches: Searches | None
    false_names: tuple[Case, ...]
    missed: tuple[Case, ...]
    grid_band: tuple[Float64, Float64] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document's content."""
        return {
            "schema_version": 1,
            "model": self.model,
            "people": self.people,
            "enrolled": self.enrolled,
            "probes": self.probes,
            "mated_searches": self.mated,
            "non_mated_searches": self.non_mated,
            "strangers": self.strangers,
            "repeats": self.repeats,
            "failed_to_enrol": self.failed_to_enrol,
            "people_not_enrolled": self.people_not_enrolled,
            "rank1": self.rank1,
            "cmc": [float(v) for v in self.cmc],
            "fnir_at_fpir": self.fnir_at_fpir,
            "threshold_at_fpir": self.threshold_at_fpir,
            "more_strangers_needed": self.needs,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "wrong_names": self.wrong_names,
            "by_source": [_source_dict(row) for row in self.sources],
            "relatives": _source_dict(self.relatives) if self.relatives else None,
            "fusions": [
                {
                    "fusion": f.fusion,
                    "margin": f.margin,
                    "fpir": f.fpir,
                    "threshold": f.threshold,
                    "fnir": f.fnir,
                    "rank1": f.rank1,
                    "ambiguous": f.ambiguous,
                }
                for f in self.fusions
            ],
            "gallery_sizes": [
                {
                    "gallery_size": s.gallery_size,
                    "threshold": s.threshold,
                    "fnir": s.fnir,
                    "rank1": s.rank1,
                    "fpir_at_full_threshold": s.fpir_at_full_threshold,
                    "independent_fpir": s.independent_fpir,
                }
                for s in self.sizes
            ],
            "groups": [
                {
                    "group": g.group,
                    "mated_searches": g.mated,
                    "non_mated_searches": g.non_mated,
                    "fnir": g.fnir,
                    "fpir": g.fpir,
                    "fpir_interval_95": g.fpir_interval,
                    "warning": g.warning,
                }
                for g in self.groups
            ],
        }


def _source_dict(row: SourceRow) -> dict[str, Any]:
    return {
        "source": row.name,
        "searches": row.searches,
        "people": row.people,
        "fpir": row.fpir,
        "fpir_interval_95": list(row.interval),
        "warning": row.warning,
    }


def evaluate_people(
    trials: Trials,
    relatives: Searches | None,
    people: int,
    probes: int,
    model: str,
    groups: Sequence[str] = (),
    target: float = 0.01,
    replicates: int = 1000,
    seed: int = 0,
) -> IdentificationReport:
    """Compute the whole report from searches.

    groups: a name for each search (empty: no breakdown). target: FPIR of the tables by source, fusion, size and group.
    UsageError when there is no mated or no non-mated search.
    """
    searches = trials.searches[FUSIONS[0]]
    outside = searches.strangers()
    if not searches.mated.any() or not len(outside):
        raise UsageError(
            "identification needs searches by enrolled people and by strangers: give --strangers DIR, or --known 0.5"
        )
    hits = searches.hits()
    crowd = len(np.unique(searches.unit[searches.impostor]))
    fpirs = [rate for rate in FPIRS if metrics.supported(rate, crowd)]
    main = target if metrics.supported(target, crowd) else (fpirs[-1] if fpirs else 1.0)
    threshold = metrics.threshold_at(outside, main)
    intervals, curves = _bootstrap(searches, fpirs, replicates, seed)
    shown = searches.mated & (searches.top >= threshold)
    return IdentificationReport(
        rank1=float(np.mean(searches.right[searches.mated])),
        cmc=metrics.cmc(searches.rank[searches.mated], min(_LONGEST_CMC, trials.enrolled)),
        fnir_at_fpir={rate_key(r): metrics.fnir(hits, metrics.threshold_at(outside, r)) for r in fpirs},
        threshold_at_fpir={rate_key(r): metrics.threshold_at(outside, r) for r in fpirs},
        needs={rate_key(r): metrics.missing(r, crowd) for r in FPIRS if r not in fpirs},
        intervals=intervals,
        people=people,
        enrolled=trials.enrolled,
        probes=probes,
        mated=int(searches.mated.sum()),
        non_mated=len(outside),
        strangers=crowd,
        repeats=int(searches.trial.max()) + 1,
        failed_to_enrol=trials.failed_probes,
        people_not_enrolled=trials.not_enrollable,
        wrong_names=float(np.sum(shown & ~searches.right) / searches.mated.sum()),
        sources=_by_source(searches, threshold),
        relatives=_relatives(relatives, threshold, main),
        fusions=_fusions(trials, main),
        sizes=_sizes(trials, main, seed),
        groups=_by_group(searches, groups, threshold),
        model=model,
        searches=searches,
        relative_searches=relatives,
        false_names=_worst(trials, searches.impostor, -searches.top),
        missed=_worst(
            trials, searches.mated & np.isfinite(searches.top), np.where(searches.right, searches.top, searches.top - 2)
        ),
        grid_band=curves,
    )


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


def _rate_row(name: str, scores: Float64, units: Index, threshold: float) -> SourceRow:
    """FPIR of some searches; the interval counts people (a person's photos and repetitions are averaged first)."""
    passed = (scores >= threshold).astype(np.float64)
    _, person = np.unique(units, return_inverse=True)
    share = np.bincount(person, weights=passed) / np.bincount(person)
    return SourceRow(name, len(scores), len(share), float(passed.mean()), clopper_pearson(share.sum(), len(share)))


def _by_source(searches: Searches, threshold: float) -> tuple[SourceRow, ...]:
    overall = float(np.mean(searches.strangers() >= threshold))
    rows = []
    for number, name in enumerate(searches.sources):
        chosen = searches.impostor & (searches.source == number)
        if chosen.any():
            row = _rate_row(name, searches.top[chosen], searches.unit[chosen], threshold)
            warning = group_warning(name, "FPIR", row.fpir * row.people, row.people, overall)
            rows.append(SourceRow(row.name, row.searches, row.people, row.fpir, row.interval, warning))
    return tuple(rows)


def _relatives(relatives: Searches | None, threshold: float, target: float) -> SourceRow | None:
    if relatives is None:
        return None
    row = _rate_row("relatives of an enrolled person", relatives.top, relatives.unit, threshold)
    warning = (
        f"relatives of enrolled people are named in {row.fpir:.1%} of searches at the threshold for FPIR {target:.1%}"
        if row.fpir > 2.0 * target
        else None
    )
    return SourceRow(row.name, row.searches, row.people, row.fpir, row.interval, warning)


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
        row = _rate_row(name, searches.top[outside], searches.unit[outside], threshold) if outside.any() else None
        rows.append(
            GroupErrors(
                name,
                int(mated.sum()),
                int(outside.sum()),
                metrics.fnir(hit[mated], threshold) if mated.any() else None,
                row.fpir if row else None,
                row.interval if row else None,
                group_warning(name, "FPIR", row.fpir * row.people, row.people, overall) if row else None,
            )
        )
    return tuple(rows)
