"""Fault injection for galleries: processes killed at random instants, full disks, single corrupted bytes.

The tests run a few of each; `scripts/faults` runs a thousand kills. A child does one kind of work in small steps and
reports each step through a pipe once the call has returned; it is killed, and the gallery must then be in the state
after exactly the reported steps, or after one more that was on its way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from facepipe.errors import FacepipeError
from facepipe.gallery import people
from facepipe.gallery.arrays import snapshot as snapshots
from facepipe.gallery.arrays.derived import INDEX_NAME, VECTORS_NAME, drop_derived
from facepipe.gallery.arrays.index_file import build_index, load_index
from facepipe.gallery.care.check import check, repair
from facepipe.gallery.care.reembed import move
from facepipe.gallery.privacy import erasing as privacy
from facepipe.gallery.privacy import sealing
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.match.exact import ExactIndex
from facepipe.types import Float32
from scripts.benchlib import limit_threads

DIM = 16
PEOPLE = 24
FACES = 3
CROWD = 1000
STEPS = 12
KEY = Secret("key-file", b"k" * 32)

State = dict[str, frozenset[bytes]]
Say = Callable[[int], None]


def unit(seed: int, dim: int = DIM) -> Float32:
    vector = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def content_of(seed: int) -> str:
    return f"{seed:08x}" * 8


def state_of(gallery: GalleryStore) -> State:
    snapshot = gallery.snapshot()
    found: dict[str, set[bytes]] = {name: set() for name in snapshot.persons}
    for owner, vector in zip(snapshot.owners, snapshot.vectors, strict=True):
        found[snapshot.persons[owner]].add(vector.tobytes())
    return {name: frozenset(rows) for name, rows in found.items()}


@dataclass(frozen=True)
class Work:
    """One kind of work: what the child does, and the state after so many steps."""

    run: Callable[[Path, Say], None]
    after: Callable[[State, int], State]
    crowd: bool = False
    steps: int = STEPS


def _enroll(folder: Path, say: Say) -> None:
    with GalleryStore.open(folder) as gallery:
        for step in range(STEPS):
            gallery.add(_batch(step))
            say(step + 1)


def _batch(step: int) -> list[NewFace]:
    seeds = range(5000 + 10 * step, 5000 + 10 * step + 5)
    return [NewFace(f"New {step}", unit(s), source=f"new/{s}.jpg", content=content_of(s)) for s in seeds]


def _after_enroll(before: State, steps: int) -> State:
    return before | {f"New {s}": frozenset(f.vector.tobytes() for f in _batch(s)) for s in range(steps)}


def _each(act: Callable[[GalleryStore, int], object]) -> Callable[[Path, Say], None]:
    def run(folder: Path, say: Say) -> None:
        with GalleryStore.open(folder) as gallery:
            for step in range(STEPS):
                act(gallery, step)
                say(step + 1)

    return run


def _without(before: State, steps: int) -> State:
    return {name: rows for name, rows in before.items() if name not in {f"P{s}" for s in range(steps)}}


def _after_rename(before: State, steps: int) -> State:
    return _without(before, steps) | {f"Q{s}": before[f"P{s}"] for s in range(steps)}


def _after_merge(before: State, steps: int) -> State:
    merged = frozenset[bytes]().union(before[f"P{PEOPLE - 1}"], *(before[f"P{s}"] for s in range(steps)))
    return _without(before, steps) | {f"P{PEOPLE - 1}": merged}


def _new_vectors(table: str, ids: Sequence[int]) -> list[Float32 | None]:
    return [unit(10_000 + int(i), 8) for i in ids]


def _reembed(folder: Path, say: Say) -> None:
    with GalleryStore.open(folder) as gallery:
        move(gallery.database, "model-2", 8, _new_vectors)
        say(1)


def _after_reembed(before: State, steps: int) -> State:
    if not steps:
        return before
    ids = iter(range(1, PEOPLE * FACES + 1))
    return {f"P{p}": frozenset(unit(10_000 + next(ids), 8).tobytes() for _ in range(FACES)) for p in range(PEOPLE)}


def _seal(folder: Path, say: Say) -> None:
    with GalleryStore.open(folder) as gallery:
        sealing.seal(gallery.database, KEY)
        say(1)


def _same(before: State, steps: int) -> State:
    return before


WORK: dict[str, Work] = {
    "enroll": Work(_enroll, _after_enroll),
    "remove": Work(_each(lambda g, s: people.remove(g.database, f"P{s}")), _without),
    "rename": Work(_each(lambda g, s: people.rename(g.database, f"P{s}", f"Q{s}")), _after_rename),
    "reembed": Work(_reembed, _after_reembed, steps=1),
    "compact": Work(_each(lambda g, s: privacy.compact(g.database)), _same),
    "index": Work(_each(lambda g, s: build_index(g.database, "pq", min_recall=0.0)), _same, crowd=True),
    "merge": Work(_each(lambda g, s: people.merge(g.database, [f"P{s}"], f"P{PEOPLE - 1}")), _after_merge),
    "erase": Work(_each(lambda g, s: privacy.erase(g.database, f"P{s}")), _without),
    "seal": Work(_seal, _same, steps=1),
}


def make_template(folder: Path, crowd: bool) -> State:
    with GalleryStore.create(folder, "model-1", DIM) as gallery:
        if crowd:
            gallery.add([NewFace(f"P{p}", unit(p)) for p in range(CROWD)])
        else:
            seeds = [(p, p * FACES + f) for p in range(PEOPLE) for f in range(FACES)]
            gallery.add([NewFace(f"P{p}", unit(s), source=f"P{p}/{s}.jpg", content=content_of(s)) for p, s in seeds])
        return state_of(gallery)


def _child(work: Work, folder: Path, pipe: int) -> None:
    def say(step: int) -> None:
        os.write(pipe, b"%d\n" % step)

    try:
        work.run(folder, say)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - reported to the parent, which judges
        os.write(pipe, f"! {error}\n".encode())
        os._exit(1)


def _forked() -> int:
    """Fork as one thread: OpenMP's other threads are not in the child, which would wait for them for ever."""
    limit_threads()
    return os.fork()


