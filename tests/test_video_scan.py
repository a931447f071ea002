"""A scan looks at videos: tracks in the catalog, a run that was stopped goes on inside a video, damaged ones, and what changes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepipe.batch import thumbnails_of
from facepipe.catalog import videos
from facepipe.catalog.catalog import Catalog
from facepipe.catalog.counts import Counts
from facepipe.catalog.scan import ScanOptions
from facepipe.types import Clip, Described, Detected, Failed, Image, Sampling
from tests.batch_fixtures import paint, recognizer, run
from tests.video_fixtures import STORY, Looked, describer, paint_video
from tests.videos import cut_off

ROOT = Path(__file__).parent.parent
OPTIONS = ScanOptions(1, thumbnails=thumbnails_of)


def spans(photo: Described | Failed) -> list[tuple[float, float, int]]:
    assert isinstance(photo, Described)
    return [(span.start, span.end, span.frames) for face in photo.faces if (span := face.span) is not None]


def scanned(place: Path, *paths: Path, look: Looked | None = None, **keywords: Any) -> list[Described | Failed]:
    with Catalog(place, write=True) as catalog:
        catalog.scan(paths, describer(look), OPTIONS, **keywords)
        return list(catalog.photos())


def rows(place: Path, table: str) -> list[Any]:
    connection = sqlite3.connect(place)
    try:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
    finally:
        connection.close()


def test_a_video_is_one_photo_whose_faces_are_its_tracks(tmp_path: Path) -> None:
    clip, photo = paint_video(tmp_path / "clip.mkv"), paint(tmp_path / "photo.png", "red")
    (video, still) = scanned(tmp_path / "c.catalog", clip, photo)
    assert spans(video) == [(0.0, 2.0, 3), (2.0, 3.0, 2), (8.0, 8.0, 1), (9.0, 9.0, 1)]
    assert isinstance(video, Described) and isinstance(still, Described)
    assert (video.size, video.clip, still.clip, spans(still)) == ((640, 480), Clip(10.0), None, [])
    with Catalog(tmp_path / "c.catalog") as catalog:
        content = next(content for content, name, _, _ in catalog.contents() if name == str(clip))
        jpegs = [catalog.thumbnail(content, number) for number in range(5)]
    assert all(jpeg and jpeg.startswith(b"\xff\xd8") for jpeg in jpegs[:4]) and jpegs[4] is None


def test_what_a_video_is_sampled_by_does_not_touch_photos(tmp_path: Path) -> None:
    paths = [paint_video(tmp_path / "clip.mkv"), paint(tmp_path / "photo.png", "red")]
    assert len(scanned(tmp_path / "c.catalog", *paths)) == 2
    again = Looked()
    scanned(tmp_path / "c.catalog", *paths, look=again)
    assert again.count == 0
    other = describer(again)
    other.sampling = Sampling(0.5)
    with Catalog(tmp_path / "c.catalog", write=True) as catalog:
        catalog.begin(other.facts, videos=other.video_facts)
        assert catalog.scan(paths, other, OPTIONS).fresh == 1
        assert spans(next(iter(catalog.photos())))[0] == (0.0, 2.5, 6)
    assert again.count == 20


class StoppedError(Exception):
    pass


def stopper(after: int) -> Any:
    calls = []

    def show(counts: Counts) -> None:
        calls.append(counts.inside)
        if len(calls) == after:
            raise StoppedError

    return show


@pytest.mark.parametrize("after", [1, 3, 6, 9])
def test_a_stopped_scan_goes_on_inside_the_video(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "NOTE_EVERY", 0.0)
    monkeypatch.setattr(videos, "_SHARE", 0)
    clip = paint_video(tmp_path / "clip.mkv")
    scanned(tmp_path / "whole.catalog", clip)
    with pytest.raises(StoppedError):
        scanned(tmp_path / "c.catalog", clip, show=stopper(after))
    look = Looked()
    scanned(tmp_path / "c.catalog", clip, look=look)
    assert look.count <= len(STORY) - after + 2
    for table in ("description", "thumbnail", "video"):
        assert rows(tmp_path / "c.catalog", table) == rows(tmp_path / "whole.catalog", table)
    assert not rows(tmp_path / "c.catalog", "video")


def test_a_changed_or_damaged_note_is_not_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "NOTE_EVERY", 0.0)
    monkeypatch.setattr(videos, "_SHARE", 0)
    clip, place = paint_video(tmp_path / "clip.mkv"), tmp_path / "c.catalog"
    for harm in (
        "UPDATE video SET data = substr(data, 1, 60)",
        "UPDATE video SET data = x''",
        "UPDATE video SET key = 'old'",
    ):
        with pytest.raises(StoppedError):
            scanned(place, clip, show=stopper(6))
        with sqlite3.connect(place) as connection:
            connection.execute(harm)
        connection.close()
        look = Looked()
        (video,) = scanned(place, clip, look=look)
        assert look.count == len(STORY) and len(spans(video)) == 4
        place.unlink()


def test_vectors_that_are_not_kept_are_not_noted_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "NOTE_EVERY", 0.0)
    clip = paint_video(tmp_path / "clip.mkv")
    with pytest.raises(StoppedError):
        run(tmp_path / "r.jsonl", clip, keep=False, show=stopper(1))
    assert not rows(tmp_path / "r.jsonl.catalog", "video")
    _, (record,) = run(tmp_path / "r.jsonl", clip, keep=False)
    assert [track["person"] for track in record["tracks"]] == ["red", "blue", "red", None]


def killed(place: Path, lines: int) -> None:
    """Scan in another process and kill it when it has said so many lines."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.video_fixtures", str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("lines", [4, 8])
