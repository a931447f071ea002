"""Step 3: exact search equals brute force, and a face's candidates do not depend on what is searched with it."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facepipe.match.approximate import IndexReport, RefinedIndex, make_proposer, proposals
from facepipe.match.exact import ExactIndex
from facepipe.match.matcher import Matcher
from facepipe.types import Candidate, Embeddings, Float32, Index, Int64

DIM = 64
PEOPLE = 1500


def units(count: int, seed: int, dim: int = DIM) -> Float32:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def matcher_of(templates: Float32, index: Index | None = None, faces: int = 1) -> Matcher:
    owners = np.repeat(np.arange(len(templates)), faces)
    names = [f"P{row}" for row in range(len(templates))]
    return Matcher("m", names, templates, templates[owners], owners, np.arange(len(owners)), index=index)


def search(matcher: Matcher, probes: Float32, k: int = 3) -> list[tuple[Candidate, ...]]:
    return matcher.search(Embeddings(probes, "m"), k)


@pytest.mark.parametrize("probes", [1, 3, 4, 700])
def test_exact_search_equals_brute_force(probes: int) -> None:
    templates, vectors = units(PEOPLE, 1), units(probes, 2)
    scores, rows = ExactIndex(templates).search(vectors, 5)
    products = vectors.astype(np.float64) @ templates.T.astype(np.float64)
    expected = np.argsort(-products, axis=1)[:, :5]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(products, expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("people", [0, 1, 2])
def test_places_without_anybody_are_marked(people: int) -> None:
    scores, rows = ExactIndex(units(people, 1)).search(units(7, 2), 4)
    assert scores.shape == rows.shape == (7, 4)
    assert (rows[:, people:] == -1).all() and (scores[:, people:] == -1.0).all()
    assert (np.sort(rows[:, :people], axis=1) == np.arange(people)).all()
    assert ExactIndex(units(people, 1)).search(units(0, 2), 4)[1].shape == (0, 4)


def test_a_mapped_file_is_searched_as_it_is(tmp_path: Path) -> None:
    units(PEOPLE, 1).tofile(tmp_path / "templates")
    mapped = np.memmap(tmp_path / "templates", np.float32, "r", shape=(PEOPLE, DIM))
    index = ExactIndex(mapped)
    assert index.search(np.asarray(mapped[[5, 7]]), 1)[1].tolist() == [[5], [7]]


def test_a_setting_of_faiss_is_as_it_was() -> None:
    before = faiss.cvar.distance_compute_blas_threshold
    ExactIndex(units(10, 1)).search(units(10, 2), 1)
    assert faiss.cvar.distance_compute_blas_threshold == before
    with pytest.raises(AssertionError):
        ExactIndex(units(10, 1)).search(units(10, 2, DIM // 2), 1)
    assert faiss.cvar.distance_compute_blas_threshold == before


@pytest.fixture(scope="module")
def refined() -> RefinedIndex:
    """An approximate index over `units(PEOPLE, 1)`, of which it does not know the last ten."""
    templates = units(PEOPLE, 1)
    known, rest = np.split(np.arange(PEOPLE, dtype=np.int64), [PEOPLE - 10])
    propose = proposals(make_proposer("pq", templates[known]), known)
    return RefinedIndex(propose, templates, rest, IndexReport("pq", 1, 1, 1, 1, 1))


@pytest.mark.parametrize("kind", ["exact", "refined"])
def test_candidates_do_not_depend_on_the_batch(kind: str, refined: RefinedIndex) -> None:
    templates = units(PEOPLE, 1)
    matcher = matcher_of(templates, refined if kind == "refined" else None, faces=2)
    rng = np.random.default_rng(3)
    probes = templates[rng.integers(0, PEOPLE, 600)] + rng.standard_normal((600, DIM)).astype(np.float32) * 0.08
    probes = np.asarray(probes / np.linalg.norm(probes, axis=1, keepdims=True), np.float32)
    together = search(matcher, probes)
    for size in (1, 3, 7, 250):
        parts = [search(matcher, probes[start : start + size]) for start in range(0, 600, size)]
        assert [found for part in parts for found in part] == together
    assert search(matcher, probes, 9)[0][:3] == together[0]
    similarity = float((templates[int(together[5][0].person[1:])].astype(np.float64) * probes[5]).sum())
    assert together[5][0].similarity == pytest.approx(similarity, abs=1e-6)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 6))
@settings(max_examples=30)
def test_people_who_are_equally_similar_are_in_order_of_their_rows(kinds: list[int], k: int) -> None:
    templates = units(4, 1)[kinds]
    (found,) = search(matcher_of(templates), units(1, 2), k)
    ranked = [(-c.similarity, int(c.person[1:])) for c in found]
    assert ranked == sorted(ranked) and len(ranked) == min(k, len(kinds))


def test_new_people_are_found_beside_an_approximate_index(refined: RefinedIndex) -> None:
    templates = units(PEOPLE, 1)
    scores, rows = refined.search(templates[-12:], 2)
    assert rows[:, 0].tolist() == list(range(PEOPLE - 12, PEOPLE))
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-6)


class Forgetful:
    """Finds nobody at some places, as an approximate index may."""

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        rows = np.full((len(vectors), k), -1, np.int64)
        rows[:, 0] = 2
        return np.zeros(rows.shape, np.float32), rows


def test_an_index_that_finds_too_few_is_no_error() -> None:
    assert [[c.person for c in found] for found in search(matcher_of(units(5, 1), Forgetful()), units(2, 2))] == [
        ["P2"],
        ["P2"],
    ]
