"""Open-set identification: searches by brute force, FNIR and FPIR by hand, the whole report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.errors import UsageError
from facepipe.evaluate import metrics
from facepipe.evaluate.identify import evaluate_people
from facepipe.evaluate.identify_report import IdentificationReport
from facepipe.evaluate.searching import fuse, person_scores, quality_weight, rank_searches
from facepipe.evaluate.splits import SplitRule, splits
from facepipe.evaluate.trials import run_trials
from tests.evaluation_data import people_of, vectors_of


def report_of(strangers: int = 150, missing: tuple[int, ...] = (), **options: object) -> IdentificationReport:
    known = people_of(20, 6, spread=2.0, seed=1, missing=missing)
    outside = people_of(strangers, 1, seed=2, name="outside")
    families = [people_of(3, 2, seed=s, name=f"family{s}") for s in (3, 4)]
    rule = SplitRule("enroll-*", "probe-*", known=0.5, repeats=4)
    trials = run_trials(known, list(splits(known.people, rule)), [("outside", outside)], families)
    groups = {f"{p:03d}": "even" if p % 2 == 0 else "odd" for p in range(200)}
    return evaluate_people(
        trials,
        trials.group_names(groups),
        replicates=200,
        **options,  # type: ignore[arg-type]
    )


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 999))
def test_ranks_are_those_of_sorting(people: int, probes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(-5, 6, (probes, people)) / 5.0
    mates = generator.integers(-1, people, probes)
    found = generator.random(probes) < 0.8
    result = rank_searches(scores, found, mates, np.arange(probes), np.zeros(probes, np.int64), ("all",))
    for i in range(probes):
        order = sorted(scores[i], reverse=True)
        if not found[i]:
            assert result.top[i] == -np.inf
            assert not result.right[i]
            continue
        assert result.top[i] == order[0]
        assert result.second[i] == (order[1] if people > 1 else -np.inf)
        if mates[i] >= 0:
            own = scores[i, mates[i]]
            assert result.rank[i] == sum(s >= own for s in scores[i])  # a tie counts against
            assert result.right[i] == (result.rank[i] == 1)


def test_a_template_is_the_unit_mean_and_best_is_the_best_single_face() -> None:
    vectors, owners = vectors_of(3, 2, 0.8), np.asarray([0, 0, 1, 1, 2, 2])
    probes = vectors_of(3, 1, 0.8, seed=9)
    mean = person_scores(probes, vectors, owners, 3, "mean")
    expected = vectors[:2].mean(axis=0)
    np.testing.assert_allclose(mean[:, 0], probes @ (expected / np.linalg.norm(expected)), atol=1e-6)
    best = person_scores(probes, vectors, owners, 3, "best")
    np.testing.assert_allclose(best[:, 1], (probes @ vectors[2:4].T).max(axis=1), atol=1e-6)
    quality = np.ones((6, 8), np.float32) * np.asarray([1, 112, 300, 0, 0, 0, 1, 1], np.float32)
    np.testing.assert_allclose(person_scores(probes, vectors, owners, 3, "weighted", quality), mean, atol=1e-9)
    assert not fuse(vectors, owners, 4)[3].any()
    assert (person_scores(probes, vectors, owners, 4, "mean")[:, 3] == -np.inf).all()
    with pytest.raises(ValueError, match="fusion"):
        person_scores(probes, vectors, owners, 3, "median")


def test_a_small_blurred_or_turned_face_weighs_less() -> None:
    good = np.asarray([[0.99, 150, 500, 0, 0, 0, 0.3, 0.9]], np.float32)
    for column, value in ((1, 40), (2, 20), (3, 60), (0, 0.6)):
        worse = good.copy()
        worse[0, column] = value
        assert 0 < quality_weight(worse)[0] < quality_weight(good)[0]


def test_the_report_holds_its_own_definitions() -> None:
    report = report_of()
    searches = report.searches
    for key, threshold in report.figures.threshold_at_fpir.items():
        named = searches.impostor & (searches.top >= threshold)
        assert named.sum() / searches.impostor.sum() <= float(key) + 1e-9
        missed = searches.mated & ~(searches.right & (searches.top >= threshold))
        assert report.figures.fnir_at_fpir[key] == pytest.approx(missed.sum() / searches.mated.sum())
    assert report.figures.rank1 == pytest.approx(np.mean(searches.right[searches.mated]))
    assert (np.diff(report.figures.cmc) >= 0).all()
    assert report.figures.fnir_at_fpir["0.1"] <= report.figures.fnir_at_fpir["0.01"]
    assert report.figures.more_strangers_needed == {"0.001": 1000 - report.figures.strangers}
    # 150 strangers, and those of the 20 people whom a repetition did not enrol.
    assert 160 <= report.figures.strangers == len(np.unique(searches.unit[searches.impostor])) <= 170
    assert report.figures.mated_searches == 4 * 10 * 3
    assert {row.source for row in report.figures.by_source} == {"not enrolled", "outside"}
    low, high = report.figures.intervals_95["fnir_at_fpir_0.1"]
    assert 0.0 < low <= report.figures.fnir_at_fpir["0.1"] <= high < 1.0
    json.dumps(report.as_dict())


def test_fusions_margins_and_sizes_are_compared_in_one_run() -> None:
    report = report_of()
    assert {row.fusion for row in report.figures.fusions} == {"mean", "weighted", "best"}
    plain = next(row for row in report.figures.fusions if (row.fusion, row.margin) == ("mean", 0.0))
    assert plain.fnir == pytest.approx(report.figures.fnir_at_fpir["0.01"])
    assert plain.ambiguous == 0.0
    assert report.figures.gallery_sizes[-1].gallery_size == report.figures.enrolled
    assert report.figures.gallery_sizes[-1].fnir == pytest.approx(report.figures.fnir_at_fpir["0.01"])
    thresholds = [row.threshold for row in report.figures.gallery_sizes]
    assert thresholds == sorted(thresholds)  # more people, more chances to be mistaken
    # Directions at random are independent: the formula holds for them.
    last = report.figures.gallery_sizes[-1]
    assert last.fpir_at_full_threshold == pytest.approx(last.independent_fpir, abs=0.01)


def test_a_margin_turns_names_into_doubt_for_strangers_too() -> None:
    searches = rank_searches(
        np.asarray([[0.9, 0.85], [0.9, 0.2]]),
        np.ones(2, np.bool_),
        np.asarray([-1, 0]),
        np.arange(2),
        np.zeros(2, np.int64),
        ("",),
    )
    assert searches.strangers(0.1).tolist() == [-np.inf]
    assert searches.strangers(0.0).tolist() == [0.9]
    assert searches.hits(0.1).tolist() == [0.9]
    assert searches.hits(0.8).tolist() == [-np.inf]


def test_failures_to_enrol_are_misses_and_never_help_fpir() -> None:
    whole = report_of()
    probe_rows = tuple(6 * person + 3 for person in range(20))
    failed = report_of(missing=probe_rows)
    assert failed.figures.failed_to_enrol == 20
    assert failed.figures.mated_searches == whole.figures.mated_searches
    assert failed.figures.fnir_at_fpir["0.1"] >= 1 / 3
    assert failed.figures.non_mated_searches == whole.figures.non_mated_searches - 4 * 10
    # Nothing of the first five people can be enrolled; some of them should have been, in some repetition.
    unusable = report_of(missing=tuple(6 * person + number for person in range(5) for number in range(3)))
    assert 1 <= unusable.figures.people_not_enrolled <= 5
    assert unusable.figures.rank1 < whole.figures.rank1


def test_relatives_search_beside_one_enrolled_member() -> None:
    report = report_of()
    assert report.figures.relatives is not None
    assert report.figures.relatives.people <= 6
    assert report.relative_searches is not None
    assert len(report.relative_searches) == 4 * 2 * 2 * 2  # repetitions, families, other members, photos


def test_groups_cover_all_searches() -> None:
    report = report_of()
    assert {row.group for row in report.figures.groups} == {"even", "odd"}
    assert sum(row.non_mated_searches for row in report.figures.groups) == report.figures.non_mated_searches
    assert sum(row.mated_searches for row in report.figures.groups) == report.figures.mated_searches


def test_without_strangers_there_is_nothing_to_measure() -> None:
    known = people_of(4, 4)
    trials = run_trials(known, list(splits(known.people, SplitRule("enroll-*"))), [])
    with pytest.raises(UsageError, match="give --strangers"):
        evaluate_people(trials)


def test_a_perfect_network_misses_nobody() -> None:
    known, outside = people_of(10, 4, spread=0.1), people_of(100, 1, seed=7)
    trials = run_trials(known, list(splits(known.people, SplitRule("enroll-*"))), [("outside", outside)])
    report = evaluate_people(trials, replicates=100)
    assert report.figures.rank1 == 1.0
    assert report.figures.fnir_at_fpir == {"0.1": 0.0, "0.01": 0.0}
    assert metrics.fnir(report.searches.hits(), report.figures.threshold_at_fpir["0.01"]) == 0.0