def run_killed(work: Work, folder: Path, delay: float | None) -> tuple[int, str]:
    """Run a child and kill it after `delay` seconds; return the last step that it reported, and its error, if any."""
    reader, writer = os.pipe()
    process = _forked()
    if process == 0:
        os.close(reader)
        _child(work, folder, writer)
    os.close(writer)
    if delay is not None:
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(process, 0)
    errors = [line for line in lines if line.startswith("!")]
    steps = [int(line) for line in lines if not line.startswith("!")]
    return max(steps, default=0), errors[0] if errors else ""


def judge(name: str, folder: Path, before: State, reported: int) -> None:
    """AssertionError unless the gallery opens, is sound, and holds what was reported and no half of anything."""
    work = WORK[name]
    secret = None
    try:
        GalleryStore.open(folder).close()
    except FacepipeError:
        assert name == "seal", "only a gallery that was being sealed may need a key"
        secret = KEY
    with GalleryStore.open(folder, secret) as gallery:
        findings = check(gallery.database)
        harmless = {"leftover", "scrub", "vectors", "index"}
        assert {finding.kind for finding in findings} <= harmless, findings
        allowed = [work.after(before, steps) for steps in (reported, min(reported + 1, work.steps))]
        assert state_of(gallery) in allowed, f"{name}: neither the state after {reported} steps nor after one more"
        repair(gallery.database, findings)
        assert check(gallery.database) == []
        drop_derived(gallery.database, VECTORS_NAME)
        assert state_of(gallery) in allowed, f"{name}: rows and derived file disagreed"
        if name == "erase":
            privacy.finish_scrub(gallery.database)
            for step in range(reported):
                assert not traces(folder, f"P{step}", before[f"P{step}"]), f"bytes of P{step} after a reported erase"
        if name == "index":
            snapshot = gallery.snapshot()
            probe = np.stack([unit(3), unit(700)])
            _, rows = load_index(gallery.database, snapshot).search(probe, 1)
            assert [snapshot.persons[row] for row in rows[:, 0]] == ["P3", "P700"]
        if name == "reembed" and gallery.fingerprint == "model-1":
            move(gallery.database, "model-2", 8, _new_vectors)
            assert state_of(gallery) == work.after(before, 1), "an interrupted move goes on to the same end"


