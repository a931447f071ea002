"""Power cuts lose nothing that was reported, and the simulation would notice if they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facepipe.gallery.arrays import snapshot as snapshots
from tests.power_faults import Event, after_cut, cut_trials, strace_works, whole_lines


def outcomes(tmp_path: Path, events: list[Event]) -> set[bytes | None]:
    """What may be in the file `a`, which held `old`, when the power goes after these events; None: no such file."""
    before = tmp_path / "before"
    before.mkdir()
    (before / "a").write_bytes(b"old")
    found: set[bytes | None] = set()
    for seed in range(60):
        into = tmp_path / f"{seed}"
        into.mkdir()
        after_cut(events, len(events), before, {"a": 0}, into, np.random.default_rng(seed))
        found.add((into / "a").read_bytes() if (into / "a").exists() else None)
    return found


NEW = Event("write", 1, data=b"new")
NAMES = [Event("name", 1, "a.tmp"), NEW, Event("name", 1, "a"), Event("name", -1, "a.tmp")]


def test_what_was_not_synced_may_be_lost(tmp_path: Path) -> None:
    assert outcomes(tmp_path, [Event("write", 0, data=b"new")]) == {b"old", b"new"}


def test_a_rename_without_a_sync_may_leave_nothing_in_the_file(tmp_path: Path) -> None:
    assert outcomes(tmp_path, [*NAMES, Event("sync", -1, ".")]) == {b"", bytes(3), b"new"}


def test_a_rename_after_a_sync_is_whole_or_did_not_happen(tmp_path: Path) -> None:
    synced = [*NAMES[:2], Event("sync", 1, "a.tmp"), *NAMES[2:]]
    assert outcomes(tmp_path, synced) == {b"old", b"new"}


def test_a_rename_is_sure_when_its_folder_is_synced(tmp_path: Path) -> None:
    assert outcomes(tmp_path, [*NAMES[:2], Event("sync", 1, "a.tmp"), *NAMES[2:], Event("sync", -1, ".")]) == {b"new"}


@pytest.mark.skipif(not strace_works(), reason="strace is not installed here, or may not trace")
def test_a_power_cut_loses_nothing_that_was_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SMALL", 8)
    assert sum(cut_trials(["enroll", "compact", "export"], 18, 0, tmp_path).values()) == 18


def test_a_call_that_another_thread_interrupts_in_the_log_is_one_call() -> None:
    log = ["1 lseek(7, 0, SEEK_SET <unfinished ...>\n", "2 close(3) = 0\n", "1 <... lseek resumed>) = 5\n"]
    assert list(whole_lines(log)) == ["2 close(3) = 0\n", "1 lseek(7, 0, SEEK_SET) = 5\n"]
