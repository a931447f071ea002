"""kill -9 at random moments: the next run goes on, and all outputs are those of a run that nobody stopped."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from facepipe.catalog.store import catalog_path
from tests.batch_fixtures import paint_many

ROOT = Path(__file__).parent.parent
#: Date, duration and rate in the heading of a report.
REMARKS = re.compile(rb'"meta":\[.*?"model ')
PEOPLE = ("red", "blue")


def start(photos: Path, out: Path, *people: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.kill_target", str(photos), str(out), *people]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def finish(photos: Path, out: Path, *people: str) -> dict[str, bytes]:
    """Run to the end; return all that was written."""
    with start(photos, out, *people) as process:
        assert process.wait() == 0
    return outputs(out)


def outputs(out: Path) -> dict[str, bytes]:
    """Return every file and link of a batch but the catalog and the lists of the folders, by its place."""
    found = {"results": out.read_bytes(), "report": REMARKS.sub(b"", out.with_suffix(".html").read_bytes())}
    for name in ("annotate", "crops", "sort_into"):
        folder = out.with_suffix(f".{name}")
        for path in folder.rglob("*"):
            if path.is_symlink():
                found[f"{name}/{path.relative_to(folder)}"] = os.fsencode(path.readlink())
            elif path.is_file() and not path.name.startswith(".facepipe-"):
                found[f"{name}/{path.relative_to(folder)}"] = path.read_bytes()
    return found


def stage(out: Path) -> str:
    """Say which pass a batch is in, or was in when it was killed."""
    if not catalog_path(out).exists():
        return "nothing"
    connection = sqlite3.connect(catalog_path(out))
    try:
        finished, now = connection.execute(
            "SELECT (SELECT value FROM state WHERE name = 'finished'), (SELECT pass FROM about)"
        ).fetchone()
        (undecided,) = connection.execute(
            "SELECT count(*) FROM photo WHERE pass = ? AND record = ''", (now,)
        ).fetchone()
    except sqlite3.OperationalError:
        return "nothing"
    finally:
        connection.close()
    return "scan" if int(finished or 0) != now else "decide" if undecided else "outputs"


def test_a_killed_batch_ends_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint_many(photos, 200, broken=(11, 150))
    started = time.monotonic()
    whole = finish(photos, tmp_path / "whole.jsonl", *PEOPLE)
    takes = time.monotonic() - started
    out = tmp_path / "out.jsonl"
    rng = random.Random(3)
    killed: Counter[str] = Counter()
    for _ in range(9):
        with start(photos, out, *PEOPLE) as process:
            time.sleep(rng.uniform(0.0, 0.5 * takes))
            process.kill()
        killed[stage(out)] += 1
        assert not out.exists() or out.read_bytes() == whole["results"]
    assert finish(photos, out, *PEOPLE) == whole, killed
    assert killed["outputs"] and killed.total() > killed["outputs"], killed
    paths = [json.loads(line)["path"] for line in whole["results"].splitlines()]
    assert len(paths) == len(set(paths)) == 200
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_comparison_that_is_killed_ends_as_a_batch_from_scratch(tmp_path: Path) -> None:
    """Between the kills the gallery changes back and forth, so that pictures of a killed run could pass for those of another."""
    photos, out = tmp_path / "photos", tmp_path / "out.jsonl"
    paint_many(photos, 150, broken=(11,))
    galleries = [PEOPLE, ("green",), ("red", "cyan", "magenta")]
    whole = finish(photos, tmp_path / "whole.jsonl", *galleries[1])
    finish(photos, out, *galleries[0])
    rng = random.Random(4)
    for number in range(6):
        with start(photos, out, *galleries[number % 3]) as process:
            time.sleep(rng.uniform(0.0, 0.6))
            process.kill()
    assert finish(photos, out, *galleries[1]) == whole
