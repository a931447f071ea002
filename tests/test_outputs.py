"""No command replaces a photo, an input, a gallery, or anything that facepipe did not write; what it wrote, it may write again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from facepipe.cli import main
from facepipe.errors import OutputError, UsageError
from facepipe.files.atomic import atomic_file, is_gone
from facepipe.files.guard import MARK, check_outputs, is_ours, own_file
from facepipe.gallery.store import GalleryStore
from facepipe.images import read_image, write_image
from facepipe.outputs.html import HtmlReport
from tests.test_gallery_store import DIM, new

GREY = np.full((24, 40, 3), 90, np.uint8)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with GalleryStore.create(tmp_path / "gallery", "model-1", DIM) as gallery:
        gallery.add([new("Ann", 1), new("Ann", 2), new("Bob", 3)])
    return tmp_path / "gallery"


def foreign(path: Path) -> bytes:
    """Put somebody else's file there: a picture as a camera or an editor writes it, else a document."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix in {".png", ".jpg", ".jpeg", ".webp", ".tif", ".bmp"}:
        PIL.Image.fromarray(GREY).save(path)
    else:
        path.write_bytes(b"<html>SQLite format 3\0PK" + bytes(5000))
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"])
def test_every_picture_carries_the_mark_and_shows_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    before = foreign(path.with_suffix(".tif" if suffix == ".tiff" else suffix))
    path.with_suffix(".tif" if suffix == ".tiff" else suffix).rename(path)
    with pytest.raises(UsageError, match="facepipe did not write it; choose another name, or delete it first"):
        write_image(path, GREY)
    assert path.read_bytes() == before
    path.unlink()
    for _ in range(2):
        write_image(path, GREY)
        assert is_ours(path)
        assert np.abs(read_image(path).rgb.astype(int) - GREY).max() <= 2


VERBS: dict[str, Callable[[Path], list[object]]] = {
    "sheet.png": lambda path: ["gallery", "show", "Ann", "--sheet", path],
    "page.html": lambda path: ["gallery", "audit", "--threshold", "0.5", "--page", path],
    "export.parquet": lambda path: ["gallery", "export", path],
    "export.sqlite": lambda path: ["gallery", "export", path],
}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_writes_again_what_it_wrote_and_nothing_else(
    folder: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / name
    arguments = [*VERBS[name](path), "--gallery", folder]
    before = foreign(path)
    assert run(*arguments) == 2
    assert "facepipe did not write it" in capfd.readouterr().err
    assert path.read_bytes() == before
    path.unlink()
    assert run(*arguments) == 0
    assert is_ours(path)
    assert run(*arguments) == 0, "its own file it may replace"
    path.unlink()
    path.touch()
    assert run(*arguments) == 0, "an empty file holds nothing to lose"


def test_no_galleries_file_is_an_output(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with GalleryStore.create(tmp_path / "mine", "model-1", DIM) as gallery:
        gallery.add([new("Cy", 5, source=f"{MARK}/5.jpg")])
        gallery.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (folder / "faces.sqlite").read_bytes()
    for name in ("faces.sqlite", "x.sqlite"):
        assert run("gallery", "export", folder / name, "--gallery", tmp_path / "mine") == 2, "another gallery's neither"
        assert "a gallery's own folder" in capfd.readouterr().err
    assert (folder / "faces.sqlite").read_bytes() == before


def test_an_input_is_no_output_under_any_name(tmp_path: Path) -> None:
    photo, link, hard = tmp_path / "a.jpg", tmp_path / "link.jpg", tmp_path / "hard.jpg"
    write_image(photo, GREY)  # ours, but an input now
    link.symlink_to(photo)
    hard.hardlink_to(photo)
    for path in (photo, link, hard, tmp_path / "." / "a.jpg"):
        with pytest.raises(UsageError, match="one of the inputs"):
            check_outputs([path], [photo])
    with pytest.raises(UsageError, match="two outputs"):
        check_outputs([tmp_path / "x.png", tmp_path / "." / "x.png"])
    check_outputs([tmp_path / "b.jpg", None, tmp_path, "/dev/stdout"], [photo, tmp_path / "missing.jpg"])


def test_what_a_link_points_to_is_what_counts(tmp_path: Path) -> None:
    before = foreign(tmp_path / "photo.jpg")
    (tmp_path / "page.html").symlink_to(tmp_path / "photo.jpg")
    with pytest.raises(UsageError, match="did not write"), own_file(tmp_path / "page.html") as file:
        file.write(b"page")
    assert (tmp_path / "photo.jpg").read_bytes() == before


def test_a_report_is_ours(tmp_path: Path) -> None:
    for _ in range(2):
        report = HtmlReport(tmp_path / "r.html")
        report.finish()
        assert is_ours(tmp_path / "r.html")


def test_a_list_of_failures_is_ours_by_its_columns(tmp_path: Path) -> None:
    from facepipe.outputs.owned import check_files
    from facepipe.outputs.results import failures_path, write_failures

    out = tmp_path / "r.jsonl"
    write_failures(out, [("a.jpg", "is empty")])
    assert is_ours(failures_path(out))
    catalog = tmp_path / "r.jsonl.catalog"
    check_files(out, catalog, None, [], ours=False)
    for report in (out, failures_path(out), tmp_path / "." / catalog.name):
        with pytest.raises(UsageError, match="two outputs"):
            check_files(out, catalog, report, [], ours=False)
    failures_path(out).write_text("my notes")
    with pytest.raises(UsageError, match="did not write"):
        check_files(out, catalog, None, [], ours=False)


@pytest.mark.models
def test_the_demo_does_not_draw_over_a_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = foreign(Path("facepipe-demo.png"))
    assert run("demo") == 2
    assert Path("facepipe-demo.png").read_bytes() == before
    Path("list.csv").write_text("a,b,same\n")
    Path("c.npz").write_bytes(b"mine")
    for option in (["--sheet", "facepipe-demo.png"], ["--cache", "c.npz"], ["--cache", "list.csv"]):
        assert run("evaluate", "verify", "--pairs", "list.csv", "--images", ".", *option) == 2, option
    assert Path("list.csv").read_text() == "a,b,same\n"


def test_what_may_not_be_looked_into_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert is_gone(tmp_path / "nothing") and is_gone(tmp_path / "link" / "deeper")
    assert not is_gone(tmp_path) and not is_gone(tmp_path / "link")

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.lstat", refuse)
    assert not is_gone(tmp_path / "nothing")


def test_the_reason_is_told_when_nothing_can_be_tidied_up_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="Read-only file system"), atomic_file(tmp_path / "page.html") as file:
        file.write(b"x")
