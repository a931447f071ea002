"""A few of the faults that `scripts/faults` injects by the thousand: see `gallery_faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from facepipe.gallery.arrays import snapshot as snapshots
from facepipe.gallery.store import GalleryStore
from tests import gallery_faults as faults


@pytest.fixture(autouse=True)
def derived_files_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SMALL", 8)


@pytest.mark.parametrize("name", list(faults.WORK))
def test_a_killed_process_loses_nothing_that_was_reported(name: str, tmp_path: Path) -> None:
    assert faults.kill_trials([name], 3, 20, tmp_path) == {name: 3}


def test_a_full_disk_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    before = faults.make_template(tmp_path / "gallery", crowd=False)
    reported, error = faults.fill_until_refused(tmp_path / "gallery", 150_000)
    assert "the disk is full or failing" in error
    assert error.count("the disk") == 1
    assert reported > 0
    with GalleryStore.open(tmp_path / "gallery") as gallery:
        assert faults.state_of(gallery) == faults._after_enroll(before, reported)


@pytest.mark.parametrize("kilobytes", [900, 1200])
def test_a_small_disk_that_fills_and_then_is_read_only(kilobytes: int) -> None:
    outcome = faults.full_disk_trial(kilobytes)
    if "not allowed" in outcome:
        pytest.skip(f"{outcome} a small disk")
    assert "before it was full" in outcome


def test_a_corrupted_byte_is_found_mended_or_refused(tmp_path: Path) -> None:
    outcomes = faults.corrupt_trials(3, 1, tmp_path)
    assert set(outcomes) >= {"faces.sqlite", "faces.sqlite-wal", "vectors.f32", "templates.faiss"}


def test_processes_that_write_together_lose_nothing(tmp_path: Path) -> None:
    result = faults.together(tmp_path / "gallery", writers=3, each=15)
    assert (result["people"], result["failed"], result["findings"], result["wrong"], result["stale"]) == (
        45,
        0,
        0,
        0,
        0,
    )
    assert result["searches"] > 0