def traces(folder: Path, name: str, rows: frozenset[bytes]) -> bool:
    """Whether a file holds the vector, or the path, of a person."""
    needles = [*rows, f"{name}/".encode()]
    return any(needle in path.read_bytes() for path in folder.iterdir() for needle in needles)


def kill_trials(names: Sequence[str], trials: int, seed: int, folder: Path) -> Counter[str]:
    """Kill each kind of work in turn, `trials` times in all; return how many trials of each kind were judged."""
    rng = np.random.default_rng(seed)
    done: Counter[str] = Counter()
    templates: dict[bool, tuple[Path, State]] = {}
    durations: dict[str, float] = {}
    for number in range(trials):
        name = names[number % len(names)]
        work = WORK[name]
        if work.crowd not in templates:
            place = folder / f"template-{work.crowd}"
            templates[work.crowd] = (place, make_template(place, work.crowd))
        template, before = templates[work.crowd]
        if name not in durations:
            shutil.copytree(template, folder / "timed")
            start = time.perf_counter()
            steps, error = run_killed(work, folder / "timed", None)
            durations[name] = time.perf_counter() - start
            assert steps == work.steps, error
            judge(name, folder / "timed", before, steps)
            shutil.rmtree(folder / "timed")
        trial = folder / "trial"
        shutil.copytree(template, trial)
        delay = float(rng.uniform(0.0, durations[name] * 1.05))
        reported, error = run_killed(work, trial, delay)
        assert not error, f"{name}: {error}"
        try:
            judge(name, trial, before, reported)
        except (AssertionError, FacepipeError) as failure:
            raise AssertionError(f"trial {number} ({name}, killed after {delay * 1000:.1f} ms): {failure}") from failure
        shutil.rmtree(trial)
        done[name] += 1
    return done


# ── full disks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def fill_until_refused(folder: Path, limit: int) -> tuple[int, str]:
    """Enrol in a child whose files may not grow over `limit` bytes; return the reported batches and the error."""

    def limited(place: Path, say: Say) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        _enroll_without_end(place, say)

    return run_killed(Work(limited, _after_enroll), folder, None)


def _enroll_without_end(folder: Path, say: Say) -> None:
    with GalleryStore.open(folder) as gallery:
        for step in range(100_000):
            gallery.add(_batch(step))
            say(step + 1)


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path | None]:
    """Mount a small tmpfs, None where that is not allowed."""
    with tempfile.TemporaryDirectory(prefix="facepipe-disk-") as place:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False, capture_output=True
        )
        if mounted.returncode:
            yield None
            return
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


def full_disk_trial(kilobytes: int) -> str:
    """Enrol on a tmpfs until it is full; read it while full and while read-only; go on with more room."""
    with small_disk(f"{kilobytes}k") as disk:
        if disk is None:
            return "not allowed to mount"
        folder = disk / "gallery"
        before = make_template(folder, crowd=False)
        reported, error = run_killed(Work(_enroll_without_end, _after_enroll), folder, None)
        assert "full" in error and "nothing of this step was stored" in error, error
        expected = _after_enroll(before, reported)
        with GalleryStore.open(folder) as gallery:
            assert state_of(gallery) == expected, "reading while the disk is full"
        for options in ("remount,ro", f"remount,rw,size={kilobytes * 4}k"):
            subprocess.run(["mount", "-o", options, str(disk)], check=True)
            with GalleryStore.open(folder) as gallery:
                assert state_of(gallery) == expected, options
                if "rw" in options:
                    assert {f.kind for f in check(gallery.database)} <= {"leftover"}
                    gallery.add(_batch(reported))
                    assert state_of(gallery) == _after_enroll(before, reported + 1)
        return f"{reported} batches before it was full"


