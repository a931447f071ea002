"""Damage is found, mended where a copy is left, and the rest can be carried out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from facepipe.errors import GalleryError
from facepipe.gallery import people
from facepipe.gallery.arrays import snapshot as snapshots
from facepipe.gallery.arrays.derived import VECTORS_NAME, drop_derived
from facepipe.gallery.care.check import check, repair
from facepipe.gallery.care.leaves import leaf_rows
from facepipe.gallery.care.salvage import salvage
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.store import GalleryStore
from tests.test_gallery_store import DIM, calibrated, content, new


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GalleryStore:
    monkeypatch.setattr(snapshots, "SMALL", 8)
    gallery = GalleryStore.create(tmp_path / "gallery", "model-1", DIM)
    gallery.add([new(f"P{i % 5}", i, source=f"{i}.jpg") for i in range(30)])
    gallery.snapshot()
    return gallery


def kinds(gallery: GalleryStore) -> set[str]:
    return {finding.kind for finding in check(gallery.database)}


def test_a_sound_gallery_has_no_findings(gallery: GalleryStore) -> None:
    assert check(gallery.database) == []


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE person SET name = 'Q' WHERE id = 2", "person"),
        ("UPDATE face SET x1 = 3 WHERE id = 4", "face"),
        ("UPDATE vector SET data = x'00' WHERE face_id = 4", "vector"),
        ("DELETE FROM vector WHERE face_id = 4", "vector"),
        ("UPDATE meta SET value = '9' WHERE key = 'dim'", "structure"),
    ],
)
def test_an_altered_row_is_found(gallery: GalleryStore, statement: str, kind: str) -> None:
    gallery.database.connection.execute(statement)
    assert kinds(gallery) == {kind}


def test_a_damaged_vector_comes_back_from_the_derived_file(gallery: GalleryStore) -> None:
    before = content(gallery.snapshot())
    gallery.database.connection.execute("UPDATE vector SET data = zeroblob(32) WHERE face_id = 4")
    (finding,) = check(gallery.database)
    assert finding.advice == "facepipe gallery check --repair repairs it"
    done, lost = repair(gallery.database, [finding])
    assert (len(done), lost) == (1, [])
    assert check(gallery.database) == []
    drop_derived(gallery.database, VECTORS_NAME)
    assert content(gallery.snapshot()) == before


def test_a_damaged_vector_without_a_copy_is_refused_then_dropped(gallery: GalleryStore) -> None:
    gallery.database.connection.execute("UPDATE vector SET data = zeroblob(32) WHERE face_id = 4")
    drop_derived(gallery.database, VECTORS_NAME)
    with pytest.raises(Exception, match="vector of face 4 is damaged: run facepipe gallery check --repair"):
        gallery.snapshot()
    (finding,) = check(gallery.database)
    assert "(P3, photo 3.jpg)" in finding.text
    assert "drops it" in finding.advice
    assert "enrol that photo again" in finding.advice
    _, (lost,) = repair(gallery.database, [finding])
    assert lost.startswith("face 4 (P3, photo 3.jpg) dropped")
    assert "enrol that photo again" in lost
    assert check(gallery.database) == []
    assert len(gallery.snapshot().vectors) == 29


def test_leftovers_of_killed_processes_go(gallery: GalleryStore) -> None:
    (gallery.folder / "vectors.f32.1-aabbccdd.tmp").write_bytes(b"half")
    assert kinds(gallery) == {"leftover"}
    repair(gallery.database, check(gallery.database))
    assert kinds(gallery) == set()


def test_a_damaged_file_is_one_finding_with_the_next_step(gallery: GalleryStore) -> None:
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'vector'"
    page = gallery.database.connection.execute(query).fetchone()[0]
    gallery.close()
    path = gallery.folder / "faces.sqlite"
    data = bytearray(path.read_bytes())
    data[(page - 1) * 8192 : page * 8192] = np.random.default_rng(0).bytes(8192)
    path.write_bytes(data)
    with GalleryStore.open(gallery.folder) as damaged:
        (finding,) = check(damaged.database)
    line = f"{finding.text}: {finding.advice}"
    assert (finding.kind, line.count("is damaged"), line.count("salvage")) == ("structure", 1, 1)
    assert "gallery check" not in line and "\n" not in line


def test_salvage_carries_what_is_intact(gallery: GalleryStore, tmp_path: Path) -> None:
    gallery.database.connection.execute("UPDATE vector SET data = zeroblob(32) WHERE face_id = 4")
    gallery.set_calibration(calibrated(0.5))
    expected = {name: {v for _, v in rows} for name, rows in content(gallery.snapshot()).items()}
    gallery.close()
    found = salvage(gallery.folder, tmp_path / "new")
    assert (found.faces, found.known, found.people) == (29, 30, 5)
    assert found.lost == [
        "face 4 (P3, photo 3.jpg): its row or its vector is damaged: enrol that photo again",
        "the calibration: measure it again with facepipe calibrate",
    ]
    with GalleryStore.open(tmp_path / "new") as mended:
        assert check(mended.database) == []
        there = {name: {v for _, v in rows} for name, rows in content(mended.snapshot()).items()}
    missing = {name: rows - there[name] for name, rows in expected.items()}
    assert sum(len(rows) for rows in missing.values()) == 1


@pytest.mark.parametrize("sealed", [False, True])
def test_salvage_reads_the_pages_below_a_damaged_one(
    tmp_path: Path, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sealed:
        monkeypatch.setenv("FACEPIPE_PASSPHRASE", "open sesame")
    secret = Secret.passphrase("open sesame") if sealed else None
    with GalleryStore.create(tmp_path / "gallery", "model-1", DIM, secret) as gallery:
        gallery.add([new(f"P{i % 5}", i, source=f"folder/{i}.jpg") for i in range(400)])
        people.remove(gallery.database, "P4")
        expected = content(gallery.snapshot(cache=False))
        query = "SELECT rootpage FROM sqlite_master WHERE name IN ('face', 'vector', 'person', 'sqlite_sequence')"
        roots = [row[0] for row in gallery.database.connection.execute(query)]
    path = tmp_path / "gallery" / "faces.sqlite"
    data = bytearray(path.read_bytes())
    for page in roots:  # everybody's name is in the list of names as well
        data[(page - 1) * 8192 : page * 8192] = np.random.default_rng(page).bytes(8192)
    path.write_bytes(data)
    found = salvage(tmp_path / "gallery", tmp_path / "new")
    assert (found.faces, found.known, found.people) == (320, 320, 4)
    assert len(found.lost) == 1 and "uncounted" in found.lost[0]
    with GalleryStore.open(tmp_path / "new") as mended:
        assert check(mended.database) == []
        there = content(mended.snapshot(cache=False))
    assert {name: {v for _, v in rows} for name, rows in there.items()} == {
        name: {v for _, v in rows} for name, rows in expected.items()
    }


@pytest.mark.parametrize("page_size", [512, 8192, 65536])
def test_pages_hold_what_sqlite_stored(tmp_path: Path, page_size: int) -> None:
    rng = np.random.default_rng(page_size)
    stored: list[tuple[int, tuple[object, ...]]] = [
        (int(i), (None, "Zoë" * int(rng.integers(400)), rng.bytes(int(rng.integers(9000))), 0.5, 0, 1, -int(i)))
        for i in rng.choice(2**40, 200, replace=False)
    ]
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c, d, e, f)")
        rows = [(row_id, *values[1:]) for row_id, values in stored]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    assert sorted(leaf_rows(tmp_path / "a.sqlite")) == sorted(stored)


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_is_found_or_harmless(gallery: GalleryStore, seed: int) -> None:
    expected = content(gallery.snapshot(cache=False))
    gallery.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    gallery.close()
    path = gallery.folder / "faces.sqlite"
    data = bytearray(path.read_bytes())
    used = np.flatnonzero(np.frombuffer(bytes(data), np.uint8))
    place = int(np.random.default_rng(seed).choice(used))
    data[place] ^= 1 << seed % 8
    path.write_bytes(data)
    try:
        damaged = GalleryStore.open(gallery.folder)
    except GalleryError:
        return
    with damaged:
        if not check(damaged.database):
            drop_derived(damaged.database, VECTORS_NAME)
            assert content(damaged.snapshot(cache=False)) == expected
