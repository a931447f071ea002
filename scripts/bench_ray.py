"""Scans on Ray: equal to one process, workers and a node killed on the way, time for a photo, and how it scales."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from facepipe.batch import thumbnails_of
from facepipe.catalog.catalog import Catalog
from facepipe.catalog.ray_scan import RayScan, keep_local
from facepipe.catalog.scan import ScanOptions
from facepipe.catalog.sources import Source
from facepipe.cli.options import _load_on_worker
from facepipe.cli.process import settle
from facepipe.embed.describer import CPU_PHOTOS, Describer
from facepipe.loading import load_describer
from facepipe.types import Failed, Image
from scripts.benchlib import machine, spread

#: Seconds that the networks take for a photo on one core.
SECONDS = 0.04


def scan(path: Path, photos: Sequence[Path], describer: Describer, stream: Any = None) -> float:
    """Scan into a new catalog; return the seconds."""
    started = time.perf_counter()
    with Catalog(path, write=True) as catalog:
        catalog.scan(photos, describer, ScanOptions(thumbnails=thumbnails_of, workers=2, stream=stream))
    return time.perf_counter() - started


def contents(path: Path) -> list[tuple[Any, ...]]:
    """Return all that a catalog has of its photos."""
    columns = "position, name, stamp, photo.content, scanned, reason, taken, data"
    with Catalog(path) as catalog:
        found = list(
            catalog._rows(f"SELECT {columns} FROM photo LEFT JOIN description USING (content) ORDER BY position")
        )
        return found + list(catalog._rows("SELECT * FROM thumbnail ORDER BY 1, 2"))


def workers_up(cluster: RayScan, count: int) -> bool:
    return cluster._pool is not None and len(cluster._pool._seats) >= count


def kill_worker() -> None:
    """Kill a worker of this machine that has loaded its networks, the way the kernel does when memory ends."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::Worker"):
                return os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue
    return None


def compare(folder: Path, photos: Sequence[Path], repeats: int) -> None:
    """One process and two workers, in turn; then with a worker and a node killed on the way."""
    from ray.cluster_utils import Cluster

    describer = load_describer(device="cpu")
    scan(folder / "warm.catalog", photos[:24], describer)
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    with RayScan(cluster.address, _load_on_worker, "cpu", 2) as stream:
        scan(folder / "warm-ray.catalog", photos[:72], describer, stream)
        while not workers_up(stream, 2):
            time.sleep(0.1)
        here, there, equal = [], [], []
        for number in range(repeats):
            one, two = folder / f"one{number}.catalog", folder / f"two{number}.catalog"
            here.append(scan(one, photos, describer) * 1000 / len(photos))
            there.append(scan(two, photos, describer, stream) * 1000 / len(photos))
            equal.append(contents(one) == contents(two))
        print(f"one process, two threads: {spread(here)} ms a photo")
        print(f"Ray, two workers:         {spread(there)} ms a photo; catalogs equal: {equal}")
        print(f"overhead: {statistics.median(there) - statistics.median(here):+.2f} ms a photo")
        for what, kill in (("a worker", kill_worker), ("a node's raylet", partial(cluster.remove_node, node, False))):
            timer = threading.Timer(statistics.median(there) * len(photos) / 3000, kill)
            timer.start()
            path = folder / f"{what[2:6]}.catalog"
            took = scan(path, photos, describer, stream)
            timer.join()
            print(
                f"kill -9 of {what} after a third: {took:.1f} s, equal: {contents(path) == contents(folder / 'one0.catalog')}"
            )
    cluster.shutdown()


def sleepy(facts: Mapping[str, Any], device: str) -> Describer:
    """Make a describer that takes the time of the networks and no core."""

    def describe_each(images: Sequence[Image]) -> list[Failed]:
        time.sleep(SECONDS * len(images))
        return [Failed(image.path, "slept") for image in images]

    return cast(Describer, SimpleNamespace(facts=dict(facts), photos=CPU_PHOTOS, describe_each=describe_each))


def scale(photo: bytes, counts: Sequence[int], blocks: int) -> None:
    """Sleeping workers: what dealing out, reading and collecting leave of their time."""
    sleeper = sleepy({"model": "sleeps"}, "cpu")
    load: Callable[[], bytes] = partial(bytes, photo)
    for workers in counts:
        with RayScan("local", sleepy, "cpu", workers) as stream:

            def run(photos: int, stream: RayScan = stream) -> float:
                sources = ((number, Source(str(number), "", None, load)) for number in range(photos))
                started = time.perf_counter()
                found = sum(map(len, stream(sleeper, sources, lambda content: None, ScanOptions())))
                assert found == photos
                return time.perf_counter() - started

            run(CPU_PHOTOS)
            while not workers_up(stream, workers):
                time.sleep(0.1)
            photos = blocks * workers * CPU_PHOTOS
            took = run(photos)
            print(
                f"{workers:3} sleeping workers: {photos / took:7.1f} photos/s, efficiency {SECONDS * photos / workers / took:.1%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="photos")
    parser.add_argument("--photos", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--blocks", type=int, default=6, help="blocks of 24 photos for each sleeping worker")
    arguments = parser.parse_args()
    settle()
    keep_local()
    photos = sorted(arguments.folder.rglob("*.jpg"))[: arguments.photos]
    print(
        f"{machine()}, Ray {version('ray')}; {len(photos)} photos, {arguments.repeats} repeats, median and spread",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        if arguments.repeats:
            compare(Path(folder), photos, arguments.repeats)
        small = Path(folder, "small.jpg")
        from PIL import Image as Pillow

        Pillow.new("RGB", (64, 64), (90, 120, 150)).save(small)
        scale(small.read_bytes(), arguments.workers, arguments.blocks)


if __name__ == "__main__":
    main()
