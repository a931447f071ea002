"""A sealed value opens where it was sealed and nowhere else; older sealed galleries are sealed anew when they are opened."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest

from facepipe.errors import GalleryDamagedError, GalleryError, InputError
from facepipe.gallery import people
from facepipe.gallery.arrays import derived
from facepipe.gallery.arrays import snapshot as snapshots
from facepipe.gallery.care.anchors import add_anchor
from facepipe.gallery.care.check import check
from facepipe.gallery.chips import StoredChip, read_chip
from facepipe.gallery.journal import journal_entries
from facepipe.gallery.privacy import sealing
from facepipe.gallery.storage import codec
from facepipe.gallery.storage.checksums import CRC_OF_FACE, CRC_OF_PERSON, checksum, vector_checksum
from facepipe.gallery.storage.codec import SealedCodec, Secret
from facepipe.gallery.store import GalleryStore, NewFace
from tests.test_gallery_store import DIM, content, new, unit
from tests.test_types import face as make_face

KEY = Secret("key-file", b"k" * 32)


def fill(gallery: GalleryStore) -> None:
    for name, first in (("Ann", 0), ("Bea", 10)):
        gallery.add(
            [
                NewFace(
                    name,
                    unit(first + i),
                    f"/photos/{name}/{i}.jpg",
                    f"{first + i + 1:032x}" * 2,
                    chip=StoredChip(b"chip", 0, 0, 1),
                )
                for i in range(3)
            ]
        )
        add_anchor(gallery, name, unit(first + 90), make_face(), f"/photos/not {name}.jpg", f"{first + 90:032x}" * 2)
    gallery.set_calibration(None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with GalleryStore.create(tmp_path / "gallery", "model-1", DIM, KEY) as gallery:
        fill(gallery)
    return tmp_path / "gallery"


def forge(folder: Path, *statements: str) -> None:
    """Change the database as somebody does who can write to it, knows facepipe's code, and has no key."""
    connection = sqlite3.connect(folder / "faces.sqlite", isolation_level=None)
    connection.create_function("checksum", -1, checksum)
    connection.create_function("vector_checksum", 2, vector_checksum)
    connection.execute("BEGIN")
    for statement in statements:
        before = connection.total_changes
        connection.execute(statement)
        assert connection.total_changes > before, statement
    connection.execute("UPDATE vector SET crc = vector_checksum(face_id, data)")
    connection.execute("UPDATE chip SET crc = vector_checksum(face_id, data)")
    connection.execute("UPDATE anchor SET crc = vector_checksum(id, vector)")
    connection.execute("COMMIT")
    connection.close()


def swap(table: str, column: str, key: str = "id", a: int = 1, b: int = 2) -> str:
    """Return the statement that exchanges a column of two rows."""
    return (
        f"WITH old AS MATERIALIZED (SELECT {key} AS k, {column} AS v FROM {table} WHERE {key} IN ({a}, {b}))"
        f" UPDATE {table} SET {column} = (SELECT v FROM old WHERE k = {a} + {b} - {table}.{key}) WHERE {key} IN ({a}, {b})"
    )


def read_everything(folder: Path) -> None:
    with GalleryStore.open(folder, KEY) as gallery:
        gallery.snapshot()
        for name in ("Ann", "Bea"):
            for face in people.faces_of(gallery.database, name):
                read_chip(gallery.database, face.id)
        list(journal_entries(gallery.database))


