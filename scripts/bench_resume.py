"""kill -9 at random moments of a batch with the real networks, resumed each time: is all it wrote that of a run nobody stopped?

Each batch is killed and started again until a run reaches its end; as many batches are made as it takes to kill the wanted number of
times. Compared are the results (JSON lines, CSV and Parquet in turn), the list of failures, the catalog and the vectors in it, crops,
annotated copies, sorted folders, and the report without its remarks on when and how fast it was made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SUFFIXES = (".jsonl", ".csv", ".parquet")
#: Lists what was written into a folder (SQLite).
LIST = ".facepipe-files"
FOLDERS = ("crops", "annotated", "sorted")
#: Date, duration, rate and how much was done by earlier runs, in the report's heading.
REMARKS = re.compile(rb'"meta":\[.*?"model ')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--faces", type=Path, default=Path("../shared/faces"), help="folder with people/, scenes/ and lfw/"
    )
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=0.25, help="share of a whole run that none lives beyond")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from facepipe.outputs.results import write_output
    from scripts.benchlib import machine

    print(machine())
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        enrol(options.faces, root)
        (root / "list").write_text("\n".join(photos(options.faces, options.photos)))
        started = time.monotonic()
        whole = Run(root, "whole", ".jsonl")
        whole.start().wait()
        takes = time.monotonic() - started
        lines = whole.out.read_text().splitlines()
        for suffix in SUFFIXES[1:]:
            write_output(whole.out.with_suffix(suffix), lines)
        expected = whole.facts()
        print(f"{len(lines)} photos, undisturbed: {takes:.1f} s; {expected['counts']}", flush=True)
        when: Counter[str] = Counter()
        number = 0
        while when.total() < options.kills:
            run = Run(root, f"out{number}", SUFFIXES[number % len(SUFFIXES)])
            while (
                moment := run.disturbed(rng, takes * options.longest, when["while it wrote the results"])
            ) is not None:
                when[moment] += 1
            same(run, whole, expected)
            number += 1
            print(f"batch {number} ({run.out.suffix}) came to its end, {when.total()} kills until now", flush=True)
        told = ", ".join(f"{count} {moment}" for moment, count in when.most_common())
        print(f"{when.total()} kills: {told}")
        print(
            f"{number} of {number} batches came to their end with all that the undisturbed run wrote, each photo once"
        )


class Run:
    """One batch with all its outputs in a folder of its own."""

    def __init__(self, root: Path, name: str, suffix: str) -> None:
        self.folder = root / name
        self.folder.mkdir()
        self.out = self.folder / f"out{suffix}"

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "facepipe",
            "batch",
            "--files-from",
            "../list",
            "--gallery",
            "../gallery",
            "-q",
        ]
        command += ["--out", self.out.name, "--report", "report.html", "--sort-into", "sorted", "--crops", "crops"]
        command += ["--annotate", "annotated"]
        return subprocess.Popen(command, cwd=self.folder, env=environment(), stderr=subprocess.DEVNULL)

    def disturbed(self, rng: random.Random, longest: float, met_end: int) -> str | None:
        """Run until killed at a random moment and say when that was; None when the run came to its end first.

        Every second run that reaches the writing of results is killed there.
        """
        before, seen = self.recorded(), self.made()
        process = self.start()
        deadline = time.monotonic() + rng.uniform(0.1, longest)
        at_end = rng.random() < 0.5 and met_end < 12
        while process.poll() is None:
            if at_end and any(self.folder.glob(".*.tmp")):
                deadline = min(deadline, time.monotonic() + rng.uniform(0.0, 0.1))
            if time.monotonic() >= deadline:
                writing = any(self.folder.glob(".*.tmp")) or self.out.exists()
                process.kill()
                process.wait()
                if writing:
                    return "while it wrote the results"
                if self.made() != seen:
                    return "while it made the outputs"
                return "before its first photo" if self.recorded() == before else "among the photos"
            time.sleep(0.002)
        if process.returncode not in (0, 7):  # 7: some of the photos are no pictures
            sys.exit(f"{self.folder.name}: exit code {process.returncode}, {-process.returncode == signal.SIGKILL}")
        return None

    def made(self) -> int:
        """Return the number of files in the folders."""
        return sum(len(names) for name in FOLDERS for _, _, names in os.walk(self.folder / name))

    def recorded(self) -> int:
        """Return the number of photos that were scanned, and of results, in the catalog."""
        catalog = Path(f"{self.out}.catalog")
        if not catalog.exists():
            return 0
        with sqlite3.connect(catalog) as database:
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            query = "SELECT count(*) + coalesce(sum(record != ''), 0) FROM photo"
            found = int(database.execute(query).fetchone()[0]) if tables else 0
        database.close()
        return found

    def facts(self) -> dict[str, object]:
        """Return everything that was written, as digests."""
        facts: dict[str, object] = {}
        for name in FOLDERS:
            for path in sorted((self.folder / name).rglob("*")):
                if path.is_symlink():
                    facts[str(path.relative_to(self.folder))] = str(path.readlink())
                elif path.name == LIST:
                    with sqlite3.connect(path) as database:
                        facts[f"{name}'s list"] = database.execute(
                            "SELECT photo, name, key, what = '' FROM file ORDER BY photo, name"
                        ).fetchall()
                    database.close()
                elif path.is_file() and not path.name.startswith(LIST):
                    facts[str(path.relative_to(self.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        failures = self.folder / "out.failures.csv"
        facts["failures"] = failures.read_bytes() if failures.exists() else b""
        facts["report"] = REMARKS.sub(b"", (self.folder / "report.html").read_bytes())
        with sqlite3.connect(f"{self.out}.catalog") as database:
            columns = "name, stamp, content, position, scanned, decided, reason, vanished, record"
            facts["catalog"] = database.execute(f"SELECT {columns} FROM photo ORDER BY position").fetchall()
            facts["faces and vectors"] = database.execute("SELECT * FROM description ORDER BY content").fetchall()
            facts["thumbnails"] = database.execute("SELECT * FROM thumbnail ORDER BY content, number").fetchall()
        database.close()
        facts["counts"] = Counter(name.split("/")[0] for name in facts if "/" in name)
        return facts


def same(run: Run, whole: Run, expected: dict[str, object]) -> None:
    """Stop with a message unless a run wrote all that the undisturbed one did, and each photo once."""
    if run.out.read_bytes() != whole.out.with_suffix(run.out.suffix).read_bytes():
        sys.exit(f"{run.out}: differs from the undisturbed results")
    got = run.facts()
    for name in sorted(expected.keys() | got.keys()):
        if got.get(name) != expected.get(name):
            sys.exit(f"{run.folder.name}: {name} differs: {expected.get(name)!r:.300} became {got.get(name)!r:.300}")
    paths = [json.loads(row[-1])["path"] for row in got["catalog"]]  # type: ignore[attr-defined]
    if len(paths) != len(set(paths)):
        sys.exit(f"{run.folder.name}: {len(paths)} records of {len(set(paths))} photos")
    strays = [path.name for path in run.folder.rglob(".*.tmp")]
    if strays:
        sys.exit(f"{run.folder.name}: unfinished files were left: {strays}")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


def enrol(faces: Path, root: Path) -> None:
    for person in sorted((faces / "people").iterdir())[:20]:
        (root / "enrol" / person.name).mkdir(parents=True)
        for photo in person.glob("enroll-*"):
            (root / "enrol" / person.name / photo.name).symlink_to(photo.resolve())
    command = [sys.executable, "-m", "facepipe", "enroll", "enrol", "--gallery", "gallery", "--faces", "largest"]
    subprocess.run(command, cwd=root, env=environment(), capture_output=True, check=False)


def photos(faces: Path, count: int) -> list[str]:
    """Return probes of enrolled people and of strangers, scenes, LFW photos and files that are no usable picture."""
    people = sorted(faces.glob("people/*/probe-*"))[: count * 2 // 5]
    scenes = sorted((faces / "scenes").iterdir())[: count * 2 // 25]
    traps = sorted(path for path in (faces / "traps").rglob("*") if path.is_file())[: count // 50]
    lfw = sorted((faces / "lfw").glob("*/*.jpg"))
    chosen = [*people, *scenes, *traps]
    return [str(path.resolve()) for path in [*chosen, *lfw[: count - len(chosen)]]]


if __name__ == "__main__":
    main()
