"""Erasing, forgetting, sealing: what must be gone is gone from the bytes of the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facepipe.errors import GalleryError, InputError, UsageError
from facepipe.gallery import people
from facepipe.gallery.arrays import snapshot as snapshots
from facepipe.gallery.chips import StoredChip
from facepipe.gallery.privacy import erasing as privacy
from facepipe.gallery.privacy import sealing
from facepipe.gallery.storage.codec import Secret, WrongKeyError
from facepipe.gallery.store import GalleryStore, NewFace
from tests.test_gallery_store import DIM, content, new, unit

KEY = Secret("key-file", b"k" * 32)
OTHER = Secret("key-file", b"o" * 32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshots, "SMALL", 8)
    return tmp_path / "gallery"


def chip(text: bytes) -> StoredChip:
    return StoredChip(text, 0.0, 0.0, 1.0)


def fill(gallery: GalleryStore) -> None:
    gallery.add([new("Xanthippe", i, source=f"/photos/Xanthippe/{i}.jpg", chip=chip(b"XCHIP%d" % i)) for i in range(8)])
    gallery.add([new("Bob", 50 + i, source=f"/photos/Bob/{i}.jpg", chip=chip(b"BCHIP%d" % i)) for i in range(8)])
    gallery.add([new("Bob", 70, source="/photos/Bob with xanthippe.jpg"), new("Xan", 71, source="/photos/Xan/1.jpg")])
    gallery.snapshot()


def found_in(folder: Path, needle: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if needle.lower() in path.read_bytes().lower()]


def traces(folder: Path) -> list[str]:
    needles = [b"Xanthippe", *(unit(i).tobytes() for i in range(8)), *(b"XCHIP%d" % i for i in range(8))]
    return [name for needle in needles for name in found_in(folder, needle)]


def test_an_erase_leaves_no_byte_of_the_person(folder: Path) -> None:
    gallery = GalleryStore.create(folder, "model-1", DIM)
    fill(gallery)
    assert {"faces.sqlite-wal", "vectors.f32"} <= set(traces(folder)), "the test must be able to find what it looks for"
    assert privacy.erase(gallery.database, "Xanthippe") == 8
    assert traces(folder) == []
    assert found_in(folder, unit(50).tobytes()), "the others are still there"
    gallery.snapshot()
    gallery.close()
    assert traces(folder) == []
    with GalleryStore.open(folder) as again:
        assert sorted(again.snapshot().persons) == ["Bob", "Xan"]
        sources = [face.source for face in people.faces_of(again.database, "Bob")]
        assert sources.count(None) == 1, "a path of somebody else that mentions the name is blanked"
        journal = again.database.connection.execute("SELECT action FROM journal").fetchall()
        assert ("erase",) in journal


@pytest.mark.parametrize("sealed", [False, True])
def test_an_erase_takes_the_names_of_everybody_who_became_this_person(folder: Path, sealed: bool) -> None:
    gallery = GalleryStore.create(folder, "model-1", DIM, KEY if sealed else None)
    fill(gallery)
    gallery.add([new("Zenobia", 200, source="/photos/Zenobia/1.jpg"), new("Second", 201)])
    gallery.add([new("Bob", 202, source="/photos/Bob with Zenobia and Xanthippe.jpg")])
    people.rename(gallery.database, "Zenobia", "Zenobia Quux")
    people.merge(gallery.database, ["Xanthippe"], "Zenobia Quux")
    people.merge(gallery.database, ["Zenobia Quux"], "Second")
    people.rename(gallery.database, "Second", "Third")
    people.split(gallery.database, "Bob", [people.faces_of(gallery.database, "Bob")[0].id], "Third")
    if sealed:
        sealing.unseal(gallery.database)
    assert found_in(folder, b"Xanthippe"), "the test must be able to find what it looks for"
    privacy.erase(gallery.database, "Third")
    gallery.close()
    for needle in (b"Xanthippe", b"Quux", b"Second", b"Third", unit(3).tobytes(), unit(200).tobytes()):
        assert found_in(folder, needle) == []
    with GalleryStore.open(folder) as again:
        assert sorted(again.snapshot().persons) == ["Bob", "Xan"], "who only gave a face away stays"


def test_a_name_that_somebody_new_bears_stays_theirs(folder: Path) -> None:
    with GalleryStore.create(folder, "model-1", DIM) as gallery:
        fill(gallery)
        people.merge(gallery.database, ["Xanthippe"], "Bob")
        gallery.add([new("Xanthippe", 300, source="/new/Xanthippe.jpg")])
        privacy.erase(gallery.database, "Bob")
        assert [face.source for face in people.faces_of(gallery.database, "Xanthippe")] == ["/new/Xanthippe.jpg"]
        assert found_in(folder, unit(3).tobytes()) == []


def test_a_removed_person_can_still_be_erased(folder: Path) -> None:
    gallery = GalleryStore.create(folder, "model-1", DIM)
    fill(gallery)
    people.remove(gallery.database, "Xanthippe")
    assert found_in(folder, b"Xanthippe")
    privacy.erase(gallery.database, "Xanthippe")
    assert traces(folder) == []
    with pytest.raises(UsageError, match="no person named"):
        privacy.erase(gallery.database, "Xanthippe")


def test_an_erase_that_was_interrupted_is_finished_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = GalleryStore.create(folder, "model-1", DIM)
    fill(gallery)
    with monkeypatch.context() as patch:
        patch.setattr(privacy, "scrub", lambda *_: None)
        privacy.erase(gallery.database, "Xanthippe")
    gallery.close()
    assert traces(folder)
    gallery = GalleryStore.open(folder)
    assert privacy.finish_scrub(gallery.database)
    assert not privacy.finish_scrub(gallery.database)
    assert traces(folder) == []


def test_expired_faces_are_forgotten_with_their_bytes(folder: Path) -> None:
    gallery = GalleryStore.create(folder, "model-1", DIM)
    fill(gallery)
    gallery.database.connection.execute("UPDATE face SET expires = 1 WHERE source LIKE '%/Xanthippe/%'")
    assert privacy.forget_expired(gallery.database) == 8
    assert privacy.forget_expired(gallery.database) == 0
    assert {person.name for person in people.people(gallery.database)} == {"Bob", "Xan"}
    needles = [unit(i).tobytes() for i in range(8)]
    assert [name for needle in needles for name in found_in(folder, needle)] == []


@pytest.mark.parametrize("begin_sealed", [False, True])
def test_a_sealed_gallery_shows_no_name_and_no_vector(folder: Path, begin_sealed: bool) -> None:
    if begin_sealed:
        gallery = GalleryStore.create(folder, "model-1", DIM, KEY)
        fill(gallery)
    else:
        gallery = GalleryStore.create(folder, "model-1", DIM)
        fill(gallery)
        before = content(gallery.snapshot())
        sealing.seal(gallery.database, KEY)
        assert content(gallery.snapshot()) == before
    gallery.snapshot()
    for needle in (
        b"Xanthippe",
        b"Bob",
        b"photos",
        b"XCHIP",
        unit(3).tobytes(),
        unit(3).tobytes()[:8],
        unit(70).tobytes(),
    ):
        assert found_in(folder, needle) == []
    gallery.close()
    with pytest.raises(WrongKeyError, match="FACEPIPE_KEY_FILE"):
        GalleryStore.open(folder)
    with pytest.raises(WrongKeyError, match="wrong key-file"):
        GalleryStore.open(folder, OTHER)
    with pytest.raises(WrongKeyError, match="not a passphrase"):
        GalleryStore.open(folder, Secret.passphrase("k"))
    with GalleryStore.open(folder, KEY) as opened:
        assert set(opened.snapshot().persons) == {"Xanthippe", "Bob", "Xan"}
        people.rename(opened.database, "Bob", "Rob")
        assert opened.add([new("Xan", 71)]) == [None], "the same photo is recognised through the seal"
        assert people.faces_of(opened.database, "Rob")[0].source == "/photos/Bob/0.jpg"


def test_the_key_can_be_rotated_and_the_seal_taken_off(folder: Path) -> None:
    gallery = GalleryStore.create(folder, "model-1", DIM, KEY)
    fill(gallery)
    before = content(gallery.snapshot())
    bystander = GalleryStore.open(folder, KEY)
    sealing.seal(gallery.database, OTHER)
    with pytest.raises(GalleryError, match="open it again with that key"):
        bystander.add([new("Cy", 99)])
    with pytest.raises(GalleryError, match="open it again with that key"):
        bystander.snapshot()
    bystander.close()
    gallery.close()
    with pytest.raises(WrongKeyError):
        GalleryStore.open(folder, KEY)
    with GalleryStore.open(folder, OTHER) as opened:
        assert content(opened.snapshot()) == before
        sealing.unseal(opened.database)
        assert content(opened.snapshot()) == before
    with GalleryStore.open(folder) as plain:
        assert content(plain.snapshot()) == before


def test_a_passphrase_opens_through_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GalleryStore.create(folder, "model-1", DIM, Secret.passphrase("correct horse")).close()
    monkeypatch.setenv("FACEPIPE_PASSPHRASE", "wrong horse")
    with pytest.raises(WrongKeyError, match="wrong passphrase"):
        GalleryStore.open(folder)
    monkeypatch.setenv("FACEPIPE_PASSPHRASE", "correct horse")
    GalleryStore.open(folder).close()


def test_a_key_file_is_64_digits_or_32_bytes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("ab" * 32 + "\n")
    assert Secret.key_file(path).value == b"\xab" * 32
    assert "ab" not in repr(Secret.key_file(path)).split("(")[1]
    path.write_text("too short")
    with pytest.raises(InputError, match="openssl rand"):
        Secret.key_file(path)


def test_compact_makes_the_file_smaller_and_changes_nothing(folder: Path) -> None:
    gallery = GalleryStore.create(folder, "model-1", DIM)
    rng = np.random.default_rng(0)
    gallery.add([NewFace("Big", unit(i), chip=chip(rng.bytes(4000))) for i in range(100)])
    gallery.add([new("Ann", 1000)])
    people.remove(gallery.database, "Big")
    before = content(gallery.snapshot())
    size = privacy.compact(gallery.database)
    assert size[1] < size[0] / 4
    assert content(gallery.snapshot()) == before