# ── corrupted bytes ──────────────────────────────────────────────────────────────────────────────────────────────────


def make_damageable(folder: Path) -> State:
    """A gallery with every kind of file: database, WAL with transactions, vectors, index, lock, last write."""
    make_template(folder, crowd=True)
    copy = folder.with_name(folder.name + "-copy")
    gallery = GalleryStore.open(folder)
    build_index(gallery.database, "pq", min_recall=0.0)
    for step in range(3):
        gallery.add(_batch(step))
    state = state_of(gallery)
    shutil.copytree(folder, copy)  # while it is open: the WAL is still there
    gallery.close()
    shutil.rmtree(folder)
    copy.rename(folder)
    assert {p.name for p in folder.iterdir()} >= {
        "faces.sqlite",
        "faces.sqlite-wal",
        VECTORS_NAME,
        INDEX_NAME,
    }
    return state


def corrupt_trial(template: Path, expected: State, name: str, rng: np.random.Generator, folder: Path) -> str:
    """Change one byte of a file; the damage must be harmless, found and mended, or refused with a way out."""
    shutil.copytree(template, folder)
    try:
        path = folder / name
        data = bytearray(path.read_bytes())
        place = int(rng.integers(len(data)))
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            with GalleryStore.open(folder) as gallery:
                outcome = _outcome(gallery, expected)
        except FacepipeError as error:
            assert any(word in str(error) for word in ("check", "salvage", "restore", "newer facepipe")), error
            return "refused"
        return outcome
    finally:
        shutil.rmtree(folder)


def _outcome(gallery: GalleryStore, expected: State) -> str:
    findings = check(gallery.database)
    derived = {finding.kind for finding in findings} <= {"vectors", "index"}
    if derived:
        assert state_of(gallery) == expected, "damage that nobody found changed the answer"
        told: list[str] = []
        index = load_index(gallery.database, gallery.snapshot(), told.append)
        assert not isinstance(index, ExactIndex)
        assert check(gallery.database) == [], "what is derived is made again"
        return "rebuilt" if findings else "harmless"
    return "found"


def corrupt_trials(trials: int, seed: int, folder: Path) -> dict[str, Counter[str]]:
    """Corrupt each file `trials` times; return the outcomes by file."""
    rng = np.random.default_rng(seed)
    template = folder / "damageable"
    expected = make_damageable(template)
    outcomes: dict[str, Counter[str]] = {}
    for name in sorted(path.name for path in template.iterdir()):
        if (template / name).stat().st_size == 0 or name.endswith("-shm"):
            continue  # -shm is SQLite's shared memory: it is made again by the first to open
        outcomes[name] = Counter(
            corrupt_trial(template, expected, name, rng, folder / "corrupted") for _ in range(trials)
        )
    return outcomes


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────


def together(folder: Path, writers: int, each: int) -> dict[str, float]:
    """Let `writers` processes enrol `each` people while one identifies in a loop; return what was counted."""
    with GalleryStore.create(folder, "model-1", DIM) as gallery:
        gallery.add([NewFace("Known", unit(1))])
    start = time.perf_counter()
    children = [_fork(partial(_enrol_people, folder, writer, each)) for writer in range(writers)]
    stop = folder.with_name("stop")
    reader, pipe = os.pipe()
    watcher = _fork(lambda: _identify_until(folder, stop, pipe))
    os.close(pipe)
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    seconds = time.perf_counter() - start
    stop.touch()
    with os.fdopen(reader) as lines:
        answers = json.loads(lines.read())
    failed += os.waitpid(watcher, 0)[1] != 0
    with GalleryStore.open(folder) as gallery:
        there = len(people.people(gallery.database)) - 1
        findings = len(check(gallery.database))
    return {"people": there, "failed": failed, "findings": findings, "seconds": seconds, **answers}