EXCHANGES = {
    "the vectors of two people": (swap("vector", "data", "face_id", 1, 4),),
    "the vectors of one person's photos": (swap("vector", "data", "face_id", 1, 2),),
    "two names": (swap("person", "name"),),
    "two names with what finds them": (
        "UPDATE person SET name_key = x'00' WHERE id = 1",
        *(
            f"UPDATE person SET name_key = (SELECT name_key FROM subject WHERE person_id = {3 - i}) WHERE id = {i}"
            for i in (2, 1)
        ),
        swap("person", "name"),
    ),
    "what finds two names": (
        "UPDATE person SET name_key = x'00' WHERE id = 1",
        *(
            f"UPDATE person SET name_key = (SELECT name_key FROM subject WHERE person_id = {3 - i}) WHERE id = {i}"
            for i in (2, 1)
        ),
    ),
    "the names of the journal": (swap("subject", "name", "person_id"),),
    "the owners of two faces": (swap("face", "person_id", "id", 1, 4),),
    "the sources of two faces": (swap("face", "source", "id", 1, 4),),
    "a source and an anchor's": ("UPDATE face SET source = (SELECT source FROM anchor WHERE id = 1) WHERE id = 1",),
    "the chips of two faces": (swap("chip", "data", "face_id", 1, 4),),
    "two anchors": (swap("anchor", "person_id"),),
    "the vectors of two anchors": (swap("anchor", "vector"),),
    "a face's vector and an anchor's": (
        "UPDATE vector SET data = (SELECT vector FROM anchor WHERE id = 1) WHERE face_id = 1",
    ),
}


@pytest.mark.parametrize("what", EXCHANGES)
def test_who_has_no_key_cannot_exchange_what_is_sealed(folder: Path, what: str) -> None:
    read_everything(folder)
    forge(folder, *EXCHANGES[what])
    with pytest.raises(GalleryError):
        read_everything(folder)
    with GalleryStore.open(folder, KEY) as gallery:
        assert check(gallery.database), "check says what a search would stumble over"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE face SET expires = 1.0 WHERE id = 1",
        "UPDATE face SET content = (SELECT content FROM face WHERE id = 4), ordinal = 7 WHERE id = 1",
        "UPDATE person SET created = 1.0 WHERE id = 1",
    ],
)
def test_check_finds_rows_that_were_altered_without_the_key(folder: Path, statement: str) -> None:
    forge(folder, statement, f"UPDATE person SET crc = {CRC_OF_PERSON}", f"UPDATE face SET crc = {CRC_OF_FACE}")
    with GalleryStore.open(folder, KEY) as gallery:
        assert {finding.kind for finding in check(gallery.database)} <= {"person", "face"} != set()


def test_a_setting_cannot_be_altered_without_the_key(folder: Path) -> None:
    forge(folder, "UPDATE meta SET value = 'model-2', crc = checksum(key, 'model-2') WHERE key = 'fingerprint'")
    with (
        pytest.raises(GalleryDamagedError, match=r"the setting '\w+' is damaged"),
        GalleryStore.open(folder, KEY) as gallery,
    ):
        gallery.snapshot()


def test_pieces_of_the_derived_file_cannot_be_exchanged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SMALL", 2)
    with GalleryStore.open(folder, KEY) as gallery:
        before = content(gallery.snapshot())
        path = folder / "vectors.f32"
        data = path.read_bytes()
        start, length, _, mark = derived._TAIL.unpack(data[-derived._TAIL.size :])
        contents = json.loads(data[start : start + length])
        arrays = contents["arrays"]
        arrays["owners"], arrays["face_ids"] = arrays["face_ids"], arrays["owners"]
        text = json.dumps(contents).encode()
        path.write_bytes(data[:start] + text + derived._TAIL.pack(start, len(text), zlib.crc32(text), mark))
        assert content(gallery.snapshot()) == before, "it is made again from the database"


def test_faces_that_move_open_at_their_new_person(folder: Path) -> None:
    with GalleryStore.open(folder, KEY) as gallery:
        base = gallery.database
        people.split(base, "Ann", [1], "Cleo")
        people.merge(base, ["Bea"], "Cleo")
        people.rename(base, "Cleo", "Dora")
        assert check(base) == []
        assert {face.source for face in people.faces_of(base, "Dora")} == {
            "/photos/Ann/0.jpg",
            *(f"/photos/Bea/{i}.jpg" for i in range(3)),
        }
        assert all(read_chip(base, face.id) is not None for face in people.faces_of(base, "Dora"))
        snapshot = gallery.snapshot()
        assert snapshot.persons == ("Ann", "Dora")
        assert len(snapshot.negatives) == 2


