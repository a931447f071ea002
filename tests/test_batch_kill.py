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


def start(photos: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.kill_target", str(photos), str(out)]
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
