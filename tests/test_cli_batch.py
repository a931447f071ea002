"""`facepipe batch` as a user runs it, with fakes in the engines' place."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from facepipe.catalog.catalog import Catalog
from facepipe.cli import main
from facepipe.cli.options import Deciding, Looking
from facepipe.files.atomic import atomic_path
from facepipe.gallery.privacy.sealing import seal
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.pipeline import Recognizer
from facepipe.types import Sampling
from tests.batch_fixtures import paint, paint_many, recognizer
from tests.fakes import FakeEmbedder

Run = Callable[..., tuple[int, str, str]]


def fake_recognizer(
    looking: Looking, deciding: Deciding, sampling: Sampling, photos: int, *, late: bool = False
) -> Recognizer:
    """Stand for the networks and the gallery, with the facts that the real ones have."""
    with GalleryStore.open(deciding.gallery, Secret.from_environment()) as gallery:
        key = str(gallery.generation())
    made = recognizer(scan={"min_face": looking.min_face, "max_side": looking.max_side})
    made.facts = {"generation": key, "policy": asdict(made.policy)}
    return made


@pytest.fixture
def facepipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `facepipe batch ARGUMENTS`; return exit code, stdout, stderr."""
    embedder = FakeEmbedder()
    GalleryStore.create(tmp_path / "gallery", embedder.fingerprint, embedder.dim).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facepipe.cli.options.load_recognizer", fake_recognizer)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as raised:
            main(["batch", *map(str, arguments)])
        code = raised.value.code
        assert isinstance(code, int)
        return (code, *capfd.readouterr())

    return run


def test_a_folder(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 12)
    code, out, err = facepipe("photos", "--out", "results.jsonl")
    assert code == 0 and err == ""
    assert "12 photos in" in out and "results: results.jsonl" in out and "0 failed" in out
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["path"] for record in records] == [f"photos/{i:04d}.png" for i in range(12)]
    assert records[2]["faces"][0]["person"] == "blue"
    again = facepipe("photos", "--out", "results.jsonl")
    assert "12 photos were done by an earlier run" in again[1]


def test_some_failed(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 5, broken=(1, 3))
    code, out, err = facepipe("photos", "nowhere", "--out", "results.csv")
    assert code == 7 and "3 failed" in out
    assert err.strip() == "facepipe: 3 photos failed; results.failures.csv lists them with the reason"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.failures.csv").read_text())))
    assert [row["path"] for row in rows] == ["photos/0001.png", "photos/0003.png", "nowhere"]
    assert all(row["error"] for row in rows)
    assert {row["path"] for row in csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text()))} >= {
        f"photos/{i:04d}.png" for i in range(5)
    }
    (tmp_path / "photos/0001.png").unlink()
    (tmp_path / "photos/0003.png").unlink()
    assert facepipe("photos", "--out", "results.csv")[0] == 0
    assert not (tmp_path / "results.failures.csv").exists()


def test_parquet_and_a_list_of_files(tmp_path: Path, facepipe: Run) -> None:
    paths = paint_many(tmp_path / "photos", 4)
    (tmp_path / "list").write_text("".join(f"{path}\n" for path in paths[:3]))
    assert facepipe("--files-from", "list", "--out", "r.parquet", "--quiet")[:2] == (0, "")
    assert pq.read_table(tmp_path / "r.parquet").column("path").to_pylist()[0] == str(paths[0])
    odd = paint(tmp_path / "photos" / "two\nlines.png", "red")
    (tmp_path / "list0").write_bytes(os.fsencode(odd) + b"\0" + os.fsencode(paths[0]) + b"\0")
    facepipe("--files-from", "list0", "-0", "--out", "r.jsonl")
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [record["path"] for record in records] == [str(odd), str(paths[0])]


