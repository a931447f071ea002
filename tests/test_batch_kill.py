"""kill -9 at random moments: the next run goes on, and the output is that of a run that nobody stopped."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.batch_fixtures import paint_many

ROOT = Path(__file__).parent.parent


def start(photos: Path, out: Path, *people: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.kill_target", str(photos), str(out), *(people or ("red", "blue"))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_killed_batch_ends_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint_many(photos, 200, broken=(11, 150))
    with start(photos, tmp_path / "whole.jsonl") as process:
        assert process.wait() == 0
    whole = (tmp_path / "whole.jsonl").read_text()
    out = tmp_path / "out.jsonl"
    rng = random.Random(3)
    for _ in range(5):
        with start(photos, out) as process:
            time.sleep(rng.uniform(0.0, 0.6))
            process.kill()
        assert not out.exists() or out.read_text() == whole
    with start(photos, out) as process:
        assert process.wait() == 0
    assert out.read_text() == whole
    paths = [json.loads(line)["path"] for line in whole.splitlines()]
    assert len(paths) == len(set(paths)) == 200
    assert not list(tmp_path.glob(".*.tmp"))


def crops(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.with_suffix(".crops").iterdir() if path.suffix == ".jpg"}


def test_a_comparison_that_is_killed_ends_as_a_batch_from_scratch(tmp_path: Path) -> None:
    """Between the kills the gallery changes back and forth, so that crops of a killed run could pass for those of another."""
    photos, out = tmp_path / "photos", tmp_path / "out.jsonl"
    paint_many(photos, 150, broken=(11,))
    galleries = [("red", "blue"), ("green",), ("red", "cyan", "magenta")]
    with start(photos, tmp_path / "whole.jsonl", *galleries[1]) as process:
        assert process.wait() == 0
    with start(photos, out, *galleries[0]) as process:
        assert process.wait() == 0
    rng = random.Random(4)
    for number in range(6):
        with start(photos, out, *galleries[number % 3]) as process:
            time.sleep(rng.uniform(0.0, 0.3))
            process.kill()
    with start(photos, out, *galleries[1]) as process:
        assert process.wait() == 0
    assert out.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert crops(out) == crops(tmp_path / "whole.jsonl")
