"""Galleries of synthetic people: open, change (added at once, removed one by one), search, memory, disk; with deepface and FAISS."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.gallery import people
from facepipe.gallery.arrays.index_file import KINDS, build_index, load_index
from facepipe.gallery.people import name_key
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.match.exact import ExactIndex
from scripts.benchlib import machine, spread

DIM = 256
BLOCK = 20_000
CHANGES = 1000
BATCH = 1000
#: Beyond, the gallery's rows are written without `enroll`.
MOST_ENROLLED = 2_000_000


@cache
def mixture() -> np.ndarray:
    """What turns independent numbers into directions that spread as real faces': impostor cosine 0.00 +- 0.11."""
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((DIM, DIM)))[0]
    return np.asarray(np.exp(-np.arange(DIM) / 80)[:, None] * rotation, np.float32)


def directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors, float32 (count, DIM)."""
    rows = rng.standard_normal((count, DIM), np.float32) @ mixture()
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def block(start: int, count: int) -> np.ndarray:
    """Vectors of the people start .. start + count."""
    return directions(np.random.default_rng([7, start]), count)


def probes(templates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Other photos of enrolled people: genuine cosine 0.63 +- 0.06, and whose they are."""
    rng = np.random.default_rng(11)
    owners = rng.integers(0, len(templates), count)
    own = templates[owners]
    noise = directions(rng, count)
    noise -= (noise * own).sum(axis=1, keepdims=True) * own
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = np.clip(rng.normal(0.63, 0.06, (count, 1)), 0.3, 0.95).astype(np.float32)
    return (cosine * own + np.sqrt(1 - cosine**2) * noise).astype(np.float32), owners


