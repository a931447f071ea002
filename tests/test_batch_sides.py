"""Annotated copies, crops and folders by person, made on the way."""

from __future__ import annotations

import zipfile
from pathlib import Path

from facepipe.batch.sides import Annotated, Crops, Sorted
from facepipe.images import read_image
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


def test_a_photo_in_an_archive_is_copied_out(tmp_path: Path) -> None:
    data = paint(tmp_path / "red.png", "red").read_bytes()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("deep/a.png", data)
    run(tmp_path / "out.jsonl", tmp_path / "photos.zip", side_outputs=[Sorted(tmp_path / "sorted")])
    (found,) = files(tmp_path / "sorted")
    assert found.startswith("people/red/") and (tmp_path / "sorted" / found).read_bytes() == data