def _fork(work: Callable[[], None]) -> int:
    process = _forked()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a child must never return into the parent's code
        print(f"child: {error}", file=sys.stderr)
        os._exit(1)


def _person(writer: int, number: int) -> NewFace:
    return NewFace(f"W{writer} N{number}", unit(100_000 * (writer + 1) + number))


def _enrol_people(folder: Path, writer: int, each: int) -> None:
    with GalleryStore.open(folder) as gallery:
        for number in range(each):
            assert gallery.add([_person(writer, number)]) != [None]
            # What this process was told is durable must be in the next snapshot.
            if number % 25 == 0:
                assert _person(writer, number).person in gallery.snapshot().persons


def _identify_until(folder: Path, stop: Path, pipe: int) -> None:
    searches = wrong = stale = generation = 0
    while not stop.exists():
        with GalleryStore.open(folder) as gallery:
            known = gallery.generation()
            snapshot = gallery.snapshot()
            stale += snapshot.generation < known or snapshot.generation < generation
            generation = snapshot.generation
            _, rows = ExactIndex(snapshot.templates).search(snapshot.templates, 1)
            wrong += int((rows[:, 0] != np.arange(len(rows))).sum())
            wrong += "Known" not in snapshot.persons
            searches += 1
    os.write(pipe, json.dumps({"searches": searches, "wrong": wrong, "stale": stale}).encode())


def _cut_power(trials: int, seed: int, folder: Path) -> None:
    from tests.power_faults import VERBS, cut_trials, strace_works

    if not strace_works():
        print("power cuts: not tried, because strace is not installed here or may not trace (apt-get install strace)")
        return
    done = cut_trials(list(VERBS), trials, seed, folder)
    kinds = ", ".join(f"{name} {count}" for name, count in done.items())
    print(f"power cut {sum(done.values())} times ({kinds}):")
    print("  0 reported steps lost, 0 half-written, 0 galleries that do not open", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=100, help="corrupted bytes in each file")
    parser.add_argument("--disks", type=int, nargs="*", default=[900, 1200, 2000], help="sizes of full disks, KiB")
    parser.add_argument("--each", type=int, default=250, help="people that each of four processes enrols")
    parser.add_argument("--power", type=int, default=330, help="power cuts over the verbs; needs strace")
    parser.add_argument("--only", choices=list(WORK), nargs="+", default=list(WORK))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    snapshots.SMALL = 8
    with tempfile.TemporaryDirectory(prefix="facepipe-faults-") as place:
        folder = Path(place)
        start = time.perf_counter()
        if options.kills:
            done = kill_trials(options.only, options.kills, options.seed, folder)
            kinds = ", ".join(f"{name} {count}" for name, count in done.items())
            print(f"killed {sum(done.values())} times in {time.perf_counter() - start:.0f} s ({kinds}):")
            print("  0 reported faces lost, 0 half-written, 0 galleries that do not open", flush=True)
        if options.power:
            _cut_power(options.power, options.seed, folder / "power")
        for kilobytes in options.disks:
            print(f"full disk of {kilobytes} KiB: {full_disk_trial(kilobytes)}; nothing reported was lost", flush=True)
        if options.bytes:
            for name, outcomes in corrupt_trials(options.bytes, options.seed, folder).items():
                print(f"one corrupted byte in {name}: " + ", ".join(f"{n} {k}" for k, n in sorted(outcomes.items())))
        if options.each:
            result = together(folder / "together", 4, options.each)
            print(f"four processes enrol {options.each} people each, one identifies: " + json.dumps(result))
            assert result["people"] == 4 * options.each
            assert not (result["failed"] or result["findings"] or result["wrong"] or result["stale"])


if __name__ == "__main__":
    main()