def test_kill_9_inside_a_video_loses_little(tmp_path: Path, lines: int) -> None:
    clip = paint_video(tmp_path / "clip.mkv", STORY * 3)
    scanned(tmp_path / "whole.catalog", clip)
    killed(tmp_path, lines)
    look = Looked()
    scanned(tmp_path / "c.catalog", clip, look=look)
    assert 0 < look.count <= 3 * len(STORY) - (lines - 3)
    for table in ("description", "thumbnail"):
        assert rows(tmp_path / "c.catalog", table) == rows(tmp_path / "whole.catalog", table)


def test_a_video_that_was_cut_off_keeps_what_was_readable_and_says_so(tmp_path: Path) -> None:
    clip = cut_off(paint_video(tmp_path / "clip.mkv"), 0.5)
    counts, (record,) = run(tmp_path / "r.jsonl", clip)
    assert record["error"] is None and record["tracks"][0]["person"] == "red"
    assert "from" in record["damage"]
    assert (counts.failed, counts.cut_short) == (0, 1)
    (_, failures) = (tmp_path / "r.failures.csv").read_text().splitlines()
    assert failures.count(str(clip)) == 1 and "the results hold what could be read" in failures
    counts, _ = run(tmp_path / "r.jsonl", clip)
    assert (counts.fresh, counts.cut_short) == (0, 1)


class Spoiling(Looked):
    """Fails on frames in which a colour is painted."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        for image in images:
            others = np.delete(image.rgb.astype(int), self.channel, axis=2).max(axis=2)
            if (image.rgb[..., self.channel] - others).max() > 150:
                raise RuntimeError("no memory for this frame")
        return super().detect(images)


def test_frames_that_cannot_be_processed_are_said_and_stop_nothing(tmp_path: Path) -> None:
    clip = paint_video(tmp_path / "clip.mkv")
    (video,) = scanned(tmp_path / "c.catalog", clip, look=Spoiling(2))
    assert isinstance(video, Described) and video.clip is not None
    assert video.clip.damage == "frames from 2.0 s on could not be processed"
    assert spans(video) == [(0.0, 1.0, 2), (8.0, 8.0, 1), (9.0, 9.0, 1)]
    (failed,) = scanned(tmp_path / "d.catalog", paint_video(tmp_path / "red.mkv", [("red",)] * 3), look=Spoiling(0))
    assert isinstance(failed, Failed) and "no memory for this frame" in failed.reason


def test_what_is_no_video_failed(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"#EXTM3U\nhttp://example.com/x.ts\n")
    os.mkfifo(tmp_path / "pipe.mp4")
    for photo in scanned(tmp_path / "c.catalog", tmp_path / "clip.mp4", tmp_path / "pipe.mp4", tmp_path / "no.mp4"):
        assert isinstance(photo, Failed) and photo.reason.count("\n") == 0


def test_a_person_is_named_in_each_track_that_is_not_at_the_same_time(tmp_path: Path) -> None:
    clip = paint_video(tmp_path / "clip.mkv", [("red", "red"), ("red", "red"), (), (), (), (), ("red",)])
    who = recognizer(people=["red", "blue"])
    _, (record,) = run(tmp_path / "r.jsonl", clip, who=who)
    assert sorted(track["person"] or "" for track in record["tracks"]) == ["", "red", "red"]


def test_equal_videos_are_looked_at_once(tmp_path: Path) -> None:
    clip = paint_video(tmp_path / "clip.mkv")
    (tmp_path / "copy.mkv").write_bytes(clip.read_bytes())
    look = Looked()
    photos: Iterable[Described | Failed] = scanned(tmp_path / "c.catalog", clip, tmp_path / "copy.mkv", look=look)
    assert look.count == len(STORY)
    assert [len(spans(photo)) for photo in photos] == [4, 4]
