"""`facepipe identify`, `scan` and `batch` with videos, as a user runs them, with the real networks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import facepipe as library
from facepipe.cli import main
from facepipe.embed.clips import frame_at
from facepipe.images.video import open_video
from tests.videos import crossing, cut_off, faces, write_video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a gallery of the two people, a video of both, and a damaged one."""
    folder = tmp_path_factory.mktemp("film")
    with library.Gallery(folder / "gallery") as gallery:
        for name, rgb in zip(("Eileen", "Grace"), faces(), strict=True):
            assert len(list(gallery.enroll(rgb, name=name, quick=True))) == 1
    clip = write_video(
        folder / "clip.mp4", crossing(6, (960, 480)), options={"g": "10"}, container={"movflags": "faststart"}
    )
    cut_off(clip, 0.6)
    return folder


@pytest.fixture
def facepipe(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(place)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as raised:
            main([str(argument) for argument in arguments])
        return int(raised.value.code or 0), *capfd.readouterr()

    return run


def test_a_table_says_who_is_seen_from_when_to_when(facepipe: Run) -> None:
    code, out, _ = facepipe("identify", "clip.mp4")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["photo", "face", "seen"]
    assert {line[3 if line[0] == "clip.mp4" else 2] for line in lines[1:-1]} == {"known"}
    assert {name for line in lines[1:-1] for name in line if name in {"Eileen", "Grace"}} == {"Eileen", "Grace"}


def test_frames_are_sampled_as_asked(facepipe: Run) -> None:
    counts = []
    for options in ([], ["--every-seconds", "0.5"], ["--every-seconds", "2"], ["--keyframes"]):
        code, out, _ = facepipe("identify", "clip.mp4", "--json", *options)
        (record,) = json.loads(out)
        assert code == 0 and {track["person"] for track in record["tracks"]} == {"Eileen", "Grace"}
        counts.append(max(track["frames"] for track in record["tracks"]))
    assert counts[1] > counts[0] > counts[2]
    assert facepipe("identify", "clip.mp4", "--every-seconds", "0")[0] == 2


def test_a_damaged_video_is_answered_as_far_as_it_could_be_read(facepipe: Run, place: Path) -> None:
    (place / "sound.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    for command in (
        ["identify"],
        ["scan", "--catalog", "t.catalog"],
        ["batch", "--out", "t.jsonl", "--report", "t.html"],
    ):
        code, out, _ = facepipe(*command, "clip-cut.mp4", "sound.mp4")
        assert code == 7 and "2 videos" in out and "photo" not in out.replace("photo  ", "")
    assert "2 videos, " in (place / "t.html").read_text()
    for command in (["identify", "clip-cut.mp4", "--jsonl"], ["scan", "clip-cut.mp4", "--catalog", "s.catalog"]):
        code, _, err = facepipe(*command)
        assert code == 7 and "clip-cut.mp4: " in err and "could be read" in err
    assert facepipe("batch", "clip-cut.mp4", "--out", "r.jsonl")[0] == 7
    record = json.loads((place / "r.jsonl").read_text())
    assert record["error"] is None and record["damage"] and record["tracks"]


def test_a_copy_of_the_video_has_frames_and_names(facepipe: Run, place: Path) -> None:
    code, out, _ = facepipe("identify", "clip.mp4", "--annotate", "named.mp4", "--crops", "crops", "--jsonl")
    assert code == 0
    record = json.loads(out)
    assert len(list((place / "crops").glob("*.jpg"))) == len(record["faces"])
    with open_video(place / "named.mp4", "named.mp4", every_seconds=0.0) as copy:
        assert sum(1 for _ in copy.frames()) == 60
    for face, track in zip(record["faces"], record["tracks"], strict=True):
        before, after = (
            frame_at(place / name, name, track["best_frame"]).rgb.astype(int) for name in ("clip.mp4", "named.mp4")
        )
        x1, y1, x2, _ = (round(value) for value in face["box"])
        changed = np.abs(after - before).max(axis=2)[max(0, y1 - 2) : y1 + 3, max(0, x1) : x2]
        assert changed.max(axis=0).mean() > 60, track  # the upper side of the frame
    assert facepipe("identify", "clip.mp4", "--annotate", "named.mp4", "-q")[0] == 0
    assert facepipe("identify", "clip.mp4", "clip-cut.mp4", "--annotate", "named.mp4")[0] == 2
    PIL.Image.fromarray(faces()[0]).save(place / "mine.mp4", "PNG")
    assert facepipe("identify", "clip.mp4", "--annotate", "mine.mp4")[0] == 2
    assert facepipe("identify", "clip.mp4", "--annotate", "named.jpg")[0] == 2 and not Path("named.jpg").exists()


def test_enroll_takes_a_video(facepipe: Run) -> None:
    code, out, err = facepipe("enroll", "clip.mp4", "--name", "Somebody", "--gallery", "other")
    assert code == 4 and "2 people are seen in it" in err
    code, out, _ = facepipe("enroll", "clip.mp4", "--name", "Somebody", "--face", "1", "--gallery", "other")
    assert code == 0 and re.search(r"^1 video \([1-5] frames?\): [1-5] enrolled$", out, re.MULTILINE)
