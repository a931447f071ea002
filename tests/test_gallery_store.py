"""The gallery's database: what is added is there, as one consistent picture."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facepipe.errors import (
    GalleryAccessError,
    GalleryDamagedError,
    GalleryError,
    GalleryFullError,
    GalleryLockedError,
    GalleryMissingError,
    GalleryModelError,
    UsageError,
)
from facepipe.gallery import people
from facepipe.gallery.arrays import derived, room
from facepipe.gallery.arrays import snapshot as snapshots
from facepipe.gallery.arrays.derived import VECTORS_NAME, drop_derived
from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.care.check import check
from facepipe.gallery.storage import schema
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.storage.disk import sqlite_errors
from facepipe.gallery.storage.lock import WriterLock
from facepipe.gallery.storage.schema import MIGRATIONS, migrate, schema_version
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.match.templates import unit_means
from facepipe.types import Float32

DIM = 8


def calibrated(threshold: float) -> dict[str, object]:
    return {"threshold": threshold, "margin": 0.0, "target_fpir": 0.01, "gallery_size": 2, "model": "fake:1"}


def unit(seed: int, dim: int = DIM) -> Float32:
    vector = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


def new(person: str, seed: int, **more: object) -> NewFace:
    return NewFace(person, unit(seed), content=hashlib.sha256(b"%d" % seed).hexdigest(), **more)  # type: ignore[arg-type]


@pytest.fixture
def gallery(tmp_path: Path) -> GalleryStore:
    return GalleryStore.create(tmp_path / "gallery", "model-1", DIM)


def content(snapshot: GallerySnapshot) -> dict[str, set[tuple[int, bytes]]]:
    """What a snapshot says, whatever the order of its rows."""
    found: dict[str, set[tuple[int, bytes]]] = {name: set() for name in snapshot.persons}
    for face_id, owner, vector in zip(snapshot.face_ids, snapshot.owners, snapshot.vectors, strict=True):
        found[snapshot.persons[owner]].add((int(face_id), vector.tobytes()))
    return found


def assert_templates_are_means(snapshot: GallerySnapshot) -> None:
    for row in range(len(snapshot.persons)):
        mean = snapshot.vectors[snapshot.faces_of(row)].mean(axis=0)
        np.testing.assert_allclose(snapshot.templates[row], mean / np.linalg.norm(mean), atol=1e-5)


def test_an_empty_gallery_gives_an_empty_snapshot(gallery: GalleryStore) -> None:
    snapshot = gallery.snapshot()
    assert snapshot.persons == ()
    assert snapshot.vectors.shape == snapshot.templates.shape == (0, DIM)
    assert snapshot.fingerprint == "model-1"


def test_added_faces_are_there_after_opening_again(gallery: GalleryStore) -> None:
    ids = gallery.add([new("Ann", 1), new("Bob", 2), new("Ann", 3)])
    gallery.close()
    snapshot = GalleryStore.open(gallery.folder).snapshot()
    assert content(snapshot) == {
        "Ann": {(ids[0], unit(1).tobytes()), (ids[2], unit(3).tobytes())},
        "Bob": {(ids[1], unit(2).tobytes())},
    }
    assert_templates_are_means(snapshot)


def test_the_same_photo_is_enrolled_once_for_a_person(gallery: GalleryStore) -> None:
    assert gallery.add([new("Ann", 1)]) != [None]
    assert gallery.add([new("Ann", 1)]) == [None]
    assert gallery.add([new("Bob", 1)]) != [None]
    assert len(gallery.snapshot().vectors) == 2


def test_every_write_raises_the_generation_and_no_snapshot_changes(gallery: GalleryStore) -> None:
    gallery.add([new("Ann", 1)])
    before = gallery.snapshot()
    generation = gallery.generation()
    people.rename(gallery.database, "Ann", "Anna")
    assert gallery.generation() == generation + 1 > before.generation
    assert before.persons == ("Ann",)
    assert gallery.snapshot().persons == ("Anna",)
    with pytest.raises(ValueError, match="read-only"):
        before.vectors[0] = 0


def test_a_failed_write_leaves_nothing(gallery: GalleryStore) -> None:
    gallery.add([new("Ann", 1)])
    with pytest.raises(RuntimeError), gallery.database.write("test") as generation:
        people.ensure_person(gallery.database, "Bob", generation)
        raise RuntimeError
    assert gallery.snapshot().persons == ("Ann",)
    assert gallery.generation() == 1


def test_calibration_comes_back(gallery: GalleryStore) -> None:
    assert gallery.calibration() is None
    gallery.set_calibration(calibrated(0.25))
    assert gallery.calibration() == calibrated(0.25)


def test_another_model_is_refused_with_a_way_out(gallery: GalleryStore) -> None:
    gallery.require_model("model-1")
    with pytest.raises(GalleryModelError, match="reembed"):
        gallery.require_model("model-2")
    with pytest.raises(ValueError, match=r"expected \(8,\)"):
        gallery.add([NewFace("Ann", unit(1, 4))])


def test_a_missing_and_a_foreign_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(GalleryMissingError, match="facepipe enroll"):
        GalleryStore.open(tmp_path)
    connection = sqlite3.connect(tmp_path / "faces.sqlite")
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(GalleryError, match="not a facepipe gallery"):
        GalleryStore.open(tmp_path)


def test_a_gallery_is_not_made_over_another(gallery: GalleryStore) -> None:
    gallery.add([new("Ann", 1)])
    with pytest.raises(GalleryError, match="already"):
        GalleryStore.create(gallery.folder, "model-2", DIM)
    assert gallery.snapshot().persons == ("Ann",)


def test_rename_merge_split_remove(gallery: GalleryStore) -> None:
    database = gallery.database
    ids = gallery.add([new("Ann", 1), new("Bob", 2), new("Bob", 3), new("Cy", 4)])
    with pytest.raises(UsageError, match="merge"):
        people.rename(database, "Ann", "Bob")
    with pytest.raises(UsageError, match="no person named 'Zoe'"):
        people.remove(database, "Zoe")
    assert people.merge(database, ["Bob"], "Ann") == 2
    assert {p.name: p.faces for p in people.people(database)} == {"Ann": 3, "Cy": 1}
    face = ids[2]
    assert face is not None
    assert people.split(database, "Ann", [face], "Dee") == 1
    with pytest.raises(UsageError, match="not one of"):
        people.remove(database, "Cy", [face])
    people.remove(database, "Cy")
    snapshot = gallery.snapshot()
    assert content(snapshot).keys() == {"Ann", "Dee"}
    assert_templates_are_means(snapshot)


def test_merge_keeps_a_photo_of_both_once(gallery: GalleryStore) -> None:
    gallery.add([new("Ann", 1), new("Bob", 1), new("Bob", 2)])
    assert people.merge(gallery.database, ["Bob"], "Ann") == 1
    assert len(gallery.snapshot().vectors) == 2


def test_names_are_compared_in_one_normal_form(gallery: GalleryStore) -> None:
    gallery.add([new("Zoe\u0308", 1), new(" Zo\u00eb ", 2)])
    assert gallery.snapshot().persons == ("Zo\u00eb",)
    with pytest.raises(UsageError, match="not a name"):
        gallery.add([new("a\nb", 3)])


def test_expired_faces_are_not_in_the_snapshot(gallery: GalleryStore) -> None:
    gallery.add([new("Ann", 1, expires=1.0), new("Bob", 2, expires=4e9)])
    assert gallery.snapshot().persons == ("Bob",)


def test_a_lock_that_times_out_says_who_holds_it(gallery: GalleryStore) -> None:
    gallery.database.lock_timeout = 0.05
    with WriterLock(gallery.folder).hold("reembed", 1.0):
        with pytest.raises(GalleryLockedError, match=r"process \d+ on .+ \(reembed, since 20"):
            gallery.add([new("Ann", 1)])
        assert gallery.snapshot().persons == ()
    gallery.add([new("Ann", 1)])


@pytest.mark.parametrize("name", ["lock", "last-write", "vectors.f32"])
def test_no_link_in_a_gallery_is_written_through(
    gallery: GalleryStore, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SMALL", 1)
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (gallery.folder / name).unlink(missing_ok=True)
    (gallery.folder / name).symlink_to(outside)
    with contextlib.suppress(GalleryAccessError):
        gallery.add([new("Ann", 1)])
        gallery.snapshot()
    assert outside.read_text() == "mine"


def test_the_journal_refuses_to_be_changed_and_holds_no_names(gallery: GalleryStore) -> None:
    gallery.add([new("Ann", 1)])
    people.remove(gallery.database, "Ann")
    connection = gallery.database.connection
    for statement in ("UPDATE journal SET actor = 'x'", "DELETE FROM journal"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    rows = connection.execute("SELECT action, details FROM journal").fetchall()
    assert [row[0] for row in rows] == ["enroll", "remove"]
    assert "Ann" not in repr(rows)


def test_migrations_run_once_each_from_any_older_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(1, len(MIGRATIONS) + 1):
        connection = sqlite3.connect(":memory:", isolation_level=None)
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:start])
            migrate(connection)
        assert schema_version(connection) == start
        migrate(connection)
        migrate(connection)
        assert connection.execute("SELECT number FROM migration").fetchall() == [(m[0],) for m in MIGRATIONS]
        assert schema_version(connection) == MIGRATIONS[-1][0]
        connection.close()


def test_a_gallery_of_a_newer_facepipe_is_refused(gallery: GalleryStore) -> None:
    gallery.database.connection.execute("INSERT INTO migration VALUES (99, 'from the future', 0)")
    gallery.close()
    with pytest.raises(GalleryError, match="install a newer facepipe"):
        GalleryStore.open(gallery.folder)


@pytest.mark.parametrize("damage", ["nothing", "missing", "truncated", "one byte", "other gallery"])
def test_the_derived_file_is_rebuilt_when_missing_or_damaged(
    gallery: GalleryStore, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SMALL", 8)
    gallery.add([new(f"P{i % 7}", i) for i in range(30)])
    expected = content(gallery.snapshot())
    path = gallery.folder / VECTORS_NAME
    good = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(good[:-100])
    elif damage == "one byte":
        path.write_bytes(good[:4100] + bytes([good[4100] ^ 1]) + good[4101:])
    elif damage == "other gallery":
        other = GalleryStore.create(tmp_path / "other", "model-1", DIM)
        other.add([new("Q", 100 + i) for i in range(30)])
        other.snapshot()
        path.write_bytes((other.folder / VECTORS_NAME).read_bytes())
    snapshot = gallery.snapshot()
    assert content(snapshot) == expected
    assert_templates_are_means(snapshot)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "move", "drop"]), st.integers(0, 40)), max_size=10),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_a_snapshot_over_a_derived_file_equals_one_from_the_rows(steps: list[tuple[str, int]], large: bool) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(snapshots, "SMALL", 8)
    patch.setattr(snapshots, "_CHUNK", 7)
    if large:
        _call_it_large(patch)
    with tempfile.TemporaryDirectory() as folder, GalleryStore.create(Path(folder), "m", DIM) as gallery:
        gallery.add([new(f"P{i % 5}", i) for i in range(20)])
        gallery.snapshot()
        assert (gallery.folder / VECTORS_NAME).exists()
        for step, number in steps:
            names = [p.name for p in people.people(gallery.database)]
            if step == "add":
                gallery.add([new(f"P{number % 8}", 1000 + number)])
            elif names and step == "remove":
                people.remove(gallery.database, names[number % len(names)])
            elif names and step == "move" and names[number % len(names)] != f"P{number % 8}":
                people.merge(gallery.database, [names[number % len(names)]], f"P{number % 8}")
            elif names and step not in {"add", "remove", "move"}:
                faces = people.faces_of(gallery.database, names[number % len(names)])
                if faces:
                    people.remove(gallery.database, names[number % len(names)], [faces[0].id])
        over = gallery.snapshot(cache=False)
        drop_derived(gallery.database, VECTORS_NAME)
        plain = gallery.snapshot(cache=False)
        assert content(over) == content(plain)
        order = [over.persons.index(name) for name in plain.persons]
        np.testing.assert_allclose(over.templates[order], plain.templates, atol=1e-6)
        assert_templates_are_means(plain)
    patch.undo()


def _call_it_large(patch: pytest.MonkeyPatch) -> None:
    for module in (room, snapshots, derived):
        patch.setattr(module, "LARGE", 100)


def test_large_vectors_are_mapped_and_leave_nothing_behind(
    gallery: GalleryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _call_it_large(monkeypatch)
    gallery.add([new(f"P{i % 7}", i) for i in range(30)])
    files = {path.name for path in gallery.folder.iterdir()}
    snapshot = gallery.snapshot()
    assert {path.name for path in gallery.folder.iterdir()} == files | {VECTORS_NAME}
    people.remove(gallery.database, "P3")
    fresh = gallery.snapshot()
    for array in (snapshot.vectors, fresh.vectors, fresh.templates):
        base: Any = array
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, (np.memmap, mmap.mmap))
    assert len(snapshot.persons) == 7, "a snapshot stays as it was although the file was written anew"
    assert_templates_are_means(snapshot)
    assert_templates_are_means(fresh)


def test_large_vectors_of_a_sealed_gallery_lie_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _call_it_large(monkeypatch)
    monkeypatch.setattr(tempfile, "TemporaryFile", Mock(side_effect=AssertionError))
    with GalleryStore.create(tmp_path / "sealed", "model-1", DIM, Secret("key-file", b"k" * 32)) as gallery:
        gallery.add([new(f"P{i % 7}", i) for i in range(30)])
        assert_templates_are_means(gallery.snapshot())


def test_a_full_disk_is_one_line_where_vectors_are_large(
    gallery: GalleryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _call_it_large(monkeypatch)
    gallery.add([new(f"P{i % 7}", i) for i in range(30)])
    monkeypatch.setattr(tempfile, "TemporaryFile", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(GalleryFullError, match="the disk is full"):
        gallery.snapshot()


def test_every_byte_of_a_large_file_is_checked_when_asked(
    gallery: GalleryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _call_it_large(monkeypatch)
    monkeypatch.setattr(derived, "_PIECE", 64)
    gallery.add([new(f"P{i % 7}", i) for i in range(30)])
    gallery.snapshot()
    path = gallery.folder / VECTORS_NAME
    good = path.read_bytes()
    places = range(4096, 4096 + 4 * DIM * 30, 50)  # the vectors; the names lie before them
    found = 0
    for place in places:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        found += [finding.kind for finding in check(gallery.database)] == ["vectors"]
    assert found == len(places)


def test_unit_means_keep_single_vectors_bit_for_bit() -> None:
    rows = np.stack([unit(1), unit(2), unit(3), -unit(3)])
    means = unit_means(rows, np.array([0, 1, 2]))
    assert means[0].tobytes() == rows[0].tobytes()
    assert means[2].tobytes() == rows[2].tobytes()
    assert unit_means(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)).shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "name", "kind", "code"),
    [
        ("database or disk is full", "SQLITE_FULL", GalleryFullError, 3),
        ("disk I/O error", "SQLITE_IOERR_WRITE", GalleryFullError, 3),
        ("disk I/O error", "SQLITE_IOERR_READ", GalleryError, 5),
        ("database is locked", "SQLITE_BUSY", GalleryLockedError, 5),
        ("attempt to write a readonly database", "SQLITE_READONLY", GalleryAccessError, 5),
        ("database disk image is malformed", "SQLITE_CORRUPT", GalleryDamagedError, 5),
    ],
)
def test_what_sqlite_refuses_is_one_line_with_its_exit_code(
    text: str, name: str, kind: type[GalleryError], code: int
) -> None:
    def fail() -> None:
        error = sqlite3.OperationalError(text)
        error.sqlite_errorname = name
        raise error

    with pytest.raises(kind) as caught, sqlite_errors(Path("here")):
        fail()
    message = str(caught.value)
    assert (type(caught.value), caught.value.exit_code) == (kind, code)
    assert message.startswith("here: ") and "\n" not in message
    assert "gallery check" not in message and message.count("is full") <= 1