def make_old(folder: Path) -> None:
    """Make of a sealed gallery one whose values are bound to nothing, as they once were."""
    with GalleryStore.open(folder, KEY) as gallery:
        data_key = os.urandom(32)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "VERSION", 1)
            record = codec.wrap_key(KEY, data_key)
            gallery.database.recode("seal", SealedCodec(data_key, 1), record)
        gallery.database.connection.execute("DELETE FROM migration WHERE number = 4")


def test_an_older_sealed_gallery_is_bound_when_it_is_opened(folder: Path) -> None:
    with GalleryStore.open(folder, KEY) as gallery:
        before = content(gallery.snapshot())
    make_old(folder)
    forge(folder, swap("vector", "data", "face_id", 2, 3))  # nothing notices in a gallery of that time
    forge(folder, swap("vector", "data", "face_id", 2, 3))
    with GalleryStore.open(folder, KEY) as gallery:
        assert gallery.database.codec.bound
        assert content(gallery.snapshot()) == before
        assert check(gallery.database) == []
    forge(folder, swap("vector", "data", "face_id", 2, 3))
    with pytest.raises(GalleryError), GalleryStore.open(folder, KEY) as gallery:
        gallery.snapshot()


def test_an_older_sealed_gallery_on_a_read_only_disk_is_read_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(folder)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with GalleryStore.open(folder, KEY) as gallery:
        assert not gallery.database.codec.bound
        assert gallery.snapshot().persons == ("Ann", "Bea")


def _open_and_die(folder: Path, after: int) -> None:
    original, count = SealedCodec.seal, 0

    def seal(self: SealedCodec, value: bytes, *place: str | int) -> bytes:
        nonlocal count
        count += 1
        if count > after:
            os._exit(9)
        return original(self, value, *place)

    SealedCodec.seal = seal  # type: ignore[method-assign]
    GalleryStore.open(folder, KEY).close()


@pytest.mark.parametrize("after", [0, 3, 11, 20])
def test_a_process_that_dies_while_it_binds_loses_nothing(folder: Path, tmp_path: Path, after: int) -> None:
    with GalleryStore.open(folder, KEY) as gallery:
        before = content(gallery.snapshot())
    make_old(folder)
    process = multiprocessing.get_context("fork").Process(target=_open_and_die, args=(folder, after))
    process.start()
    process.join()
    assert process.exitcode == 9, "the test must die in the middle"
    shutil.copytree(folder, tmp_path / "copy")
    for each in (folder, tmp_path / "copy"):
        with GalleryStore.open(each, KEY) as gallery:
            assert content(gallery.snapshot()) == before
            assert gallery.database.codec.bound
            assert check(gallery.database) == []


def test_a_new_passphrase_has_eight_characters(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with GalleryStore.open(folder, KEY) as gallery, pytest.raises(InputError, match="at least 8 characters"):
        sealing.seal(gallery.database, Secret.passphrase("sësam 7"))
    monkeypatch.setenv("FACEPIPE_PASSPHRASE", "short")
    with GalleryStore(tmp_path / "new", model=None) as fresh, pytest.raises(InputError, match="at least 8 characters"):
        fresh.add([NewFace("Ann", np.eye(1, fresh.dim, dtype=np.float32)[0])])
    assert not (tmp_path / "new" / "faces.sqlite").exists()


def test_a_short_passphrase_of_before_still_opens(folder: Path) -> None:
    short = Secret.passphrase("abc")
    with GalleryStore.open(folder, KEY) as gallery:
        data_key = os.urandom(32)
        gallery.database.recode("seal", SealedCodec(data_key), codec.wrap_key(short, data_key))
    with GalleryStore.open(folder, short) as gallery:
        assert gallery.add([new("Ann", 70)]) != [None]
