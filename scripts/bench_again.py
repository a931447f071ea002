"""What the same batch costs after one more person was enrolled, against a batch from scratch, in interleaved turns.

Of each turn: processor and wall seconds of both, whole processes, and whether their results are equal byte for byte. At the end the
size of the catalog for each photo, with and without embeddings.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.benchlib import machine, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=Path("../shared/faces"), help="folder with people/ and lfw/")
    parser.add_argument("--photos", type=int, default=2000, help="photos of LFW")
    parser.add_argument("--people", type=int, default=20, help="people who are enrolled at first")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("options", nargs="*", help="further options of batch, after --: --crops crops, --report r.html")
    options = parser.parse_args()
    print(machine())
    people = sorted((options.faces / "people").iterdir())[: options.people + options.turns]
    if len(people) < options.people + options.turns:
        sys.exit(f"{options.faces}/people: has {len(people)} people, {options.people + options.turns} are needed")
    photos = sorted((options.faces / "lfw").glob("*/*.jpg"))[: options.photos]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "list").write_text("".join(f"{path.resolve()}\n" for path in photos))
        enrol(root, people[: options.people])
        batch(root, "again", options.options)
        ratios: dict[str, list[float]] = {"processor": [], "wall": []}
        figures: dict[str, list[float]] = {}
        for turn, person in enumerate(people[options.people :]):
            enrol(root, [person])
            runs = ["again", f"scratch{turn}"]
            taken = {name: batch(root, name, options.options) for name in (runs if turn % 2 else reversed(runs))}
            for place, what in enumerate(ratios):
                ratios[what].append(taken[runs[1]][place] / taken[runs[0]][place])
                for name in runs:
                    figures.setdefault(f"{name.rstrip('0123456789')}, {what} seconds", []).append(taken[name][place])
            if (root / "again.jsonl").read_bytes() != (root / f"{runs[1]}.jsonl").read_bytes():
                sys.exit(f"turn {turn}: the results differ from those of a batch from scratch")
        print(f"{len(photos)} photos of LFW, {options.people} people and one more in each turn")
        for what, values in figures.items():
            print(f"{what}: {spread(values)}")
        for what, values in ratios.items():
            print(f"scratch / again, {what} time: {spread(values, 1)}")
        print(f"results: equal byte for byte in {options.turns} of {options.turns} turns")
        size = catalog_size(root)
        batch(root, "again", [*options.options, "--no-keep-embeddings"])
        print(
            f"catalog: {size / len(photos):.0f} bytes a photo, {catalog_size(root) / len(photos):.0f} without embeddings"
        )


def enrol(root: Path, people: list[Path]) -> None:
    """Enrol the photos of people that are meant for it."""
    for person in people:
        photos = [str(path.resolve()) for path in sorted(person.glob("enroll-*"))]
        run(root, ["enroll", *photos, "--name", person.name, "--faces", "largest", "-q"])


def batch(root: Path, name: str, options: list[str]) -> tuple[float, float]:
    """Run a batch to its end; return its processor and wall seconds."""
    return run(root, ["batch", "--files-from", "list", "--out", f"{name}.jsonl", "-q", *options])


def run(root: Path, arguments: list[str]) -> tuple[float, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = [sys.executable, "-m", "facepipe", *arguments, "--gallery", "gallery"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in {0, 7}:  # 7: some of the photos were left out, or are no pictures
        sys.exit(f"facepipe {arguments[0]}: exit code {done.returncode}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def catalog_size(root: Path) -> int:
    return (root / "again.jsonl.catalog").stat().st_size


if __name__ == "__main__":
    main()