def test_a_list_as_editors_write_it(tmp_path: Path, facepipe: Run) -> None:
    first, second = paint_many(tmp_path / "photos", 2)
    other = paint(tmp_path / "more" / "deep" / "a.png", "red")
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbf" + f"{first}\r\n{tmp_path / 'more'}\r\n{second}".encode())
    assert facepipe("--files-from", "bom", "--out", "r.jsonl")[0] == 0
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [record["path"] for record in records] == [str(first), str(other), str(second)], (
        "a folder in a list is searched"
    )
    for encoding, says in (("utf-16", "is in UTF-16; save it as UTF-8"), ("utf-16-be", "need -0; a list in UTF-16")):
        (tmp_path / "wide").write_bytes(f"{first}\n".encode(encoding))
        code, out, err = facepipe("--files-from", "wide", "--out", "n.jsonl")
        assert (code, out) == (3, "") and says in err and err.count("\n") == 1
    (tmp_path / "null").write_bytes(b"\0".join(map(os.fsencode, (first, second))))
    assert "need -0" in facepipe("--files-from", "null", "--out", "n.jsonl")[2]


def test_names_that_a_spreadsheet_would_compute(tmp_path: Path, facepipe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "=1+1.png", "red")
    (tmp_path / "@x.png").write_bytes(b"broken")
    for options, mark in (((), "'"), (("--csv-raw",), "")):
        facepipe("=1+1.png", "@x.png", "--out", "r.csv", *options)
        paths = [row["path"] for row in csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text()))]
        assert paths == [f"{mark}=1+1.png", f"{mark}@x.png"]
        failed = (tmp_path / "r.failures.csv").read_text().splitlines()[1]
        assert failed.startswith(f"{mark}@x.png,cannot be read as an image")


def test_side_outputs(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    options = ("--annotate", "drawn", "--crops", "crops", "--sort-into", "sorted", "--sort-how", "copy")
    assert facepipe("photos", "--out", "r.jsonl", *options)[0] == 0
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == len(list((tmp_path / "crops").glob("*.jpg"))) == 1
    assert (tmp_path / "sorted/people/red/a.png").read_bytes() == (tmp_path / "photos/a.png").read_bytes()


def test_output_folders_that_were_deleted_are_made_again(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 4)
    options = ("--annotate", "drawn", "--crops", "crops", "--sort-into", "sorted")
    facepipe("photos", "--out", "r.jsonl", *options)
    before = {name: {*map(str, (tmp_path / name).rglob("*.*"))} for name in options[1::2]}
    assert facepipe("photos", "--out", "r.jsonl", *options)[2] == ""
    for name in before:
        shutil.rmtree(tmp_path / name)
    _, out, err = facepipe("photos", "--out", "r.jsonl", *options)
    assert "nothing is new" in out and err == ""
    assert {name: {*map(str, (tmp_path / name).rglob("*.*"))} for name in options[1::2]} == before


def test_a_report_that_cannot_be_written_is_said_before_the_first_photo(
    tmp_path: Path, facepipe: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_many(tmp_path / "photos", 2)
    (tmp_path / "locked").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and access(path, mode))
    code, _, err = facepipe("photos", "--out", "r.jsonl", "--report", "locked/deep/page.html")
    assert code == 3 and "locked/deep/page.html: cannot be written; check the permissions of" in err
    assert not (tmp_path / "r.jsonl").exists() and not (tmp_path / "r.jsonl.catalog").exists()


def test_what_a_batch_wrote_is_no_photo(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "a.png", "red")
    (tmp_path / "linked").symlink_to(tmp_path)
    options = ("--annotate", "drawn", "--crops", "crops", "--sort-into", "sorted")
    assert facepipe("a.png", "--out", "r.jsonl", *options)[0] == 0
    for more in (options, ()):
        assert facepipe(".", "--out", "r.jsonl", *more)[0] == 0
        assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1
    assert facepipe("drawn", "--out", "d.jsonl")[0] == 0
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 1


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "mine/a.png", "red")
    command = ("mine", "--out", "out.jsonl", "--crops", "crops")
    assert facepipe(*command)[0] == 0
    with atomic_path(tmp_path / "out.jsonl") as unfinished:
        unfinished.write_bytes((tmp_path / "out.jsonl").read_bytes())
        mine = [unfinished, tmp_path / "crops" / unfinished.name, tmp_path / "crops/deep" / unfinished.name]
    theirs = [tmp_path / ".0123456789abcdef.tmp", tmp_path / "crops/notes.tmp"]
    for path in [*mine, *theirs]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    assert facepipe(*command)[0] == 0
    assert [path.exists() for path in [*mine, *theirs]] == [False, False, False, True, True]


