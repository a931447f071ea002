"""A gallery whose templates lie in a Milvus server (milvus-lite): filled, changed, searched, killed between the two writes."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.gallery import people
from facepipe.gallery.arrays.index_file import build_index, load_index
from facepipe.gallery.arrays.milvus_index import MilvusIndex
from facepipe.gallery.care.check import check
from facepipe.gallery.privacy.erasing import erase
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.match.exact import ExactIndex
from facepipe.match.milvus import MilvusPeople
from scripts.bench_gallery import BLOCK, DIM, block, probes
from scripts.benchlib import machine, spread
from tests.milvus_server import MilvusServer

K = 4
#: People who are enrolled at once, and rounds of changes of a worker that is killed.
MANY, STEPS = 1000, 80
#: Workers come from a process that has loaded everything and connected nowhere.
_FRESH = multiprocessing.get_context("forkserver")
_FRESH.set_forkserver_preload(["pymilvus", "faiss", "scripts.bench_gallery"])


def make(folder: Path, count: int) -> GalleryStore:
    gallery = GalleryStore.create(folder, "synthetic", DIM)
    for first in range(0, count, BLOCK):
        rows = block(first, min(BLOCK, count - first))
        gallery.add([NewFace(f"P{first + i}", row) for i, row in enumerate(rows)])
    return gallery


def timed(what: str, call: Callable[[], object], count: int = 1) -> None:
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    print(f"{what}: {seconds:.2f} s" + (f", {1000 * seconds / count:.1f} ms each" if count > 1 else ""), flush=True)


def compare(gallery: GalleryStore, count: int) -> None:
    """Search both ways, one probe at a time and all at once."""
    snapshot = gallery.snapshot()
    index, exact = load_index(gallery.database, snapshot), ExactIndex(snapshot.templates)
    assert isinstance(index, MilvusIndex) and not index.pending
    vectors = probes(snapshot.templates, count)[0]
    times: dict[str, list[float]] = {"milvus": [], "exact": []}
    for row in vectors[:20]:
        for name, way in (("milvus", index), ("exact", exact)):
            start = time.perf_counter()
            way.search(row[None], K)
            times[name].append(1000 * (time.perf_counter() - start))
    print("; ".join(f"one probe, {name}: {spread(values)} ms" for name, values in times.items()))
    start = time.perf_counter()
    found = index.search(vectors, K)[1]
    seconds = time.perf_counter() - start
    same = (found == exact.search(vectors, K)[1]).mean(axis=0)
    print(
        f"{count:,} probes: {seconds:.1f} s; the same person as exact at rank 1 to {K}: {', '.join(map('{:.4f}'.format, same))}"
    )


def work(folder: Path, said: Connection) -> None:
    """Change a gallery until somebody kills this; say which round it is, and when a note is to be written (-1)."""
    write_note = MilvusPeople.write_note

    def telling(self: MilvusPeople, note: dict[str, Any], dim: int) -> None:
        said.send(-1)
        write_note(self, note, dim)

    MilvusPeople.write_note = telling  # type: ignore[method-assign]
    with GalleryStore.open(folder) as gallery:
        for step in range(STEPS):
            said.send(step)
            gallery.add([NewFace(f"N{step}", block(10**9 + step, 1)[0])])
            people.rename(gallery.database, f"P{step}", f"Q{step}")
            people.merge(gallery.database, [f"P{STEPS + step}"], f"P{2 * STEPS + step}")
            erase(gallery.database, f"Q{step}")


def kill(server: MilvusServer, folder: Path, rng: random.Random) -> tuple[bool, int]:
    """Kill a worker at or after one of its notes; return whether the database was behind then, and how many rounds were done."""
    gallery = make(folder, 3 * STEPS)
    build_index(gallery.database, "milvus", uri=server.uri)
    ours, theirs = _FRESH.Pipe(duplex=False)
    process = _FRESH.Process(target=work, args=(folder, theirs))
    process.start()
    theirs.close()
    notes = rng.randint(1, 40)
    rounds = 0
    with contextlib.suppress(EOFError):
        while True:
            said = ours.recv()
            rounds = max(rounds, said)
            notes -= said == -1
            if not notes and said == -1:
                time.sleep(rng.uniform(0.0, 0.01))
                process.kill()
    process.join()
    follower = gallery.database.follower()
    assert follower is not None
    note = follower.sound_note()
    behind = "towards" in note or note["generation"] != gallery.generation()
    snapshot = gallery.snapshot()
    index = load_index(gallery.database, snapshot)
    vectors = np.concatenate([snapshot.templates, block(10**9, 20)])
    np.testing.assert_array_equal(index.search(vectors, 1)[1], ExactIndex(snapshot.templates).search(vectors, 1)[1])
    findings = check(gallery.database)
    assert all(finding.kind in {"scrub", "leftover"} for finding in findings), findings
    names = set(snapshot.persons)
    for step in range(rounds):
        assert f"N{step}" in names and not {f"P{step}", f"Q{step}", f"P{STEPS + step}"} & names
    build_index(gallery.database, "exact")
    gallery.close()
    return behind, rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_DATA_HOME"] = name  # the consent is this run's
        server = MilvusServer(Path(name))
        server.start()
        try:
            if options.people:
                gallery = make(Path(name) / "gallery", options.people)
                print(f"{options.people:,} people, one vector of {DIM} each, milvus-lite on this machine")
                report = build_index(gallery.database, "milvus", min_recall=0.0, uri=server.uri)
                print(
                    f"filled in {report.build_seconds:.1f} s; recall@1 {report.recall:.4f} of {report.probes} probes",
                    flush=True,
                )
                compare(gallery, options.probes)

                def rename(number: int) -> None:
                    people.rename(gallery.database, f"P{number}", f"Q{number}")

                fresh = block(10**9, MANY + 20)  # nobody twice: of two who are equally similar either may come first
                timed(
                    f"enrol {MANY}",
                    lambda: gallery.add([NewFace(f"N{i}", row) for i, row in enumerate(fresh[:MANY])]),
                )
                timed(
                    "enrol 20 one by one",
                    lambda: [gallery.add([NewFace(f"M{i}", fresh[MANY + i])]) for i in range(20)],
                    20,
                )
                timed("rename 20", lambda: list(map(rename, range(20))), 20)
                timed("erase 3", lambda: [erase(gallery.database, f"Q{i}") for i in range(3)], 3)
                compare(gallery, options.probes)
                build_index(gallery.database, "exact")
                gallery.close()
            rng = random.Random(options.seed)
            ends = [kill(server, Path(name) / f"kill{number}", rng) for number in range(options.kills)]
            if ends:
                rounds = [rounds for _, rounds in ends]
                print(
                    f"{options.kills} kills, after {min(rounds)} to {max(rounds)} rounds of four writes: {sum(b for b, _ in ends)} "
                    "left the database behind; all consistent after reopening"
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
