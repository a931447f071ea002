"""Whose faces are these? The order of photos and runs does not matter; what contradicts itself is settled by support."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from facepipe.gallery.enrolment.judging import Judge, are_several, groups_of
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.types import Float32

LIMIT, SAME = 0.4, 0.95


def near(centre: int, noise: int, spread: float = 0.6, dim: int = 64) -> Float32:
    """A unit vector around a centre; two of one centre have a cosine of about 1 / (1 + spread**2)."""
    middle = np.random.default_rng(centre).standard_normal(dim)
    odd = np.random.default_rng((centre, noise, 7)).standard_normal(dim)
    vector = middle / np.linalg.norm(middle) + spread * odd / np.linalg.norm(odd)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


Faces = Sequence[tuple[str, Float32]]


def judged(folder: Path, faces: Faces, *, store: bool = False) -> list[bool]:
    """Judge faces against the gallery in `folder`; store: and enrol those that pass."""
    with GalleryStore.create_or_open(folder, "fake:1", 64) as gallery:
        vectors = np.array([vector for _, vector in faces], np.float32)
        verdicts = Judge(gallery.snapshot(), [name for name, _ in faces], vectors, limit=LIMIT, same=SAME).verdicts()
        accepted = [verdict.accepted for verdict in verdicts]
        if store:
            gallery.add([NewFace(name, vector) for (name, vector), ok in zip(faces, accepted, strict=True) if ok])
    return accepted


def a_house() -> list[tuple[str, Float32]]:
    """Six people with five photos each; one photo of Bea lies among Ann's, before Bea's own."""
    faces = [
        (name, near(place, number))
        for place, name in enumerate(("Ann", "Bea", "Cyd", "Dot", "Eve", "Flo"))
        for number in range(5)
    ]
    return [("Ann", near(1, 99)), *faces]


def test_a_stray_photo_is_refused_although_its_own_person_comes_later(tmp_path: Path) -> None:
    assert judged(tmp_path / "g", a_house()) == [False, *[True] * 30]


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.permutations(range(31)))
def test_the_order_of_photos_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: Sequence[int]) -> None:
    faces = a_house()
    accepted = judged(tmp_path_factory.mktemp("g") / "g", [faces[place] for place in order])
    assert [faces[place][0] for place, ok in zip(order, accepted, strict=True) if not ok] == ["Ann"]


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from("ABCD"), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=24, unique=True
    )
)
def test_a_second_run_adds_nothing(
    tmp_path_factory: pytest.TempPathFactory, labels: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("g") / "g"
    faces = [(name, near(centre, noise, 0.9)) for name, centre, noise in labels]
    first = judged(folder, faces, store=True)
    refused = [face for face, ok in zip(faces, first, strict=True) if not ok]
    names = {name for (name, _), ok in zip(faces, first, strict=True) if ok}
    # Whoever is there keeps what was decided; somebody of whom nothing was enrolled begins anew.
    again = [face for face in refused if face[0] in names]
    assert not again or not any(judged(folder, again))


def test_the_same_face_under_two_names_stays_with_whom_others_support(tmp_path: Path) -> None:
    copy = near(1, 0)
    faces = [("Ann", copy), ("Ann", near(0, 1)), ("Bea", near(1, 1)), ("Bea", copy), ("Bea", near(1, 2))]
    assert judged(tmp_path / "g", faces) == [False, True, True, True, True]
    assert judged(tmp_path / "h", [("Ann", copy), ("Bea", copy)]) == [True, False], (
        "the first, where nothing else decides"
    )


def test_a_photo_of_an_enrolled_person_is_refused_however_much_that_persons_photos_differ(tmp_path: Path) -> None:
    different = [("Ann", near(centre, 0)) for centre in range(40, 46)]
    assert all(judged(tmp_path / "g", different, store=True))
    assert judged(tmp_path / "g", [("Bea", different[3][1])]) == [False]
    mean = np.mean([vector for _, vector in different], axis=0)
    assert float(different[3][1] @ mean / np.linalg.norm(mean)) < 0.6


def test_copies_of_a_refused_face_are_refused_with_it(tmp_path: Path) -> None:
    faces = [*a_house(), ("Ann", near(1, 99))]
    with GalleryStore.create(tmp_path / "g", "fake:1", 64) as gallery:
        vectors = np.array([vector for _, vector in faces], np.float32)
        verdicts = Judge(gallery.snapshot(), [name for name, _ in faces], vectors, limit=LIMIT, same=SAME).verdicts()
    assert verdicts[-1].copy_of == 0 and not verdicts[0].accepted and not verdicts[-1].accepted
    assert verdicts[0].name == "Bea" and verdicts[0].other > LIMIT > verdicts[0].own


@pytest.mark.parametrize(
    ("people", "photos", "several"),
    [
        (1, 3, False),
        (1, 12, False),
        (2, 2, False),
        (2, 3, True),
        (2, 6, True),
        (3, 3, True),
        (4, 1, True),
        (30, 3, True),
    ],
)
def test_a_pile_is_told_from_a_person(people: int, photos: int, several: bool) -> None:
    vectors = np.array([near(person, photo) for person in range(people) for photo in range(photos)])
    sizes = groups_of(vectors, 0.36)
    assert sum(sizes) == len(vectors) and are_several(sizes) is several
    if several:
        assert 0.6 * people <= len(sizes) <= people


def test_a_person_with_some_photos_of_another_is_not_several() -> None:
    vectors = np.array([near(0, photo) for photo in range(7)] + [near(1, photo) for photo in range(4)])
    assert groups_of(vectors, 0.36) == [7, 4] and not are_several([7, 4])


def test_a_large_pile_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.array([near(person, photo) for photo in range(20) for person in range(50)])
    assert are_several(groups_of(vectors, 0.36))
    assert not are_several(groups_of(np.array([near(3, photo) for photo in range(900)]), 0.36))
