"""What a batch shows while it works, on a terminal of 60 columns and in a pipe, and what it says at the end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from facepipe.catalog.counts import Counts
from facepipe.cli import batch_progress
from facepipe.text import duration, files, plural


def counts(**values: float | str) -> Counts:
    made = Counts(stage="outputs")
    for name, value in values.items():
        setattr(made, name, value)
    return made


HALF = counts(
    found=1200, done=1200, fresh=1200, failed=3, faces=2500, known=400, ambiguous=12, unknown=2088, seconds=100.0
)


def test_both_lines_fit_into_sixty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=60, color_system=None)
    monkeypatch.setattr(batch_progress, "err_console", lambda: console)
    with batch_progress.progress(2400, quiet=False) as show:
        show(HALF)
    assert "1200/2400 12.0/s" in text.getvalue() and "left" in text.getvalue()
    assert "writing: 2,500 faces: 400 known, 12 ambiguous, 2,088 unk" in text.getvalue()


def test_a_pipe_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with batch_progress.progress(2400, quiet=False) as show:
        show(counts(found=10, fresh=10, seconds=9.0))
        assert capsys.readouterr().err == ""
        show(counts(stage="scan", found=1200, done=1200, fresh=1200, failed=3, faces=2500, seconds=100.0))
        show(counts(stage="scan", found=1300, fresh=1300, seconds=101.0))
        show(counts(stage="decide", found=2400, done=200, fresh=2400, failed=3, faces=5000, seconds=200.0))
        show(counts(found=2400, done=40, fresh=2400, faces=5000, known=5000, seconds=220.0))
    assert capsys.readouterr().err.splitlines() == [
        "1,200 of 2,400 photos, 12.0 a second, 1 min 40 s left; 2,500 faces; 3 failed",
        "comparing: 200 of 2,400 photos; 5,000 faces; 3 failed",
        "writing: 40 of 2,400 photos; 5,000 faces: 5,000 known, 0 ambiguous, 0 unknown; 0 failed",
    ]
    with batch_progress.progress(2400, quiet=True) as show:
        show(HALF)
    assert capsys.readouterr().err == ""


def test_the_end_says_what_this_run_did() -> None:
    out = Path("r.jsonl")
    assert batch_progress.summary(HALF, out).startswith("1,200 photos in 1 min 40 s (12.0 a second), 3 failed\n")
    resumed = counts(found=100, resumed=99, fresh=1, seconds=0.5, failed=1)
    assert batch_progress.summary(resumed, out).splitlines() == [
        "100 photos, 1 failed",
        "0 faces: 0 known, 0 ambiguous, 0 unknown",
        "99 photos were done by an earlier run, 1 scanned now in 0.5 s",
        "results: r.jsonl",
    ]
    assert "99 photos were done by an earlier run; nothing is new" in batch_progress.summary(
        counts(found=99, resumed=99, seconds=0.1), out
    )
    again = counts(found=2010, compared=2000, fresh=10, seconds=3.0)
    assert batch_progress.summary(again, out).splitlines()[:3:2] == [
        "2,010 photos, 0 failed",
        "the faces of 2,000 photos were compared again, 10 photos scanned in 3.0 s (670.0 a second)",
    ]
    both = counts(found=100, resumed=50, compared=49, fresh=1, seconds=3.0)
    assert batch_progress.summary(both, out).splitlines()[2] == (
        "50 photos were done by an earlier run, 49 compared again and 1 scanned now in 3.0 s"
    )


def test_videos_are_not_called_photos(capsys: pytest.CaptureFixture[str]) -> None:
    assert [files(*n) for n in ((0,), (1,), (2, 1), (2, 2), (3, None), (1, None))] == [
        *("0 photos", "1 photo", "1 photo, 1 video", "2 videos", "3 files", "1 file")
    ]
    made = counts(found=5, videos=2, resumed=4, fresh=1, vanished=1, reused=1, done=3, seconds=12.0)
    with batch_progress.progress(5, quiet=False) as show:
        show(made)
    assert "3 of 5 files" in capsys.readouterr().err
    told = batch_progress.summary(made, Path("r.jsonl"))
    assert told.startswith("3 photos, 2 videos, 0 failed") and "5 photo" not in told and "4 files were done" in told
    assert "1 photo " not in told


def test_counts_are_read_by_people() -> None:
    assert [plural(n, "person", "people") for n in (0, 1, 2000)] == ["0 people", "1 person", "2,000 people"]
    assert duration(200) == "3 min 20 s"
