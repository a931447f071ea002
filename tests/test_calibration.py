"""Calibration: promises that hold in repeated draws, refusals with a number, probabilities that come true."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from facepipe.errors import UsageError
from facepipe.evaluate.calibration import (
    calibrate_gallery,
    choose_threshold,
    enrolled_impostors,
    stranger_impostors,
    with_strangers,
)
from facepipe.evaluate.metrics import calibration_error
from facepipe.evaluate.probability import NamedSearches, enrolled_searches, fit_curve, held_out_error
from facepipe.evaluate.searching import fuse
from tests.evaluation_data import people_of, vectors_of


def test_a_target_that_the_strangers_cannot_support_is_refused_with_the_number_needed() -> None:
    with pytest.raises(UsageError, match=r"needs 99 strangers, these are 50: add 49 more people"):
        choose_threshold(np.random.default_rng(0).random(50), np.arange(50), 0.01)
    with pytest.raises(UsageError, match=r"needs 999 strangers, these are 200: add 799 more"):
        choose_threshold(np.random.default_rng(0).random(200), np.arange(200), 0.001)
    with pytest.raises(UsageError, match=r"with certainty 0.95 needs 299 strangers, these are 200: add 99"):
        choose_threshold(np.random.default_rng(0).random(200), np.arange(200), 0.01, strict=True)
    assert choose_threshold(np.random.default_rng(0).random(99), np.arange(99), 0.01).impostors_allowed == 0


@given(st.integers(20, 400), st.sampled_from([0.05, 0.1, 0.2]), st.integers(0, 999), st.booleans())
def test_no_more_people_pass_than_allowed_and_a_lower_threshold_would_let_one_more(
    people: int, target: float, seed: int, strict: bool
) -> None:
    top = np.random.default_rng(seed).normal(0.2, 0.1, people)
    try:
        choice = choose_threshold(top, np.arange(people), target, strict=strict)
    except UsageError:
        assert people < (1 / target if not strict else np.log(0.05) / np.log(1 - target) + 1)
        return
    assert (top >= choice.threshold).sum() <= choice.impostors_allowed
    assert (top >= choice.threshold - 2e-4).sum() >= choice.impostors_allowed
    assert choice.expected_fpir <= target + 1e-12
    assert choice.expected_fpir <= choice.fpir_bound
    assert choice.fpir_bound <= target or not strict


def test_a_person_with_many_photos_counts_once() -> None:
    top = np.r_[np.linspace(0.1, 0.3, 99), np.full(500, 0.9)]  # one stranger with 500 photos, all above the others
    units = np.r_[np.arange(99), np.full(500, 99)]
    choice = choose_threshold(top, units, 0.05)
    assert choice.impostor_people == 100
    assert choice.threshold < 0.31
    assert choice.impostors_passing <= choice.impostors_allowed / 100


def test_the_promise_holds_on_strangers_not_used() -> None:
    """Half of the strangers choose the threshold, the other half stays within the stated bound in 95 of 100 draws or more."""
    generator = np.random.default_rng(0)
    top = generator.gumbel(0.25, 0.05, 400)
    inside, measured = 0, []
    for _ in range(200):
        order = generator.permutation(400)
        choice = choose_threshold(top[order[:200]], np.arange(200), 0.01)
        rate = float(np.mean(top[order[200:]] >= choice.threshold))
        measured.append(rate)
        allowed = choice.impostors_allowed
        inside += rate * 200 <= betabinom.ppf(0.95, 200, allowed + 1, 200 - allowed) + 1e-9
    assert inside >= 190
    assert np.mean(measured) <= 0.012


def test_enrolled_people_are_each_others_impostors_without_themselves() -> None:
    vectors, owners = vectors_of(5, 3, 0.8), np.repeat(np.arange(5), 3)
    among = enrolled_impostors(vectors, owners, 5)
    templates = fuse(vectors, owners, 5)
    for row in range(15):
        others = [i for i in range(5) if i != owners[row]]
        scores = templates[others] @ vectors[row]
        assert among.top[row] == pytest.approx(scores.max(), abs=1e-5)
        assert among.rival[row] == others[int(scores.argmax())]
    assert among.people == 5
    assert not len(enrolled_impostors(vectors[:3], owners[:3], 1).top)
    outside = stranger_impostors("s", vectors_of(4, 1, 0.5, seed=8), np.arange(4), templates)
    assert outside.people == 4


def test_a_face_searches_with_the_template_of_the_others() -> None:
    vectors, owners = vectors_of(4, 3, 0.8), np.repeat(np.arange(4), 3)
    vectors, owners = vectors[:-2], owners[:-2]  # the last person has a single face: nothing to search with
    searches = enrolled_searches(vectors, owners, 4)
    assert len(searches.similarity) == 9
    own = vectors[1:3].mean(axis=0)
    expected = [float(vectors[0] @ own / np.linalg.norm(own))]
    expected += [float(vectors[0] @ t) for t in fuse(vectors, owners, 4)[1:]]
    assert searches.similarity[0] == pytest.approx(max(expected), abs=1e-5)
    assert not len(enrolled_searches(vectors[::3], owners[::3], 4).similarity)


def draw(people: int, each: int, seed: int) -> NamedSearches:
    """Return searches whose true probability is a known curve: log-odds 20 * (similarity - 0.4)."""
    generator = np.random.default_rng(seed)
    similarity = generator.uniform(0.0, 0.8, people * each)
    right = generator.random(len(similarity)) < 1 / (1 + np.exp(-20 * (similarity - 0.4)))
    unit = np.repeat(np.arange(people), each)
    return NamedSearches(similarity, right, unit, np.ones(len(unit), np.bool_))


@pytest.mark.parametrize(("people", "method"), [(300, "platt"), (2000, "isotonic")])
def test_probabilities_come_true_on_people_never_used(people: int, method: str) -> None:
    curve, used = fit_curve(draw(people, 4, seed=1), known_share=1.0)
    assert used == method
    fresh = draw(3000, 4, seed=2)
    predicted = np.asarray([curve(value) for value in fresh.similarity])
    assert calibration_error(predicted, fresh.right, np.ones(len(predicted))) <= 0.03
    assert 0.0 < curve(-1.0) < 0.05
    assert 0.95 < curve(1.0) < 1.0  # never certainty
    error = held_out_error(draw(people, 4, seed=1), known_share=1.0)
    assert error is not None
    assert error <= 0.06


def test_the_share_of_known_faces_moves_the_probability() -> None:
    mated = draw(200, 2, seed=3)
    outside = stranger_impostors(
        "s", vectors_of(200, 1, 0.5, seed=8), np.arange(200), fuse(vectors_of(5, 1, 0.5), np.arange(5), 5)
    )
    searches = with_strangers(mated, outside.top, outside.unit)
    rare, often = (fit_curve(searches, share)[0] for share in (0.1, 0.9))
    assert rare(0.35) < often(0.35)
    weights = searches.weights(0.1)
    assert weights[searches.mated].sum() / weights.sum() == pytest.approx(0.1)
    with pytest.raises(ValueError, match="right and wrong"):
        fit_curve(NamedSearches(mated.similarity, np.ones(400, np.bool_), mated.unit, mated.mated))


def test_a_gallery_is_calibrated_with_what_it_can_promise() -> None:
    faces, outside = people_of(20, 4, spread=1.2), people_of(150, 1, seed=5)
    names = [f"P{i}" for i in range(20)]
    found = calibrate_gallery(
        "fake:1", names, faces.photos.vectors, faces.owner, [("strangers", outside.photos.vectors, outside.owner)], 0.03
    ).as_dict()
    json.dumps(found)
    assert found["sources"] == {"strangers": 150, "enrolled people": 20}
    assert found["impostor_people"] == 170
    assert found["expected_fpir"] <= 0.01 < found["fpir_bound"]
    assert found["gallery_size"] == 20
    top = (outside.photos.vectors @ fuse(faces.photos.vectors, faces.owner, 20).T).max(axis=1)
    assert np.mean(top >= found["threshold"]) <= 0.01
    assert found["curve"]["probability"] == sorted(found["curve"]["probability"])
    assert found["curve_ece"] < 0.1


def test_one_person_under_two_names_is_pointed_out() -> None:
    faces = people_of(10, 4, spread=0.5)
    owner = faces.owner.copy()
    owner[2:4] = 10  # two photos of person 0 were enrolled as another person
    outside = people_of(120, 1, seed=5)
    names = [f"P{i}" for i in range(11)]
    arguments = ("fake:1", names, faces.photos.vectors, owner, [("s", outside.photos.vectors, outside.owner)], 0.0)
    found = calibrate_gallery(*arguments, target=0.05)
    assert any("P0 and P10 look alike" in note for note in found.notes)
    without = calibrate_gallery(*arguments, target=0.05, enrolled=False)
    assert without.choice.threshold <= found.choice.threshold
    assert without.choice.impostor_people == 120


def test_galleries_that_cannot_be_calibrated_say_why() -> None:
    with pytest.raises(UsageError, match="empty"):
        calibrate_gallery("m", [], np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [], 0.0)
    with pytest.raises(UsageError, match="no impostors"):
        calibrate_gallery("m", ["Ann"], vectors_of(1, 2, 0.5), np.zeros(2, np.int64), [], 0.0)
    single = people_of(5, 1)
    outside = people_of(120, 1, seed=5)
    found = calibrate_gallery(
        "m", list("ABCDE"), single.photos.vectors, single.owner, [("s", outside.photos.vectors, outside.owner)], 0.0
    )
    assert found.curve is None
    assert any("two or more enrolled faces" in note for note in found.notes)
