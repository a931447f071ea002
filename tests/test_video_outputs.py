"""What is made of the record of a video: every output shows a track as one face, with the time in which it is seen."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import facepipe
from facepipe.embed.clips import frame_at
from facepipe.errors import ImageError, InputError
from facepipe.outputs.csvfile import CsvWriter
from facepipe.outputs.sidecars import change_for
from facepipe.outputs.table import photo_table, summary
from facepipe.records import to_record
from facepipe.types import Recognized
from tests.batch_fixtures import paint, recognizer, run
from tests.video_fixtures import paint_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_video(tmp_path_factory.mktemp("clips") / "clip.mkv")


def test_a_recognizer_watches_videos_among_photos(clip: Path, tmp_path: Path) -> None:
    (video, photo) = recognizer(people=["red", "blue"])([str(clip), paint(tmp_path / "a.png", "blue")])
    assert isinstance(video, Recognized) and isinstance(photo, Recognized)
    assert [face.person for face in video.predictions] == ["red", "blue", "red", None]
    assert video.clip == facepipe.Clip(10.0) and photo.clip is None
    record = to_record(video)
    assert record["tracks"][1] == {"from": 2.0, "to": 3.0, "person": "blue", "best_frame": 2.0, "frames": 2}
    assert (record["duration"], record["damage"]) == (10.0, None)
    assert not {"duration", "tracks", "damage"} & to_record(photo).keys()


def test_tables_say_when_somebody_is_seen(clip: Path) -> None:
    (record,) = [to_record(video) for video in recognizer(people=["red", "blue"])(str(clip))]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(photo_table([record], 100))
    text = console.export_text()
    assert "seen" in text and "0:00–0:02" in text and "0:08 " in text
    assert summary([record]) == "1 video, 4 faces: 3 known, 1 unknown"
    assert summary([record, {**record, "tracks": []}]).startswith("2 videos")
    file = io.StringIO()
    CsvWriter(file).add(record)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [(row["from"], row["to"], row["best_frame"], row["frames"], row["duration"]) for row in rows][:2] == [
        ("0.0", "2.0", "0.0", "3", "10.0"),
        ("2.0", "3.0", "2.0", "2", "10.0"),
    ]


def test_a_batch_makes_everything_of_videos_and_nothing_twice(clip: Path, tmp_path: Path) -> None:
    folders: dict[str, Any] = {name: tmp_path / name for name in ("annotate", "crops", "sort_into")}
    report = tmp_path / "page.html"
    counts, _ = run(tmp_path / "r.parquet", clip, report=report, sidecars=True, **folders)
    assert counts.unwritten == 0
    for name in ("annotate", "crops"):
        pictures = sorted(folders[name].glob("clip-*.jpg"))
        assert len(pictures) == 4
        blue = np.asarray(PIL.Image.open(pictures[1]), int).reshape(-1, 3)
        assert (blue[:, 2] - blue[:, :2].max(axis=1)).max() > 150  # it shows the frame that has blue in it
    assert (folders["sort_into"] / "people" / "red" / clip.name).readlink() == clip
    assert "0:00–0:02" in report.read_text() and "clip.mkv#t=2.00" in report.read_text()
    assert not clip.with_name("clip.mkv.xmp").exists()
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert [(row["from"], row["frames"]) for row in table] == [(0.0, 3), (2.0, 2), (8.0, 1), (9.0, 1)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    run(tmp_path / "r.parquet", clip, report=report, sidecars=True, **folders)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")} == before


def test_a_report_that_is_wanted_later_has_thumbnails(clip: Path, tmp_path: Path) -> None:
    run(tmp_path / "r.jsonl", clip, keep=False)
    run(tmp_path / "r.jsonl", clip, keep=False, report=tmp_path / "page.html")
    assert "/9j/" in (tmp_path / "page.html").read_text()


def test_a_changed_video_is_scanned_again_before_it_is_drawn(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(clip.read_bytes())
    stat = copy.stat()
    run(tmp_path / "r.jsonl", copy)
    other = paint_video(tmp_path / "other.mkv", [("blue",)] * 3).read_bytes()
    copy.write_bytes(other)
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    _, (record,) = run(tmp_path / "r.jsonl", copy, crops=tmp_path / "crops")
    assert [track["person"] for track in record["tracks"]] == ["blue"]


def test_regions_are_for_pictures(clip: Path) -> None:
    (video,) = recognizer()(str(clip))
    assert change_for(clip, to_record(video)) is None


def test_a_frame_is_found_again_by_its_time(clip: Path) -> None:
    image = frame_at(clip, "clip.mkv", 2.0)
    assert image.rgb[70, 40, 0] > 200 and image.rgb[70, 120, 2] > 200
    with pytest.raises(InputError, match="has no frame"):
        frame_at(clip, "clip.mkv", 20.0)


def test_where_a_photo_is_wanted_a_video_is_refused_in_a_line(clip: Path) -> None:
    with pytest.raises(ImageError, match="is a video, and a photo is wanted here"):
        facepipe.detect(clip)
