"""Annotated copies, crops and folders by person, made on the way."""

from __future__ import annotations

import zipfile
from pathlib import Path

from facepipe.images import read_image
from facepipe.outputs.sides import Annotated, Crops, Sorted
from tests.batch_fixtures import paint, run


def files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not (path.is_dir() or path.name[0] == ".")
    )


def test_all_three_at_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint(photos / "both.png", "red", "green")
    paint(photos / "copy.png", "red", "green")
    paint(photos / "empty.png")
    (photos / "broken.png").write_bytes(b"no picture")
    sides = [Annotated(tmp_path / "drawn"), Crops(tmp_path / "crops"), Sorted(tmp_path / "sorted")]
    run(tmp_path / "out.jsonl", photos, side_outputs=sides)
    drawn = sorted((tmp_path / "drawn").iterdir())
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
    (tmp_path / "crops").mkdir()
    other = tmp_path / "crops" / "a-12345678-01-Ada.jpg"  # of a photo elsewhere that is called a.png too
    other.write_bytes(b"mine")

    def once(key: str) -> list[str]:
        sides = [Annotated(tmp_path / "drawn"), Crops(tmp_path / "crops"), Sorted(tmp_path / "sorted")]
        run(tmp_path / "out.jsonl", tmp_path / "photos", key=key, side_outputs=sides)
        return [name.split("-", 2)[2] for name in files(tmp_path / "crops") if name != other.name]

    assert once("one") == ["01-red.jpg", "02-unknown.jpg", "01-red.jpg"]
    paint(tmp_path / "photos" / "a.png", "blue")
    paint(tmp_path / "photos" / "b.png")
    assert once("two") == ["01-blue.jpg"]
    assert other.exists()
    assert [name.split("-")[0] for name in files(tmp_path / "drawn")] == ["a"]
    assert files(tmp_path / "sorted") == ["no-face/b.png", "people/blue/a.png"]
    (tmp_path / "photos" / "a.png").write_bytes(b"broken since")
    assert once("two") == [] and files(tmp_path / "drawn") == []
    assert files(tmp_path / "sorted") == ["no-face/b.png"]


def test_a_deleted_photo_loses_its_link_and_gets_it_back_when_it_returns(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    gone = paint(tmp_path / "photos" / "b.png", "green", "blue")

    def once() -> list[str]:
        run(tmp_path / "out.jsonl", tmp_path / "photos", side_outputs=[Sorted(tmp_path / "sorted")])
        return files(tmp_path / "sorted")

    both = once()
    assert both == ["people/blue/b.png", "people/red/a.png", "unknown/b.png"]
    gone.rename(tmp_path / "aside.png")
    assert once() == ["people/red/a.png"] and not (tmp_path / "sorted" / "people" / "blue").exists()
    (tmp_path / "aside.png").rename(gone)
    assert once() == both


def test_a_photo_in_an_archive_is_copied_out(tmp_path: Path) -> None:
    data = paint(tmp_path / "red.png", "red").read_bytes()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("deep/a.png", data)
    run(tmp_path / "out.jsonl", tmp_path / "photos.zip", side_outputs=[Sorted(tmp_path / "sorted")])
    (found,) = files(tmp_path / "sorted")
    assert found.startswith("people/red/") and (tmp_path / "sorted" / found).read_bytes() == data