def test_files_and_folders_of_others_are_not_replaced(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    (tmp_path / "mine.csv").write_text("mine")
    code, _, err = facepipe("photos", "--out", "mine.csv")
    assert code == 2 and "another name, or delete it" in err and (tmp_path / "mine.csv").read_text() == "mine"
    code, _, err = facepipe("photos/a.png", "--out", "r.csv", "--report", "photos/a.png")
    assert code == 2 and "one of the inputs" in err
    for folder in ("photos", "photos/../photos"):
        assert facepipe("photos", "--out", "r.csv", "--crops", folder)[0] == 2
    assert facepipe("mine.csv", "--out", "r.csv", "--annotate", "photos")[0] == 2
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.png"]
    for one, other in (("--annotate", "--crops"), ("--crops", "--sort-into")):
        code, _, err = facepipe("photos", "--out", "r.csv", one, "same", other, "photos/../same")
        assert code == 2 and "is given for two outputs" in err and not (tmp_path / "same").exists()


def test_no_photos_at_all(tmp_path: Path, facepipe: Run) -> None:
    photo = paint(tmp_path / "photos" / "a.png", "red")
    (tmp_path / "empty").mkdir()
    code, out, err = facepipe("empty", "--out", "none.jsonl", "--fail-on-empty")
    assert (code, out) == (3, "") and "no photos found in empty" in err
    (tmp_path / "empty" / "clip.ts").write_bytes(b"")
    code, out, err = facepipe("empty", "--out", "none.jsonl")
    assert code == 0 and err == "facepipe: no photos found in empty (passed over: 1 other file)\n"
    assert (tmp_path / "none.jsonl").read_text() == ""
    (tmp_path / "list").write_text("")
    code, out, err = facepipe("--out", "none.jsonl", "--files-from", "list")
    assert (code, out, err) == (0, "", "facepipe: no photos in the list\n")
    assert facepipe("--out", "none.jsonl", "--files-from", "list", "--fail-on-empty")[0] == 2
    assert facepipe("nowhere", "--out", "none.jsonl")[0] == 3, "what is not there is no empty inbox"
    assert "1 photo in" in facepipe("photos", "--out", "r.jsonl")[1]
    photo.unlink()
    code, _, err = facepipe("photos", "--out", "r.jsonl")
    assert code == 2 and "not one photo of the earlier run (1 photo) is found in photos now" in err


def test_another_part_with_the_same_results_is_refused(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    assert facepipe("photos", "--out", "r.jsonl")[0] == 0
    before = (tmp_path / "r.jsonl").read_bytes()
    code, _, err = facepipe("photos", "--out", "r.jsonl", "--shard", "2/2")
    assert code == 2 and "is found in part 2/2 of photos now" in err
    assert before and (tmp_path / "r.jsonl").read_bytes() == before


def tree(folder: Path) -> dict[str, bytes]:
    """Return all that is in a folder: links by where they point, files by what they hold."""
    return {
        str(path): os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or (path.is_file() and not path.name.endswith((".catalog", ".facepipe-files")))
    }


def test_an_emptied_folder_or_another_one_takes_nothing_away(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 5)
    paint_many(tmp_path / "others", 4)
    command = ("--out", "r.jsonl", "--sort-into", "sorted")
    assert facepipe("photos", *command)[0] == 0
    before = tree(tmp_path)
    code, out, err = facepipe("others", *command, "--crops", "crops")
    assert (code, out) == (2, "") and "(5 photos) is found in others now" in err
    assert "choose another --out" in err and "delete r.jsonl and r.jsonl.catalog first" in err
    assert tree(tmp_path) == before
    (tmp_path / "photos").rename(tmp_path / "aside")
    (tmp_path / "photos").mkdir()
    for roots in (("photos",), ("photos", "others"), ("photos", "nowhere")):
        assert facepipe(*roots, *command)[0] == 2
    (tmp_path / "photos").rmdir()
    (tmp_path / "aside").rename(tmp_path / "photos")
    assert tree(tmp_path) == before
    assert "5 photos were done by an earlier run; nothing is new" in facepipe("photos", *command)[1]
    assert tree(tmp_path) == before


def test_photos_that_are_not_asked_for_any_more_are_counted_once(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "a", 3)
    paint_many(tmp_path / "b", 2)
    facepipe("a", "b", "--out", "r.jsonl")
    err = facepipe("b", "--out", "r.jsonl")[2]
    assert err == "facepipe: 3 photos of an earlier run are not among these any more: no longer in r.jsonl\n"
    assert facepipe("b", "--out", "r.jsonl")[2] == ""
    assert facepipe("b", "nowhere", "--out", "r.jsonl")[0] == 7
    assert facepipe("b", "--out", "r.jsonl")[2] == ""
    assert facepipe("a", "--out", "r.jsonl")[0] == 2


def test_a_stopped_run_is_an_earlier_one_too(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 3)
    facepipe("photos", "--out", "r.jsonl")
    (tmp_path / "r.jsonl").unlink()
    with Catalog(tmp_path / "r.jsonl.catalog", write=True) as catalog:
        catalog.begin({"key": "another"})
        catalog._meet([(2, 0, b"photos/0000.png")])
        assert catalog.earlier() == 3 == len(catalog) + 2
    assert "not among these" not in facepipe("photos", "--out", "r.jsonl")[2]


def test_folders_that_are_not_there(tmp_path: Path, facepipe: Run) -> None:
    before = sorted(tmp_path.iterdir())
    for roots in (("nope",), ("nope", "no/*.jpg", "no.zip")):
        code, out, err = facepipe(*roots, "--out", "n.jsonl", "--crops", "crops")
        assert (code, out) == (3, "")
        assert err.splitlines() == [f"facepipe: {root}: no such file or folder; check the path" for root in roots]
    (tmp_path.parent / "list").write_text("".join(f"{number}.jpg\n" for number in range(30)))
    err = facepipe("--files-from", tmp_path.parent / "list", "--out", "n.jsonl")[2]
    assert len(err.splitlines()) == 20 and err.endswith("; 10 more do not exist either\n")
    assert sorted(tmp_path.iterdir()) == before


def test_sorting_by_copies_after_links(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    for how in ("link", "copy"):
        facepipe("photos", "--out", "r.jsonl", "--sort-into", "sorted", "--sort-how", how)
        assert (tmp_path / "sorted/people/red/a.png").is_symlink() == (how == "link")


def test_no_number_of_seconds(facepipe: Run) -> None:
    for every in ("nan", "inf"):
        assert facepipe("photos", "--out", "r.csv", "--watch", "--every", every)[0] == 2


def test_a_report_has_its_faces_whoever_made_them(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    assert facepipe("photos", "--out", "r.jsonl", "--report", "report.html")[0] == 0
    paint(tmp_path / "photos" / "b.png", "blue", "green")
    assert "1 photo was done" in facepipe("photos", "--out", "r.jsonl", "--report", "report.html")[1]
    page = (tmp_path / "report.html").read_text()
    with Catalog(tmp_path / "r.jsonl.catalog") as catalog:
        thumbnails = [jpeg for _, jpegs in catalog.records_with_thumbnails() for jpeg in jpegs]
    assert len(thumbnails) == 3
    for jpeg in thumbnails:
        assert base64.b64encode(jpeg).decode() in page


def test_asking_for_more_makes_only_that(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    facepipe("photos", "--out", "r.jsonl")
    _, out, err = facepipe("photos", "--out", "r.jsonl", "--crops", "crops")
    assert len(list((tmp_path / "crops").glob("*.jpg"))) == 1
    assert "1 photo was done by an earlier run; nothing is new" in out and err == ""
    _, _, err = facepipe("photos", "--out", "r.jsonl", "--annotate", "drawn")
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 1 and len(list((tmp_path / "crops").glob("*.jpg"))) == 1


def test_what_an_earlier_facepipe_kept_is_said_to_be_of_no_use(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    for name in ("r.jsonl", "r.jsonl.ledger"):
        (tmp_path / name).write_text("of an earlier facepipe")
    code, _, err = facepipe("photos", "--out", "r.jsonl")
    assert (code, err) == (
        0,
        "facepipe: r.jsonl.ledger: written by an earlier facepipe and not used any more: all photos are scanned again; delete it\n",
    )
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1
    assert facepipe("photos", "--out", "r.jsonl")[2] == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "--out"),
        (("photos", "--out", "r.xlsx"), 2, "unknown format"),
        (("--out", "r.jsonl"), 2, "no photos given"),
        (("photos", "--out", "r.jsonl", "--gallery", "nowhere"), 5, "nowhere"),
        (("photos", "--out", "gallery/faces.sqlite/r.jsonl"), 2, "own folder"),
        (("photos", "--out", "/dev/null/r.jsonl"), 3, "cannot be written"),
    ],
)
def test_requests_that_cannot_be_met(
    tmp_path: Path, facepipe: Run, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "photos").mkdir()
    got, out, err = facepipe(*arguments)
    assert (got, out) == (code, "") and says in err


def test_a_changed_gallery_compares_everything_again(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 3)
    facepipe("photos", "--out", "r.jsonl")
    assert "done by an earlier run" in facepipe("photos", "--out", "r.jsonl")[1]
    enrol(tmp_path, "Ann")
    _, out, err = facepipe("photos", "--out", "r.jsonl")
    assert "done by an earlier run" not in out
    assert err == "facepipe: the gallery changed since the earlier run: the faces of all photos are compared again\n"
    assert "the faces of 3 photos were compared again in" in out
    assert facepipe("photos", "--out", "r.jsonl")[2] == ""


def enrol(folder: Path, name: str, *, sealed: bool = False) -> None:
    """Change the gallery's generation."""
    with GalleryStore.open(folder / "gallery", SECRET if sealed else None) as gallery:
        gallery.add([NewFace(name, np.eye(gallery.dim, dtype=np.float32)[0])])


SECRET = Secret.passphrase("open sesame")


def described_in(out: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"{out}.catalog")) as connection:
        return int(connection.execute("SELECT count(*) FROM description").fetchone()[0])


def test_embeddings_that_are_not_kept(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 3)
    command = ("photos", "--out", "r.jsonl")
    assert facepipe(*command)[2] == "" and described_in(tmp_path / "r.jsonl") == 3
    assert facepipe(*command, "--no-keep-embeddings")[2] == (
        "facepipe: the embeddings of 3 photos were deleted from r.jsonl.catalog\n"
    )
    assert described_in(tmp_path / "r.jsonl") == 0
    enrol(tmp_path, "Ann")
    err = facepipe(*command)[2]
    assert err == (
        "facepipe: the gallery changed since the earlier run: all photos are scanned again, "
        "because their embeddings were not kept\n"
    )
    assert described_in(tmp_path / "r.jsonl") == 3


def test_a_sealed_gallery_keeps_none_unless_asked(
    tmp_path: Path, facepipe: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_many(tmp_path / "photos", 3)
    command = ("photos", "--out", "r.jsonl")
    facepipe(*command)
    monkeypatch.setenv("FACEPIPE_PASSPHRASE", "open sesame")
    with GalleryStore.open(tmp_path / "gallery") as gallery:
        seal(gallery.database, SECRET)
    assert "the embeddings of 3 photos were deleted from r.jsonl.catalog\n" in facepipe(*command)[2]
    assert described_in(tmp_path / "r.jsonl") == 0
    enrol(tmp_path, "Ann", sealed=True)
    facepipe(*command, "--keep-embeddings")
    assert described_in(tmp_path / "r.jsonl") == 3


def test_what_is_compared_and_what_is_scanned_is_said(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 4)
    command = ("photos", "--out", "r.jsonl")
    facepipe(*command)
    with contextlib.closing(sqlite3.connect("r.jsonl.catalog")) as connection, connection:
        which = "WHERE content = (SELECT content FROM photo WHERE CAST(name AS TEXT) LIKE '%{}.png')"
        connection.execute(f"DELETE FROM description {which.format('0001')}")
        connection.execute(f"UPDATE description SET data = x'00' {which.format('0002')}")
    paint(tmp_path / "photos" / "new.png", "red", "blue")
    enrol(tmp_path, "Ann")
    _, out, err = facepipe(*command)
    assert err.splitlines() == [
        "facepipe: the gallery changed since the earlier run: the faces of 3 photos are compared again, all other photos are "
        "scanned again",
        "facepipe: r.jsonl.catalog: the faces of 1 photo are damaged in it; they are found again",
    ]
    assert out.splitlines()[2].startswith("the faces of 2 photos were compared again, 3 photos scanned in ")
    assert facepipe(*command)[2] == ""


def test_photos_that_failed_are_not_said_to_be_compared(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 1, broken=(0,))
    facepipe("photos", "--out", "r.jsonl")
    enrol(tmp_path, "Ann")
    assert (
        "the gallery changed since the earlier run: all photos are scanned again\n"
        in (facepipe("photos", "--out", "r.jsonl")[2])
    )


def test_watch_compares_again_when_the_gallery_changes(tmp_path: Path, facepipe: Run) -> None:
    photo, out = paint(tmp_path / "photos" / "a.png", "red"), tmp_path / "r.jsonl"
    info = photo.stat()

    def change() -> None:
        photo.write_bytes(b"x" * info.st_size)  # whoever opens it finds no picture
        os.utime(photo, ns=(info.st_atime_ns, info.st_mtime_ns))
        out.unlink()
        enrol(tmp_path, "Ann")

    said = watch(
        facepipe, "photos", "--out", "r.jsonl", steps=[(in_results(out, 1), change), (in_results(out, 1), int)]
    )
    assert "the gallery changed since the earlier run: the faces of all photos are compared again\n" in said
    (record,) = map(json.loads, out.read_text().splitlines())
    assert record["error"] is None and record["faces"][0]["person"] == "red"


def test_a_changed_option_is_said_once(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 3)
    paint_many(tmp_path / "others", 3)
    assert facepipe("photos", "--out", "r.jsonl", "--min-face", "30")[2] == ""
    assert facepipe("others", "--out", "r.jsonl", "--min-face", "50")[0] == 2
    assert facepipe("photos", "--out", "r.jsonl", "--min-face", "30")[2] == ""
    command = ("photos", "--out", "r.jsonl", "--max-side", "900", "--crops", "crops")
    err = facepipe(*command)[2]
    assert (
        err == "facepipe: --min-face changed, --max-side changed since the earlier run: all photos are scanned again\n"
    )
    assert facepipe(*command)[2] == ""


#: When it is time, and what is done then.
Step = tuple[Callable[[], bool], Callable[[], object]]


def watch(facepipe: Run, *arguments: str | Path, steps: Sequence[Step]) -> str:
    """Run with --watch: once a step's condition holds, do what it says; then Ctrl-C. Return what was said on both outputs."""

    def act() -> None:
        until = time.monotonic() + 20
        for ready, do in steps:
            while not ready() and time.monotonic() < until:
                time.sleep(0.02)
            do()
        time.sleep(0.3)  # what is in the results is told a moment later
        os.kill(os.getpid(), signal.SIGINT)

    # A test run that was started in the background ignores Ctrl-C, and would wait here for ever.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=act)
    thread.start()
    code, out, err = facepipe(*arguments, "--watch", "--every", "0.1")
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert code == 130 and "run the same command again" in err
    return out + err


def in_results(out: Path, count: int, text: str = "") -> Callable[[], bool]:
    """Return a condition: so many lines of the results hold the text."""
    return lambda: out.exists() and sum(text in line for line in out.read_text().splitlines()) == count


def test_watch_goes_on_as_photos_arrive(tmp_path: Path, facepipe: Run) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    out = tmp_path / "r.jsonl"

    def arrive(name: str) -> Callable[[], object]:
        return lambda: paint(tmp_path / "aside" / name, "blue").rename(tmp_path / "photos" / name)

    steps: list[Step] = [
        (in_results(out, 1), arrive("b.png")),
        (in_results(out, 2), arrive("c.png")),
        (in_results(out, 3), int),
    ]
    watch(facepipe, "photos", "--out", "r.jsonl", steps=steps)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(record["path"]).name for record in records] == ["a.png", "b.png", "c.png"]


def test_watch_marks_a_photo_that_vanished_in_the_same_pass(tmp_path: Path, facepipe: Run) -> None:
    photo, _ = paint(tmp_path / "photos" / "a.png", "red"), paint(tmp_path / "photos" / "b.png", "blue")
    out, link = tmp_path / "r.jsonl", tmp_path / "sorted/people/red/a.png"
    steps: list[Step] = [(in_results(out, 2), photo.unlink), (in_results(out, 1, "vanished"), int)]
    said = watch(facepipe, "photos", "--out", "r.jsonl", "--sort-into", "sorted", steps=steps)
    assert [bool(json.loads(line)["error"]) for line in out.read_text().splitlines()] == [False, True]
    assert said.count("1 photo of an earlier run vanished and was marked in the results") == 1
    assert not link.is_symlink()


def test_watch_waits_when_all_photos_are_gone(tmp_path: Path, facepipe: Run) -> None:
    paint_many(tmp_path / "photos", 3)
    out = tmp_path / "r.jsonl"

    def unmount() -> None:
        (tmp_path / "photos").rename(tmp_path / "aside")
        time.sleep(0.5)
        (tmp_path / "aside").rename(tmp_path / "photos")
        paint(tmp_path / "photos" / "new.png", "red")

    steps: list[Step] = [(in_results(out, 3), unmount), (in_results(out, 4), int)]
    said = watch(facepipe, "photos", "--out", "r.jsonl", "--sort-into", "sorted", steps=steps)
    assert said.count("waiting for them") == 1 and "vanished" not in said + out.read_text()


@pytest.mark.models
def test_with_the_real_networks(tmp_path: Path, faces_root: Path) -> None:
    """Enrolled people are named in other photos of them, strangers are not."""
    people = sorted((faces_root / "people").iterdir())[:4]
    for person in people[:2]:
        (tmp_path / "people" / person.name).mkdir(parents=True)
        for photo in person.glob("enroll-*"):
            (tmp_path / "people" / person.name / photo.name).symlink_to(photo)

    def run(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "facepipe", *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([before, str(Path(__file__).parent.parent)])}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    run("enroll", "people", "--faces", "largest")
    done = run("batch", *map(str, people), "--out", "r.jsonl")
    assert done.returncode == 0, done.stderr
    right = wrong = 0
    for line in (tmp_path / "r.jsonl").read_text().splitlines():
        record = json.loads(line)
        name = Path(record["path"]).parent.name
        named = {face["person"] for face in record["faces"]} - {None}
        right += named == {name}
        wrong += bool(named - {name})
    assert right >= 13 and wrong == 0
    (tmp_path / "more" / people[2].name).mkdir(parents=True)
    for photo in people[2].glob("enroll-*"):
        (tmp_path / "more" / people[2].name / photo.name).symlink_to(photo)
    run("enroll", "more", "--faces", "largest")
    (tmp_path / "without" / "torch").mkdir(parents=True)
    (tmp_path / "without" / "torch" / "__init__.py").write_text("raise ImportError('a network was asked for')")
    for options in ([], ["--threshold", "0.3", "--top-k", "5"], ["--min-face", "60"]):
        without = "without" if "--min-face" not in options else ""
        again = run("batch", *map(str, people), "--out", "r.jsonl", *options, before=without)
        run("batch", *map(str, people), "--out", "scratch.jsonl", "--no-keep-embeddings", *options)
        assert ("were compared again in" in again.stdout) == ("--min-face" not in options), again.stderr
        assert (tmp_path / "r.jsonl").read_bytes() == (tmp_path / "scratch.jsonl").read_bytes()
