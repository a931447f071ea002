"""Annotated copies, crops and folders by person: what should be there, and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from facepipe.images import read_image
from tests.batch_fixtures import paint, run


def files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not (path.is_dir() or path.name[0] == ".")
    )


def folders(root: Path) -> dict[str, Any]:
    return {"annotate": root / "drawn", "crops": root / "crops", "sort_into": root / "sorted"}


def test_all_three_at_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint(photos / "both.png", "red", "green")
    paint(photos / "copy.png", "red", "green")
    paint(photos / "empty.png")
    (photos / "broken.png").write_bytes(b"no picture")
    run(tmp_path / "out.jsonl", photos, **folders(tmp_path))
    drawn = sorted((tmp_path / "drawn").glob("*.jpg"))
    assert [path.name.split("-")[0] for path in drawn] == ["both", "copy"]
    assert read_image(drawn[0]).rgb.shape == (240, 320, 3)
    assert len(files(tmp_path / "crops")) == 4
    assert files(tmp_path / "sorted") == [
        "no-face/empty.png",
        "people/red/both.png",
        "people/red/copy.png",
        "unknown/both.png",
        "unknown/copy.png",
    ]
    assert (tmp_path / "sorted/people/red/both.png").resolve() == photos / "both.png"


def test_a_changed_answer_leaves_nothing_of_the_earlier_one(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png", "red", "green")
    paint(tmp_path / "photos" / "b.png", "red")
    other = tmp_path / "crops" / "a-12345678-01-Ada.jpg"  # of a photo elsewhere that is called a.png too

    def once(key: str) -> list[str]:
        run(tmp_path / "out.jsonl", tmp_path / "photos", key=key, **folders(tmp_path))
        return [name.split("-", 2)[2] for name in files(tmp_path / "crops") if name != other.name]

    assert once("one") == ["01-red.jpg", "02-unknown.jpg", "01-red.jpg"]
    other.write_bytes(b"mine")
    paint(tmp_path / "photos" / "a.png", "blue")
    paint(tmp_path / "photos" / "b.png")
    assert once("two") == ["01-blue.jpg"]
    assert other.exists()
    assert [name.split("-")[0] for name in files(tmp_path / "drawn")] == ["a"]
    assert files(tmp_path / "sorted") == ["no-face/b.png", "people/blue/a.png"]
    (tmp_path / "photos" / "a.png").write_bytes(b"broken since")
    assert once("two") == [] and files(tmp_path / "drawn") == []
    assert files(tmp_path / "sorted") == ["no-face/b.png"]


def test_a_deleted_photo_loses_what_was_made_of_it_and_gets_it_back_when_it_returns(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    gone = paint(tmp_path / "photos" / "b.png", "green", "blue")

    def once() -> list[str]:
        run(tmp_path / "out.jsonl", tmp_path / "photos", **folders(tmp_path))
        return [name for folder in folders(tmp_path).values() for name in files(folder)]

    both = once()
    assert both[-3:] == ["people/blue/b.png", "people/red/a.png", "unknown/b.png"] and len(both) == 8
    gone.rename(tmp_path / "aside.png")
    left = once()
    assert left == [name for name in both if not Path(name).name.startswith("b")] and len(left) == 3
    assert not (tmp_path / "sorted" / "people" / "blue").exists()
    (tmp_path / "aside.png").rename(gone)
    assert once() == both


def test_copies_of_a_deleted_photo_stay_for_they_may_be_the_last(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        paint(tmp_path / "photos" / name, "red")

    def once(*roots: str, how: str) -> list[str]:
        paths = [tmp_path / "photos" / root for root in roots]
        run(tmp_path / "out.jsonl", *paths, sort_into=tmp_path / "sorted", sort_how=how)
        return [Path(name).name for name in files(tmp_path / "sorted")]

    for how in ("hardlink", "copy"):
        assert once(*names, how=how) == names
        (tmp_path / "photos" / "a.png").rename(tmp_path / "aside.png")
        assert once("b.png", "c.png", how=how) == names
        assert once(*names, how=how) == names, "named, and gone"
        assert once("b.png", how=how) == ["a.png", "b.png"], "the photo is there, so its copy is not the last"
        (tmp_path / "aside.png").rename(tmp_path / "photos" / "a.png")


def test_what_was_made_of_photos_on_a_disk_that_is_away_stays(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    paint(tmp_path / "disk" / "b.png", "green")
    roots = (tmp_path / "photos", tmp_path / "disk")
    run(tmp_path / "out.jsonl", *roots, **folders(tmp_path))
    made = [files(folder) for folder in folders(tmp_path).values()]
    (tmp_path / "disk").rename(tmp_path / "aside")
    run(tmp_path / "out.jsonl", *roots, **folders(tmp_path))
    assert [files(folder) for folder in folders(tmp_path).values()] == made


def test_pictures_that_somebody_changed_are_not_taken_away(tmp_path: Path) -> None:
    photo = paint(tmp_path / "photos" / "a.png", "red")
    paint(tmp_path / "photos" / "b.png", "blue")
    run(tmp_path / "out.jsonl", tmp_path / "photos", **folders(tmp_path))
    (crop,) = (tmp_path / "crops").glob("a-*.jpg")
    crop.write_bytes(b"mine")
    (tmp_path / "sorted/people/red/a.png").unlink()
    (tmp_path / "sorted/people/red/a.png").write_bytes(b"mine")
    photo.unlink()
    run(tmp_path / "out.jsonl", tmp_path / "photos", **folders(tmp_path))
    assert crop.read_bytes() == b"mine" == (tmp_path / "sorted/people/red/a.png").read_bytes()
    assert not list((tmp_path / "drawn").glob("a-*.jpg"))


def test_two_batches_write_to_one_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        paint(tmp_path / name / "a.png", "red")
        paint(tmp_path / name / f"{name}.png", "blue")
    for _ in range(2):
        for name in ("one", "two"):
            run(tmp_path / f"{name}.jsonl", tmp_path / name, **folders(tmp_path))
    assert [len(files(folder)) for folder in folders(tmp_path).values()] == [4, 4, 4]
    (tmp_path / "one" / "one.png").unlink()
    run(tmp_path / "one.jsonl", tmp_path / "one", **folders(tmp_path))
    assert files(tmp_path / "sorted") == ["people/blue/two.png", "people/red/a-2.png", "people/red/a.png"]


def test_a_photo_in_an_archive_is_copied_out(tmp_path: Path) -> None:
    data = paint(tmp_path / "red.png", "red").read_bytes()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("deep/a.png", data)
    run(tmp_path / "out.jsonl", tmp_path / "photos.zip", sort_into=tmp_path / "sorted")
    (found,) = files(tmp_path / "sorted")
    assert found.startswith("people/red/") and (tmp_path / "sorted" / found).read_bytes() == data


def test_photos_with_the_same_bytes_are_copied_once_also_when_nothing_is_made_yet(tmp_path: Path) -> None:
    for place in ("a/one.png", "b/one.png"):
        paint(tmp_path / "photos" / place, "red")
    how: dict[str, Any] = {"sort_into": tmp_path / "sorted", "sort_how": "copy"}
    for _ in range(2):
        run(tmp_path / "out.jsonl", tmp_path / "photos", **how)
        assert files(tmp_path / "sorted") == ["people/red/one.png"]
    paint(tmp_path / "photos" / "c/one.png", "red")
    run(tmp_path / "out.jsonl", tmp_path / "photos", **how)
    assert files(tmp_path / "sorted") == ["people/red/one.png"]
