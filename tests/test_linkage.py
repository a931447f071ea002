"""Average linkage without a matrix gives what the definition gives, with and without pairs that may not be joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facepipe.groups.linkage import link, link_down, mean_cosine
from facepipe.groups.neighbours import EXACT_COMPARISONS, CellIndex, neighbours_of
from facepipe.match.exact import ExactIndex
from facepipe.types import Float32


def naive(vectors: Float32, threshold: float, tokens: Sequence[Sequence[int] | None]) -> list[int]:
    """Join the two most similar clusters again and again, by the mean of all their pairs."""
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    clusters, carried = [[place] for place in range(len(vectors))], [set(some or ()) for some in tokens]
    while True:
        pairs = [
            (float(cosines[np.ix_(clusters[a], clusters[b])].mean()), a, b)
            for a in range(len(clusters))
            for b in range(a + 1, len(clusters))
            if not carried[a] & carried[b]
        ]
        best = max(pairs, default=(-2.0, 0, 0), key=lambda pair: pair[0])
        if best[0] < threshold:
            break
        _, a, b = best
        clusters[a] += clusters.pop(b)
        carried[a] |= carried.pop(b)
    labels = {place: min(cluster) for cluster in clusters for place in cluster}
    return [labels[place] for place in range(len(vectors))]


def crowd(seed: int, count: int, dim: int, people: int) -> Float32:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, dim))
    vectors = rng.normal(size=(count, dim)) + 1.5 * centres[rng.integers(0, people, count)]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 40),
    dim=st.sampled_from([4, 16]),
    people=st.integers(1, 6),
    threshold=st.floats(0.0, 0.8),
    photos=st.integers(1, 40),
)
def test_clusters_are_those_of_the_definition(
    seed: int, count: int, dim: int, people: int, threshold: float, photos: int
) -> None:
    vectors = crowd(seed, count, dim, people)
    rng = np.random.default_rng(seed)
    tokens = [(int(photo),) if photo % 4 else None for photo in rng.integers(0, photos, count)]
    assert link(vectors, threshold, tokens).tolist() == naive(vectors, threshold, tokens)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), high=st.floats(0.4, 0.8), low=st.floats(0.1, 0.4))
def test_going_on_from_where_it_stopped_ends_as_at_once(seed: int, high: float, low: float) -> None:
    vectors = crowd(seed, 60, 16, 5)
    begun = link(vectors, high)
    assert link(vectors, low, (), begun).tolist() == link(vectors, low).tolist()


def test_more_neighbours_than_are_remembered_are_found() -> None:
    """Every face is nearest to those of its own photo, with which it may not be joined."""
    vectors = crowd(1, 200, 8, 2)
    tokens = [(int(vectors[place, 0] > 0),) for place in range(200)]
    labels = link(vectors, 0.0, tokens)
    assert labels.tolist() == naive(vectors, 0.0, tokens)


def test_many_copies_of_a_picture_are_one_cluster_at_once() -> None:
    vectors = np.repeat(crowd(2, 3, 16, 3), 2000, axis=0)
    labels = link(vectors, 0.99)
    assert np.unique(labels).tolist() == [0, 2000, 4000]
    apart = link(vectors[:4], 0.99, [("photo",)] * 4)
    assert apart.tolist() == [0, 1, 2, 3]


def test_a_threshold_that_depends_on_the_number_of_people_is_found() -> None:
    vectors = crowd(3, 300, 32, 6)

    def limit(clusters: int) -> float:
        return 0.1 + 0.1 * float(np.log10(clusters))

    labels, threshold = link_down(vectors, limit)
    assert threshold == pytest.approx(limit(len(np.unique(labels))), abs=0.01)
    assert labels.tolist() == link(vectors, threshold).tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), people=st.integers(2, 40), slope=st.floats(0.02, 0.3))
def test_going_on_from_what_was_found_moves_nothing(seed: int, people: int, slope: float) -> None:
    """Another run without news: the threshold of the first one, and its clusters."""
    vectors = crowd(seed, 150, 24, people)

    def limit(clusters: int) -> float:
        return 0.1 + slope * float(np.log10(clusters))

    labels, threshold = link_down(vectors, limit)
    again, same = link_down(vectors, limit, (), labels)
    assert same == threshold
    assert again.tolist() == labels.tolist()


def test_neighbours_in_cells_are_found_as_often_as_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = crowd(5, 3000, 32, 60)
    assert CellIndex(vectors).recall >= 0.99
    exact = link(vectors, 0.5)
    monkeypatch.setattr("facepipe.groups.neighbours.EXACT_COMPARISONS", 0)
    monkeypatch.setattr("facepipe.groups.neighbours.SHARE", 1.0)
    found = link(vectors, 0.5)
    pairs = [(labels[:, None] == labels[None]).ravel() for labels in (exact, found)]
    assert np.mean(pairs[0] == pairs[1]) > 0.99


def test_cells_are_used_where_few_of_them_are_enough() -> None:
    """Else comparing all with all is faster: among people who are not far from each other most cells would be looked into."""
    tight, loose = crowd(6, 4000, 32, 60), np.random.default_rng(6).normal(size=(4000, 64)).astype(np.float32)
    tight = np.asarray(np.repeat(tight[:200], 20, axis=0) + 0.01 * loose[:, :32], np.float32)
    loose /= np.linalg.norm(loose, axis=1, keepdims=True)
    most = EXACT_COMPARISONS // 4000 + 1
    assert isinstance(neighbours_of(tight, most), CellIndex)
    assert isinstance(neighbours_of(loose, most), ExactIndex)
    assert isinstance(neighbours_of(tight, 4000), ExactIndex)


def test_the_mean_cosine_of_a_cluster() -> None:
    vectors = crowd(4, 9, 16, 1)
    pairs = (vectors @ vectors.T)[~np.eye(9, dtype=bool)]
    assert mean_cosine(vectors.mean(axis=0), 9) == pytest.approx(float(pairs.mean()), abs=1e-5)
    assert mean_cosine(vectors[0], 1) == 1.0
