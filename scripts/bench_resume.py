"""kill -9 at random moments of a batch with the real networks, resumed each time: is the output that of a run nobody stopped?"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--faces", type=Path, default=Path("../shared/faces"), help="folder with people/, scenes/ and lfw/"
    )
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from benchlib import machine

    print(machine())
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        enrol(options.faces, root)
        listing = root / "list"
        listing.write_text("\n".join(photos(options.faces, options.photos)))
        started = time.monotonic()
        start(root, "whole.jsonl").wait()
        takes = time.monotonic() - started
        whole = (root / "whole.jsonl").read_text()
        print(f"{len(whole.splitlines())} photos, undisturbed: {takes:.1f} s")
        kills = ends = 0
        number = 0
        while kills < options.kills:
            process = start(root, f"out{number}.jsonl")
            try:
                process.wait(timeout=rng.uniform(0.5, takes))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                continue
            ends += same(root, number, whole)
            number += 1
        start(root, f"out{number}.jsonl").wait()
        ends += same(root, number, whole)
        print(
            f"{kills} times killed; {ends} of {number + 1} batches came to their end, each with the undisturbed output"
        )


def same(root: Path, number: int, whole: str) -> bool:
    text = (root / f"out{number}.jsonl").read_text()
    paths = [json.loads(line)["path"] for line in text.splitlines()]
    if text != whole or len(paths) != len(set(paths)):
        differing = sum(a != b for a, b in zip(text.splitlines(), whole.splitlines(), strict=False))
        sys.exit(
            f"out{number}.jsonl differs: {len(paths)} records, {len(set(paths))} photos, {differing} lines not the same"
        )
    return True


def start(root: Path, out: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "facepipe",
        "batch",
        "--files-from",
        "list",
        "--out",
        out,
        "--gallery",
        "gallery",
        "-q",
    ]
    return subprocess.Popen(command, cwd=root, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


def enrol(faces: Path, root: Path) -> None:
    for person in sorted((faces / "people").iterdir())[:20]:
        (root / "enrol" / person.name).mkdir(parents=True)
        for photo in person.glob("enroll-*"):
            (root / "enrol" / person.name / photo.name).symlink_to(photo.resolve())
    command = [sys.executable, "-m", "facepipe", "enroll", "enrol", "--gallery", "gallery", "--faces", "largest"]
    subprocess.run(command, cwd=root, env=environment(), capture_output=True, check=False)


def photos(faces: Path, count: int) -> list[str]:
    """Return probes of enrolled people and of strangers, scenes, LFW photos and files that are no usable picture."""
    people = sorted(faces.glob("people/*/probe-*"))[:200]
    scenes = sorted((faces / "scenes").iterdir())[:40]
    traps = sorted(path for path in (faces / "traps").rglob("*") if path.is_file())[:10]
    lfw = sorted((faces / "lfw").glob("*/*.jpg"))
    chosen = [*people, *scenes, *traps]
    return [str(path.resolve()) for path in [*chosen, *lfw[: count - len(chosen)]]]


if __name__ == "__main__":
    main()
