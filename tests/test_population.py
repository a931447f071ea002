"""Certainty from similarity and lead, and what a gallery's own photos change: never less careful than the model's record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.certainty import LeadCertainty, ProbabilityCurve
from facepipe.evaluate.calibration import calibrate_gallery
from facepipe.gallery.arrays import own_photos
from facepipe.gallery.arrays.derived import TRIALS_NAME
from facepipe.gallery.needs import needs_of
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.models.registry import get_record
from facepipe.models.statistics import load_statistics
from facepipe.predict.decision import decide
from facepipe.predict.policy import policy_for
from facepipe.predict.population import OwnTrials, adapt, alike, own_trials
from facepipe.types import Candidate, Float32, Int64, Policy, Status
from tests.test_types import face

DIM = 256
CERTAINTY = LeadCertainty(9.5, ((0.15, 15.0), (0.4, 11.0)), -7.0, 0.994)
CURVE = ProbabilityCurve((0.0, 0.5, 1.0), (0.0, 0.99, 0.999))
POLICY = Policy(0.45, 0.03, curve=CURVE, certainty=CERTAINTY)
cosines = st.floats(-1.0, 1.0)


def people(
    count: int, photos: int, shared: float, seed: int = 0, spread: float = 0.75
) -> tuple[Float32, Int64, Float32]:
    """Return vectors, owners and templates of people; shared: cosine that any two of them have, as relatives do."""
    rng = np.random.default_rng(seed)

    def unit(rows: np.ndarray) -> Float32:
        return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)

    common = unit(rng.standard_normal(DIM))
    own = unit(np.sqrt(shared) * common + np.sqrt(1 - shared) * unit(rng.standard_normal((count, DIM))))
    owners = np.repeat(np.arange(count), photos)
    vectors = unit(own[owners] + spread * unit(rng.standard_normal((len(owners), DIM))))
    return vectors, owners.astype(np.int64), unit(np.stack([vectors[owners == n].mean(axis=0) for n in range(count)]))


@given(cosines, cosines, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_similarity_or_lead_never_makes_an_answer_less_sure(
    s: float, t: float, lead: float, more: float
) -> None:
    low, high = sorted((s, t))
    near, far = sorted((lead, more))
    assert CERTAINTY(low, near) <= CERTAINTY(high, far) <= CERTAINTY.most
    both = POLICY.probability(low, near), POLICY.probability(high, far)
    assert both[0] is not None and both[1] is not None and 0.0 <= both[0] <= both[1]
    assert both[0] <= CURVE(low)


def test_a_name_beside_a_lookalike_is_less_sure() -> None:
    def answer(second: float) -> float:
        candidates = (Candidate("Ann", 0.7, 1), Candidate("Bea", second, 2))
        (found,) = decide([face()], [candidates], POLICY)
        assert found.status is Status.KNOWN and found.probability is not None
        return found.probability

    assert answer(0.66) < 0.75
    assert answer(0.2) > 0.97
    (alone,) = decide([face()], [(Candidate("Ann", 0.7, 1),)], POLICY)
    assert alone.probability == answer(-0.3) == answer(0.0), "the similarity of nobody is that of a stranger"


def test_a_person_of_the_same_photo_casts_no_doubt_on_the_other_face() -> None:
    twins = [
        (Candidate("Ann", 0.8, 1), Candidate("Bea", 0.75, 2)),
        (Candidate("Ann", 0.79, 1), Candidate("Bea", 0.78, 2), Candidate("Cleo", 0.1, 3)),
    ]
    _, second = decide([face(), face((100, 20, 180, 120))], twins, POLICY)
    assert second.person == "Bea"
    assert second.probability == POLICY.probability(0.78, 0.68)


def test_the_shipped_certainty_was_proved_on_people_it_was_not_fitted_on() -> None:
    statistics = load_statistics(get_record("mini"))
    assert statistics is not None and statistics.certainty is not None
    for population in ("people in the wild", "relatives"):
        surest = statistics.card["certainty"][population][-1]
        assert surest["above"] == 0.99 and surest["answers"] >= 300 and surest["right"] >= 0.99
    assert policy_for(get_record("mini"), 10).certainty == statistics.certainty


def test_own_trials_are_each_photo_without_itself() -> None:
    vectors, owners, templates = people(6, 4, 0.2)
    trials = own_trials(vectors, owners, templates)
    assert trials is not None and len(trials) == 24
    found: dict[int, list[tuple[float, float]]] = {int(who): [] for who in trials.who}
    for who, own, first in sorted(zip(trials.who.tolist(), trials.own.tolist(), trials.first.tolist(), strict=True)):
        found[who].append((own, first))
    for owner, pairs in found.items():
        wanted = []
        for row in np.flatnonzero(owners == owner):
            mean = vectors[(owners == owner) & (np.arange(24) != row)].mean(axis=0)
            others = np.delete(templates, owner, axis=0) @ vectors[row]
            wanted.append((float(mean @ vectors[row] / np.linalg.norm(mean)), float(others.max())))
        np.testing.assert_allclose(pairs, sorted(wanted), atol=1e-5)


@pytest.mark.parametrize(("count", "photos"), [(2, 5), (5, 1), (0, 0)])
def test_few_people_or_single_photos_say_nothing(count: int, photos: int) -> None:
    vectors, owners, templates = people(max(count, 1), max(photos, 1), 0.0)
    assert own_trials(vectors[: count * photos], owners[: count * photos], templates[:count]) is None


def test_a_large_gallery_is_sampled_and_always_the_same() -> None:
    vectors, owners, templates = people(700, 8, 0.1)
    first, second = (own_trials(vectors, owners, templates) for _ in range(2))
    assert first is not None and second is not None and len(first) == 1000
    assert np.array_equal(first.own, second.own)


def test_people_who_do_not_look_alike_change_nothing() -> None:
    for seed in range(5):
        trials = own_trials(*people(30, 3, 0.05, seed))
        assert trials is not None
        assert adapt(POLICY, trials) == POLICY
        assert alike(POLICY, trials) == []


def test_people_who_look_alike_need_more_and_are_less_sure_and_more_photos_move_it_further() -> None:
    small, large = (own_trials(*people(count, 3, 0.85, spread=1.1)) for count in (12, 60))
    assert small is not None and large is not None
    few, many = adapt(POLICY, small), adapt(POLICY, large)
    assert POLICY.threshold < few.threshold < many.threshold
    assert POLICY.margin < min(few.margin, many.margin)
    kept = adapt(POLICY, large, threshold=False, margin=False)
    assert (kept.threshold, kept.margin) == (POLICY.threshold, POLICY.margin), "what the user chose holds"


def test_sure_answers_that_are_wrong_here_make_all_less_sure() -> None:
    wrong = np.arange(60) % 4 == 0
    own, first = (np.where(wrong, *pair).astype(np.float32) for pair in ((0.4, 0.8), (0.8, 0.4)))
    trials = OwnTrials(own, first, np.zeros(60, np.float32), np.arange(60) % 9, np.arange(60) % 9 + 1)
    found = adapt(POLICY, trials).certainty
    assert found is not None and found.intercept < CERTAINTY.intercept - 1.0
    assert found(0.8, 0.4) < 0.95 < CERTAINTY(0.8, 0.4)


@given(st.integers(3, 12), st.integers(2, 6), st.floats(0.0, 0.95), st.floats(0.2, 2.0), st.integers(0, 1000))
def test_it_never_becomes_less_careful(count: int, photos: int, shared: float, spread: float, seed: int) -> None:
    trials = own_trials(*people(count, photos, shared, seed, spread))
    assert trials is not None
    policy = adapt(POLICY, trials)
    assert policy.threshold >= POLICY.threshold and policy.margin >= POLICY.margin
    assert policy.certainty is not None and policy.certainty.intercept <= CERTAINTY.intercept
    assert policy.threshold <= 0.8 and policy.margin <= 0.25


def fill(folder: Path, shared: float, fingerprint: str, count: int = 15) -> None:
    vectors, owners, _ = people(count, 3, shared, spread=1.1 if shared > 0.5 else 0.75)
    with GalleryStore.create(folder, fingerprint, DIM) as gallery:
        gallery.add([NewFace(f"P{owner}", vector) for owner, vector in zip(owners.tolist(), vectors, strict=True)])


def test_a_gallery_says_what_its_people_need_and_a_calibration_overrides(tmp_path: Path) -> None:
    mini = get_record("mini").fingerprint
    fill(tmp_path / "kin", 0.85, mini)
    fill(tmp_path / "others", 0.05, mini)
    with GalleryStore.open(tmp_path / "others") as gallery:
        needs = needs_of(gallery)
        assert needs is not None and needs.told() is None and needs.alike == ()
    with GalleryStore.open(tmp_path / "kin") as gallery:
        needs = needs_of(gallery)
        assert needs is not None and "these people look alike to the network" in (needs.told() or "")
        assert needs.alike and all(len(pair) == 2 and pair[0] != pair[1] for pair in needs.alike)
        snapshot = gallery.snapshot()
        strangers = [("strangers", people(120, 1, 0.0, 9)[0], np.arange(120))]
        found = calibrate_gallery(
            mini,
            snapshot.persons,
            snapshot.vectors,
            snapshot.owners,
            strangers,
            0.03,
            0.1,
            enrolled=False,
            record_threshold=0.5,
        )
        assert any("these strangers are easier than those of the model's record" in note for note in found.notes)
        assert any("the enrolled people are more like each other" in note for note in found.notes)
        gallery.set_calibration(found.as_dict())
        assert needs_of(gallery) is None


def test_trials_of_a_large_gallery_are_stored_and_made_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_photos, "SMALL", 5)
    calls = []

    def counted(*arrays: np.ndarray) -> OwnTrials | None:
        calls.append(1)
        return own_trials(*arrays)

    monkeypatch.setattr(own_photos, "own_trials", counted)
    fill(tmp_path / "g", 0.3, "model")
    path = tmp_path / "g" / TRIALS_NAME
    with GalleryStore.open(tmp_path / "g") as gallery:
        first = gallery.own_trials(gallery.snapshot())
        second = gallery.own_trials(gallery.snapshot())
        assert first is not None and second is not None and np.array_equal(first.own, second.own)
        assert len(calls) == 1 and path.stat().st_mode & 0o777 == 0o600
        gallery.add([NewFace("P0", people(1, 1, 0.0, 5)[0][0])])
        gallery.own_trials(gallery.snapshot())
        assert len(calls) == 2
        data = path.read_bytes()
        path.write_bytes(data[:9] + bytes([data[9] ^ 255]) + data[10:])
        assert gallery.own_trials(gallery.snapshot()) is not None
        assert len(calls) == 3, "a damaged file is made again"


@pytest.mark.parametrize("wrong", [np.zeros(2, np.float32), np.full(3, np.nan, np.float32), np.full(3, 9, np.float32)])
def test_trials_that_cannot_be_are_refused(wrong: Float32) -> None:
    cosine, row = np.zeros(3, np.float32), np.zeros(3, np.int64)
    good = OwnTrials(cosine, cosine, cosine, row, row)
    for name in ("own", "first", "second"):
        with pytest.raises(ValueError, match="OwnTrials"):
            replace(good, **{name: wrong})  # type: ignore[arg-type]
