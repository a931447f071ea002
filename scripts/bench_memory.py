"""Resident memory of a batch over many photos: at 10 %, 25 %, 50 %, 75 % and 100 %, and the time it takes.

What is told of is the median of the readings after each chunk of the last 3 % of all photos: a single one depends on which photos are
in work at that moment. Beside it, as they are then: anonymous memory (heap and stacks), memory shared with nobody (photos in work),
pages of files (libraries), which never grow and so make growth look smaller than it is, and the most there ever was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=Path("../shared/faces"), help="folder with lfw/ and scenes/")
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="keep thumbnails and write the report as well")
    options = parser.parse_args()
    from facepipe.cli import process

    process.settle()
    from facepipe import batch
    from facepipe.catalog.counts import Counts, Show
    from facepipe.cli import allocator
    from scripts.bench_batch import random_recognizer
    from scripts.benchlib import machine, spread

    print(machine())
    marks = [options.photos * share // 100 for share in (10, 25, 50, 75, 100)]
    seen: list[float] = []
    readings: deque[tuple[int, float]] = deque()
    stages: dict[str, str] = {}

    @contextmanager
    def progress(total: int) -> Iterator[Show]:
        yield show

    def show(counts: Counts) -> None:
        if counts.stage != "scan":
            stages[counts.stage] = f"while it was at its stage `{counts.stage}` {resident():.1f} MiB; {parts()}"
            return
        readings.append((counts.found, resident()))
        while readings[0][0] < counts.found - options.photos * 0.03:
            readings.popleft()
        while len(seen) < len(marks) and counts.found >= marks[len(seen)]:
            recent = [value for _, value in readings]
            seen.append(statistics.median(recent))
            print(
                f"{counts.found} photos, {counts.faces} faces: {spread(recent, 1)} MiB resident, {counts.seconds:.0f} s; {parts()}",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        copies(mixed(options.faces), Path(folder) / "photos", options.photos)
        recognizer = random_recognizer()
        cpu = time.process_time()
        allocator.share_arenas()
        chosen = batch.BatchOptions(options.workers, give_back=allocator.give_back, progress=progress)
        outputs = batch.Outputs(
            Path(folder) / "out.jsonl", report=Path(folder) / "report.html" if options.report else None
        )
        (counts,) = batch.run([str(Path(folder) / "photos")], outputs, lambda before, late: (recognizer, True), chosen)
        for text in stages.values():
            print(text)
        print(f"after the output is written {resident():.1f} MiB")
    cpu = time.process_time() - cpu
    rate = f"{counts.found / cpu:.1f} photos per CPU second, {counts.found / counts.seconds:.1f} per wall second"
    print(f"{rate}; memory from 10 % to 100 %: {100 * (seen[-1] / seen[0] - 1):+.1f} %")


def mixed(faces: Path) -> list[Path]:
    """Return LFW photos with a scene among every hundred."""
    lfw = sorted((faces / "lfw").glob("*/*.jpg"))
    scenes = sorted((faces / "scenes").iterdir())
    return [scenes[i // 100 % len(scenes)] if i % 100 == 50 else lfw[i % len(lfw)] for i in range(9400)]


def copies(photos: list[Path], folder: Path, count: int) -> None:
    """Write `count` photos, no two with the same bytes: what follows a JPEG's end is not looked at."""
    folder.mkdir()
    for number in range(count):
        data = photos[number % len(photos)].read_bytes()
        (folder / f"{number:06d}.jpg").write_bytes(data + f"copy {number}".encode())


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def parts() -> str:
    """Return what resident memory is made of, in words; nothing where the system does not say."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    names = {"RssAnon": "anonymous", "RssShmem": "shared", "RssFile": "files", "VmHWM": "peak"}
    return ", ".join(
        f"{word} {int(lines[name].split()[0]) / 1024:.0f}" for name, word in names.items() if name in lines
    )


if __name__ == "__main__":
    main()
