"""Indexes: exact answers equal brute force; approximate ones are measured, refused when poor, and follow changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepipe.errors import GalleryAccessError, UsageError
from facepipe.gallery import people
from facepipe.gallery.arrays.derived import INDEX_NAME, read_derived, write_derived
from facepipe.gallery.arrays.index_file import build_index, load_index
from facepipe.gallery.arrays.own_mark import key_path
from facepipe.gallery.care.check import check
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.match.approximate import RefinedIndex
from facepipe.match.exact import ExactIndex
from facepipe.types import Float32

DIM = 32
PEOPLE = 2000


def units(count: int, seed: int) -> Float32:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GalleryStore:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    gallery = GalleryStore.create(tmp_path / "gallery", "model-1", DIM)
    gallery.add([NewFace(f"P{i}", vector) for i, vector in enumerate(units(PEOPLE, 0))])
    return gallery


def names(gallery: GalleryStore, probes: Float32) -> list[str]:
    snapshot = gallery.snapshot()
    index = load_index(gallery.database, snapshot)
    assert isinstance(index, RefinedIndex)
    scores, rows = index.search(probes, 1)
    np.testing.assert_allclose(scores[:, 0], (snapshot.templates[rows[:, 0]] * probes).sum(axis=1), atol=1e-5)
    return [snapshot.persons[row] for row in rows[:, 0]]


def test_search_is_exact_unless_asked_otherwise(gallery: GalleryStore) -> None:
    assert isinstance(load_index(gallery.database, gallery.snapshot()), ExactIndex)


@pytest.mark.parametrize("kind", ["pq", "ivf", "hnsw"])
def test_an_index_reports_its_recall_and_finds_people(gallery: GalleryStore, kind: str) -> None:
    report = build_index(gallery.database, kind, min_recall=0.5)
    assert report.recall > (0.7 if kind == "ivf" else 0.9)
    assert report.probes == 1000
    assert names(gallery, units(PEOPLE, 0)[:50]) == [f"P{i}" for i in range(50)]


def test_a_poor_index_is_refused_and_nothing_changes(gallery: GalleryStore) -> None:
    with pytest.raises(UsageError, match=r"finds the right person of 2,000 in .* choose another kind"):
        build_index(gallery.database, "pq", min_recall=1.1)
    assert not (gallery.folder / INDEX_NAME).exists()
    assert isinstance(load_index(gallery.database, gallery.snapshot()), ExactIndex)
    with pytest.raises(UsageError, match="no index kind"):
        build_index(gallery.database, "magic")


def test_an_index_follows_changes_without_being_made_again(gallery: GalleryStore) -> None:
    build_index(gallery.database, "pq", min_recall=0.5)
    stamp = (gallery.folder / INDEX_NAME).stat().st_mtime_ns
    old, fresh = units(PEOPLE, 0), units(3, 5)
    gallery.add([NewFace("New", fresh[0]), NewFace("P3", fresh[1])])
    people.remove(gallery.database, "P7")
    people.rename(gallery.database, "P8", "Renamed")
    people.merge(gallery.database, ["P9"], "P10")
    found = names(gallery, np.stack([fresh[0], fresh[1], old[8], old[9], old[7]]))
    assert found[:4] == ["New", "P3", "Renamed", "P10"]
    assert found[4] != "P7"
    assert (gallery.folder / INDEX_NAME).stat().st_mtime_ns == stamp


@pytest.mark.parametrize("damage", ["missing", "one byte", "truncated"])
def test_a_missing_or_damaged_index_is_made_again(gallery: GalleryStore, damage: str) -> None:
    build_index(gallery.database, "pq", min_recall=0.5)
    path = gallery.folder / INDEX_NAME
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "one byte":
        path.write_bytes(data[:5000] + bytes([data[5000] ^ 4]) + data[5001:])
    else:
        path.write_bytes(data[:-50])
    assert {finding.kind for finding in check(gallery.database)} == {"index"}
    told: list[str] = []
    assert isinstance(load_index(gallery.database, gallery.snapshot(), told.append), RefinedIndex)
    assert len(told) == 1
    assert "made again" in told[0]
    assert check(gallery.database) == []


@pytest.mark.parametrize("whose", ["another user's", "another's whose report was changed", "nobody's"])
def test_faiss_is_given_no_bytes_that_this_user_did_not_make(
    gallery: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    import faiss

    if whose == "another user's":
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other"))
    build_index(gallery.database, "pq", min_recall=0.5)
    snapshot = gallery.snapshot()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    facts, arrays = _read(gallery)
    if whose == "another's whose report was changed":
        with gallery.database.lock("forge"):
            write_derived(
                gallery.database,
                INDEX_NAME,
                snapshot.generation,
                arrays,
                report={**facts["report"], "recall": 0.99999},
                mark=facts["mark"],
            )
    if whose == "nobody's":
        with gallery.database.lock("forge"):
            write_derived(gallery.database, INDEX_NAME, snapshot.generation, arrays, report=facts["report"], mark=None)
    original, read = faiss.deserialize_index, []

    def deserialize(data: Any) -> Any:
        read.append(_read(gallery)[0]["mark"])
        return original(data)

    monkeypatch.setattr(faiss, "deserialize_index", deserialize)
    told: list[str] = []
    assert isinstance(load_index(gallery.database, snapshot, told.append), RefinedIndex)
    assert told == [f"{gallery.folder / INDEX_NAME}: was not made by this user on this machine: made again"]
    assert len(read) == 1 and read[0] is not None, "only the one that was made again is read"
    told.clear()
    load_index(gallery.database, snapshot, told.append)
    assert told == [], "the second time it is this user's own"


def test_without_a_place_for_the_key_no_index_is_stored(
    gallery: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(GalleryAccessError, match="an index needs a key of yours there"):
        build_index(gallery.database, "pq", min_recall=0.5)
    assert not (gallery.folder / INDEX_NAME).exists()


def test_the_key_is_this_users_alone(gallery: GalleryStore) -> None:
    build_index(gallery.database, "pq", min_recall=0.5)
    assert key_path().stat().st_mode & 0o777 == 0o600


def _read(gallery: GalleryStore) -> tuple[dict[str, Any], dict[str, Any]]:
    with gallery.database.read():
        facts, arrays = read_derived(gallery.database, INDEX_NAME)
    return facts, {name: array.copy() for name, array in arrays.items()}


def test_exact_takes_the_index_away(gallery: GalleryStore) -> None:
    build_index(gallery.database, "pq", min_recall=0.5)
    build_index(gallery.database, "exact")
    assert isinstance(load_index(gallery.database, gallery.snapshot()), ExactIndex)
    assert not (gallery.folder / INDEX_NAME).exists()
