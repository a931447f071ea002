"""Galleries from somebody who means harm: a few of what `scripts/tampered` tries, and what is never touched or readable."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest

from facepipe.errors import FacepipeError, GalleryDamagedError, GalleryError, UsageError
from facepipe.files.atomic import atomic_file, make_folder
from facepipe.gallery import people
from facepipe.gallery.arrays.derived import UnusableError, read_derived
from facepipe.gallery.care.check import check, repair
from facepipe.gallery.care.salvage import salvage
from facepipe.gallery.journal import journal_entries
from facepipe.gallery.privacy.erasing import compact, erase
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.lock import read_note
from facepipe.gallery.storage.soundness import fault_in_rows
from facepipe.gallery.store import GalleryStore

from .hostile_galleries import GALLERIES
from .test_gallery_store import DIM, new

#: Tamperings that a library call meets; those that take a process of their own are the script's.
_SOME = [
    name
    for name in GALLERIES
    if not any(word in name for word in ("zeroblob(4", "zeroblob(5", "FIFO", "20 GiB", "user's own", "/dev/zero"))
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "bashrc").write_text("precious\n" * 40)
    with GalleryStore.create(tmp_path / "gallery", "fake:1", DIM) as gallery:
        gallery.add([new(f"P{person}", 3 * person + face) for person in range(3) for face in range(3)])
    return tmp_path


def use(folder: Path) -> None:
    """Do what commands do: read everything, check it, add somebody, and take somebody away."""
    with GalleryStore.open(folder) as gallery:
        list(people.people(gallery.database))
        people.stats(gallery.database)
        people.faces_of(gallery.database, "P1")
        gallery.calibration()
        gallery.index(gallery.snapshot())
        list(journal_entries(gallery.database))
        check(gallery.database)
        gallery.add([new("Eve", 99)])
        people.rename(gallery.database, "P1", "Q1")


@pytest.mark.parametrize("name", _SOME)
def test_a_gallery_that_was_tampered_with_ends_in_an_answer_or_one_line(root: Path, name: str) -> None:
    try:
        GALLERIES[name](root)
    except sqlite3.Error:
        pytest.skip("this gallery has no such row")
    try:
        use(root / "gallery")
    except FacepipeError as error:
        assert "\n" not in str(error)
    assert (root / "victim" / "bashrc").read_text() == "precious\n" * 40
    assert sorted(path.name for path in (root / "victim").iterdir()) == ["bashrc"]


def test_what_identify_stumbles_over_check_tells(root: Path) -> None:
    for name in ("vector.data is 'text'", "face.x1 is 'abc'", "person.created is 'abc'", "stamp.token is 'abc'"):
        with GalleryStore.open(root / "gallery") as gallery:
            assert fault_in_rows(gallery.database.connection) is None and not check(gallery.database)
        before = (root / "gallery" / "faces.sqlite").read_bytes()
        GALLERIES[name](root)
        with GalleryStore.open(root / "gallery") as gallery:
            assert check(gallery.database), name
        (root / "gallery" / "faces.sqlite").write_bytes(before)
        (root / "gallery" / "last-write").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name", [name for name in _SOME if name.startswith(("person.", "face.", "vector.", "subject."))]
)
def test_a_salvage_of_rows_of_a_wrong_kind_ends_in_an_answer_or_one_line(root: Path, name: str) -> None:
    GALLERIES[name](root)
    with suppress(FacepipeError):
        found = salvage(root / "gallery", root / "new")
        assert found.faces <= found.known


@pytest.mark.parametrize("what", ["view", "trigger", "column", "index", "missing"])
def test_a_schema_that_facepipe_did_not_make_is_not_opened(root: Path, what: str) -> None:
    statements = {
        "view": "ALTER TABLE chip RENAME TO old; CREATE VIEW chip AS SELECT * FROM old",
        "trigger": "CREATE TRIGGER evil AFTER INSERT ON person BEGIN DELETE FROM vector; END",
        "column": "ALTER TABLE face ADD COLUMN evil GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL",
        "index": "CREATE INDEX evil ON person (hex(name))",
        "missing": "DROP TABLE gone",
    }
    with closing(sqlite3.connect(root / "gallery" / "faces.sqlite")) as connection:
        connection.executescript(statements[what])
    with pytest.raises(GalleryDamagedError, match=r"is not as facepipe made it|is missing") as caught:
        Database.open(root / "gallery")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "name",
    ["faces.sqlite", "faces.sqlite-wal", "lock", "last-write", "vectors.f32", "templates.faiss", "own-photos.f32"],
)
def test_a_pipe_or_folder_in_a_files_place_is_one_line_and_no_wait(root: Path, name: str) -> None:
    place = root / "gallery" / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    with pytest.raises(GalleryDamagedError, match="is a link, a pipe or a folder"):
        Database.open(root / "gallery")
    place.unlink()
    place.mkdir()
    with pytest.raises(GalleryDamagedError, match="is a link, a pipe or a folder"):
        Database.open(root / "gallery")


def test_a_link_that_appears_after_opening_is_not_followed(root: Path, tmp_path: Path) -> None:
    with GalleryStore.open(root / "gallery") as gallery:
        for name in ("vectors.f32", "last-write", "lock"):
            secret = tmp_path / name
            secret.write_bytes(b"somebody's own" * 40)
            place = root / "gallery" / name
            place.unlink(missing_ok=True)
            place.symlink_to(secret)
            with pytest.raises(OSError, match="symbolic links"):
                read_note(place)
            with gallery.database.read(), suppress(UnusableError):
                read_derived(gallery.database, "vectors.f32")
                assert name != "vectors.f32", "the file behind the link was read"
        with pytest.raises(GalleryError):
            gallery.set_calibration(None)
        assert all(
            (tmp_path / name).read_bytes() == b"somebody's own" * 40 for name in ("vectors.f32", "last-write", "lock")
        )


def test_what_facepipe_did_not_make_stays_in_a_gallerys_folder(root: Path) -> None:
    folder = root / "gallery"
    mine = ["thesis.tmp", "corpus.faiss", "x.f32", ".0123456789abcdef.tmp", "vectors.f32.backup.tmp"]
    for name in mine:
        (folder / name).write_text("mine")
    (folder / "x.tmp").mkdir()
    (folder / "vectors.f32.77-aabbccdd.tmp").write_text("left by a killed process")
    with GalleryStore.open(folder) as gallery:
        assert [finding.kind for finding in check(gallery.database)] == ["leftover"]
        repair(gallery.database, check(gallery.database))
        erase(gallery.database, "P0")
        compact(gallery.database)
    assert all((folder / name).read_text() == "mine" for name in mine) and (folder / "x.tmp").is_dir()
    assert not (folder / "vectors.f32.77-aabbccdd.tmp").exists()


def test_no_gallery_is_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.doc").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files \(thesis.doc\)"):
        GalleryStore.create(tmp_path / "home", "fake:1", DIM)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.doc"]
    (tmp_path / "own").mkdir()
    for name in ("README.md", ".gitignore"):
        (tmp_path / "own" / name).write_text("harmless")
    GalleryStore.create(tmp_path / "own", "fake:1", DIM).close()


def test_files_and_folders_with_people_are_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o022)
    try:
        with atomic_file(tmp_path / "out" / "deep" / "results.jsonl") as file:
            file.write(b"x")
        make_folder(tmp_path / "crops" / "Ann")
        with GalleryStore.create(tmp_path / "gallery", "fake:1", DIM) as gallery:
            gallery.add([new("Ann", 1)])
        (tmp_path / "shared.csv").write_bytes(b"")
        (tmp_path / "shared.csv").chmod(0o640)
        with atomic_file(tmp_path / "shared.csv") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes.pop(tmp_path / "shared.csv") == 0o640, "a mode that its owner gave stays"
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