def drop_page_cache(folder: Path) -> None:
    """Let the next read come from the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def memory() -> dict[str, float]:
    """Resident memory now and at most, MiB."""
    now = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return {"now": now / 2**20, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


# ── what runs in a process of its own ────────────────────────────────────────────────────────────────────────────────


def work_build(folder: Path, size: int) -> dict[str, Any]:
    if size > MOST_ENROLLED:
        return work_bulk(folder, size)
    gallery = GalleryStore.create(folder, "synthetic", DIM)
    start = time.perf_counter()
    for first in range(0, size, BLOCK):
        rows = block(first, min(BLOCK, size - first))
        gallery.add([NewFace(f"Person {first + i}", row) for i, row in enumerate(rows)])
    seconds = time.perf_counter() - start
    derived, _ = timed(gallery.snapshot)
    gallery.close()
    return {"seconds": seconds, "derived": derived}


def work_bulk(folder: Path, size: int) -> dict[str, Any]:
    """Write the rows that enrolling would write, a million people in a transaction: it takes a fifth of the time."""
    start = time.perf_counter()
    with GalleryStore.create(folder, "synthetic", DIM) as gallery:
        database = gallery.database
        for million in range(0, size, 10**6):
            with database.write("enroll") as generation:
                for first in range(million, min(million + 10**6, size), BLOCK):
                    rows = block(first, min(BLOCK, size - first))
                    ids = range(first + 1, first + 1 + len(rows))
                    names = [(i, f"Person {i - 1}", name_key(database, f"Person {i - 1}")) for i in ids]
                    data = [(i, row.tobytes()) for i, row in zip(ids, rows, strict=True)]
                    for query, values in (
                        (f"INSERT INTO person VALUES (?, ?, ?, 1.0, {generation}, 0)", names),
                        ("INSERT INTO subject VALUES (?, ?, ?)", names),
                        (
                            "INSERT INTO face (id, person_id, ordinal, enrolled, changed) VALUES (?, ?, 0, 1.0, ?)",
                            [(i, i, generation) for i in ids],
                        ),
                        ("INSERT INTO vector VALUES (?, ?, ?)", [(i, d, vector_checksum(i, d)) for i, d in data]),
                    ):
                        database.connection.executemany(query, values)
                database.log("enroll", faces=10**6)
        seconds = time.perf_counter() - start
        derived, _ = timed(gallery.snapshot)
    return {"seconds": seconds, "derived": derived, **memory()}


def work_open(folder: Path, size: int) -> dict[str, Any]:
    before = memory()["now"]
    start = time.perf_counter()
    gallery = GalleryStore.open(folder)
    snapshot = gallery.snapshot()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "people": len(snapshot.persons), "before": before, **memory()}


def work_change(folder: Path, size: int) -> dict[str, Any]:
    gallery = GalleryStore.open(folder)
    rows = block(10**9, CHANGES)
    add, _ = timed(lambda: gallery.add([NewFace(f"New {i}", row) for i, row in enumerate(rows)]))
    open_after, _ = timed(gallery.snapshot)
    remove, _ = timed(lambda: [people.remove(gallery.database, f"New {i}") for i in range(CHANGES)])
    open_again, _ = timed(gallery.snapshot)
    gallery.close()
    return {"add": add, "open_after_add": open_after, "remove": remove, "open_after_remove": open_again}


def measure(index: Any, vectors: np.ndarray, owners: np.ndarray, singles: int) -> dict[str, Any]:
    index.search(vectors[:1], 1)
    single = [timed(partial(index.search, vectors[i : i + 1], 1))[0] for i in range(singles)]
    batch, found = timed(lambda: index.search(vectors[:BATCH], 1))
    return {
        "single": single,
        "batch": batch,
        "rows": found[1][:, 0].tolist(),
        "right": float(np.mean(found[1][:, 0] == owners[:BATCH])),
    }


def work_search(folder: Path, size: int, kind: str, singles: int) -> dict[str, Any]:
    with GalleryStore.open(folder) as gallery:
        built = None
        if kind != "exact":
            seconds, report = timed(lambda: build_index(gallery.database, kind, min_recall=0.0))
            built = {"seconds": seconds, "recall": report.recall, "bytes": report.bytes}
        return {"built": built}


def work_probe(folder: Path, size: int, kind: str, singles: int) -> dict[str, Any]:
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    with GalleryStore.open(folder) as gallery:
        snapshot = gallery.snapshot()
        index = ExactIndex(snapshot.templates) if kind == "exact" else load_index(gallery.database, snapshot)
        vectors, owners = probes(
            np.stack([snapshot.templates[r] for r in range(0, size, max(1, size // BATCH))][:BATCH]), BATCH
        )
        rows = np.arange(0, size, max(1, size // BATCH))[:BATCH][owners]
        result = measure(index, vectors, rows, singles)
        return {**result, **memory()}


def work_deepface(folder: Path, size: int) -> dict[str, Any]:
    """A pickle of a frame beside the photos, and a loop over its rows, as deepface's find does without a database."""
    path = folder.parent / "representations.pkl"
    rows = [
        {"identity": f"Person {first + i}", "embedding": row.tolist()}
        for first in range(0, size, BLOCK)
        for i, row in enumerate(block(first, min(BLOCK, size - first)))
    ]
    with path.open("wb") as file:
        pickle.dump(rows, file)
    del rows
    start = time.perf_counter()
    loaded = pickle.loads(path.read_bytes())
    opened = time.perf_counter() - start
    vector = np.asarray(loaded[size // 2]["embedding"])

    def find() -> str:
        best, name = 2.0, ""
        for row in loaded:
            target = np.asarray(row["embedding"])
            distance = 1 - np.dot(vector, target) / (np.sqrt(np.dot(vector, vector)) * np.sqrt(np.dot(target, target)))
            if distance < best:
                best, name = float(distance), row["identity"]
        return name

    single = [timed(find)[0] for _ in range(3)]
    # Adding one person writes the whole pickle again.
    with path.open("wb") as file:
        add, _ = timed(lambda: pickle.dump(loaded, file))
    size_on_disk = path.stat().st_size
    path.unlink()
    return {"open": opened, "single": single, "add": add, "bytes": size_on_disk, **memory()}


def work_faiss(folder: Path, size: int, singles: int) -> dict[str, Any]:
    """IndexFlatIP and a list of names in JSON."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    path, names = folder.parent / "plain.faiss", folder.parent / "plain.json"
    index = faiss.IndexFlatIP(DIM)
    for first in range(0, size, BLOCK):
        index.add(block(first, min(BLOCK, size - first)))
    faiss.write_index(index, str(path))
    names.write_text(json.dumps([f"Person {i}" for i in range(size)]))
    del index
    opened, index = timed(lambda: (faiss.read_index(str(path)), json.loads(names.read_text()))[0])
    base = block(0, min(BLOCK, size))[:BATCH]
    vectors, owners = probes(base, BATCH)

    class Plain:
        def search(self, batch: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            return index.search(batch, k)

    result = measure(Plain(), vectors, owners, singles)
    save, _ = timed(lambda: faiss.write_index(index, str(path)))
    size_on_disk = path.stat().st_size + names.stat().st_size
    path.unlink()
    names.unlink()
    return {"open": opened, "save": save, "bytes": size_on_disk, **result, **memory()}


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────────────────


def child(task: str, folder: Path, size: int, *more: Any) -> dict[str, Any]:
    command = [sys.executable, __file__, "--task", json.dumps([task, str(folder), size, *more])]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def milliseconds(values: list[float]) -> str:
    return spread([value * 1000 for value in values], 2) + " ms"


def report(size: int, folder: Path, kinds: list[str], repeats: int, singles: int, deepface_limit: int) -> None:
    floats = size * DIM * 4 / 2**20
    print(f"\n== {size:,} people, one vector of {DIM} each ({floats:,.0f} MiB of vectors)", flush=True)
    built = child("build", folder, size)
    print(
        f"enrolled in {built['seconds']:.1f} s in blocks of {BLOCK:,}; first snapshot, with its file, in {built['derived']:.2f} s"
    )
    disk = {path.name: path.stat().st_size for path in folder.iterdir()}
    print("disk: " + ", ".join(f"{name} {bytes_ / 2**20:,.1f} MiB" for name, bytes_ in sorted(disk.items())))
    for label in ("cold", "warm"):
        runs = []
        for _ in range(repeats):
            if label == "cold":
                drop_page_cache(folder)
            runs.append(child("open", folder, size))
        grown = statistics.median(run["now"] for run in runs)
        seconds = spread([run["seconds"] for run in runs])
        print(f"open {label}: {seconds} s; resident then {grown:,.0f} MiB ({runs[0]['before']:.0f} before)", flush=True)
    changes = [child("change", folder, size) for _ in range(repeats)]
    for key in ("add", "open_after_add", "remove", "open_after_remove"):
        print(f"{key.replace('_', ' ')} ({CHANGES:,} people): {spread([c[key] for c in changes], 3)} s")
    exact_rows = None
    for kind in kinds:
        build = child("search", folder, size, kind, singles)["built"]
        found = child("probe", folder, size, kind, singles)
        exact_rows = found["rows"] if kind == "exact" else exact_rows
        recall = (
            ""
            if exact_rows is None
            else f", same as exact {np.mean(np.equal(found['rows'], exact_rows)):.4f} of {BATCH}"
        )
        made = (
            ""
            if build is None
            else f", built and measured in {build['seconds']:.1f} s, recall@1 {build['recall']:.4f}, {build['bytes'] / 2**20:.0f} MiB"
        )
        print(
            f"{kind}: one probe {milliseconds(found['single'])}; {BATCH:,} probes {found['batch']:.2f} s "
            f"({BATCH / found['batch']:,.0f}/s); right person {found['right']:.4f}{recall}{made}; "
            f"resident {found['now']:,.0f} MiB = {found['now'] / floats:.2f} x vectors, peak {found['peak']:,.0f}",
            flush=True,
        )
    if size > MOST_ENROLLED:
        print("plain FAISS and deepface's way: not tried, they hold everything in memory")
        return
    plain = child("faiss", folder, size, singles)
    print(
        f"plain FAISS (IndexFlatIP, names in JSON): open {plain['open']:.2f} s, one probe {milliseconds(plain['single'])}, "
        f"{BATCH:,} probes {plain['batch']:.2f} s, save after any change {plain['save']:.2f} s, "
        f"disk {plain['bytes'] / 2**20:,.1f} MiB, resident {plain['now']:,.0f} MiB",
        flush=True,
    )
    if size <= deepface_limit:
        other = child("deepface", folder, size)
        print(
            f"deepface's way (pickle, loop): open {other['open']:.2f} s, one probe {milliseconds(other['single'])}, "
            f"add one {other['add']:.2f} s, disk {other['bytes'] / 2**20:,.1f} MiB, resident {other['now']:,.0f} MiB"
        )
    else:
        print(f"deepface's way: not tried above {deepface_limit:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS[:-1], default=list(KINDS[:-1]))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--singles", type=int, default=30, help="probes that are searched one at a time")
    parser.add_argument("--deepface-limit", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("results/bench_gallery"))
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        name, folder, *more = json.loads(options.task)
        print(json.dumps(globals()[f"work_{name}"](Path(folder), *more)))
        return
    print(machine())
    print(f"{os.environ.get('BENCH_THREADS', '2')} threads for FAISS; times in processes of their own")
    for size in options.sizes:
        folder = options.folder / str(size)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            report(size, folder / "gallery", options.kinds, options.repeats, options.singles, options.deepface_limit)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
