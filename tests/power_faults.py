"""Power cuts: what a verb wrote is recorded by strace and played back with what the disk had not been told to keep left out.

A write counts as kept only when its file was synced after it, a new, renamed or deleted name only when its folder was. Of
the rest any part may have reached the disk: each write by itself, in sectors of 512 bytes; names in the order in which they
changed, as every journalling file system has it. SQLite's shared memory is left out: it is made again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facepipe.errors import FacepipeError
from facepipe.gallery import people
from facepipe.gallery.arrays import snapshot as snapshots
from facepipe.gallery.care.check import check
from facepipe.gallery.portable import export_gallery, import_gallery
from facepipe.gallery.store import GalleryStore
from tests.gallery_faults import WORK, Say, State, Work, _after_enroll, _batch, judge, make_template, state_of

_CALLS = "openat,write,pwrite64,lseek,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,mkdir,mkdirat"
_RESUMED = re.compile(r"^\d+ +<\.\.\. \w+ resumed>")
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
_SECTOR = 512
#: Trials of an export lie in one folder: the gallery, and the exported file beside it.
EXPORTED = "copy.sqlite"


def strace_works() -> bool:
    """Whether writes can be recorded: strace is installed and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0


@dataclass(frozen=True)
class Event:
    """One thing that a process did. kind: write, truncate, sync, name (path now is that file; None: nothing), say."""

    kind: str
    file: int = -1
    path: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass
class _Tracker:
    """Follows the names and descriptors of a recorded process below `root`."""

    root: str
    names: dict[str, int] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    files: int = 0

    def file(self, path: str) -> int:
        if path not in self.names:
            self.names[path] = self.files
            self.files += 1
        return self.names[path]


def record(command: list[str], root: Path, log: Path) -> tuple[list[Event], dict[str, int]]:
    """Run a command under strace; return what it did below `root`, and the numbers of the files that were there before.

    What it writes to stdout, lines of numbers, are events `say` with the number as offset.
    """
    here = {str(path.relative_to(root)): number for number, path in enumerate(sorted(root.rglob("*")))}
    traced = ["strace", "-f", "-y", "-xx", "-s", str(64 << 20), "-e", f"trace={_CALLS}", "-o", str(log), *command]
    project = str(Path(__file__).parent.parent)
    subprocess.run(traced, check=True, stdout=subprocess.DEVNULL, cwd=root, env={**os.environ, "PYTHONPATH": project})
    tracker = _Tracker(str(root), dict(here), files=len(here))
    tracker.sizes = {number: (root / name).stat().st_size for name, number in here.items() if (root / name).exists()}
    with log.open() as lines:
        return list(_events(lines, tracker)), here


def whole_lines(lines: Iterable[str]) -> Iterator[str]:
    """Join what strace writes in two lines, where another thread's call ended in between: a call counts when it ends."""
    begun: dict[str, str] = {}
    for line in lines:
        thread = line.split(" ", 1)[0]
        if line.rstrip().endswith("<unfinished ...>"):
            begun[thread] = line[: line.rindex("<unfinished ...>")].rstrip()
        elif _RESUMED.match(line):
            yield begun.pop(thread) + _RESUMED.sub("", line)
        else:
            yield line


def _events(lines: Iterator[str], tracker: _Tracker) -> Iterator[Event]:
    for line in whole_lines(lines):
        found = _LINE.match(line)
        if found is None or int(found[3]) < 0:
            continue
        yield from _event(found[1], found[2], int(found[3]), tracker)


def _event(call: str, arguments: str, result: int, tracker: _Tracker) -> Iterator[Event]:
    strings = [bytes.fromhex(text.replace("\\x", "")) for text, _ in _STRING.findall(arguments)]
    descriptor = _DESCRIPTOR.match(arguments)
    number = int(descriptor[1]) if descriptor else -1
    path = _below(_unescaped(descriptor[2]), tracker.root) if descriptor else None
    if call == "openat":
        opened = _below(strings[0].decode(), tracker.root)
        tracker.offsets[result] = 0
        if opened is not None and "O_CREAT" in arguments and opened not in tracker.names:
            yield Event("name", tracker.file(opened), opened)
        if opened is not None and "O_TRUNC" in arguments:
            yield Event("truncate", tracker.file(opened))
    elif call == "write" and number == 1:
        yield Event("say", offset=int(strings[0]))
    elif call in {"rename", "renameat", "renameat2"}:
        old, new = (_below(text.decode(), tracker.root) for text in strings)
        if old is not None and new is not None:
            file = tracker.names.pop(old)
            tracker.names[new] = file
            yield Event("name", file, new)
            yield Event("name", -1, old)
    elif call in {"unlink", "unlinkat"}:
        gone = _below(strings[0].decode(), tracker.root)
        if gone is not None and tracker.names.pop(gone, None) is not None:
            yield Event("name", -1, gone)
    elif call in {"mkdir", "mkdirat"}:
        made = _below(strings[0].decode(), tracker.root)
        if made is not None:
            yield Event("name", tracker.file(made), made, data=b"folder")
    elif call == "lseek":
        tracker.offsets[number] = result
    elif path is not None:
        if path not in tracker.names and call not in {"fsync", "fdatasync"}:
            return  # deleted meanwhile
        if call in {"fsync", "fdatasync"}:
            yield Event("sync", tracker.names.get(path, -1), path)
        elif call == "ftruncate":
            yield Event("truncate", tracker.file(path), offset=int(arguments.rsplit(", ", 1)[1]))
        else:
            assert strings and not arguments.endswith("..."), arguments[:200]
            offset = int(arguments.rsplit(", ", 1)[1]) if call == "pwrite64" else tracker.offsets.get(number, 0)
            if call == "write":
                tracker.offsets[number] = offset + result
            yield Event("write", tracker.file(path), offset=offset, data=strings[0][:result])


def _unescaped(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode() if text.startswith("\\x") else text


def _below(path: str, root: str) -> str | None:
    """Return a path relative to the root, None when it is elsewhere; the command ran in the root."""
    whole = str(Path(root, path))
    if whole == root:
        return "."
    return whole[len(root) + 1 :] if whole.startswith(root + "/") and not whole.endswith("-shm") else None


def after_cut(
    events: list[Event], cut: int, before: Path, here: dict[str, int], into: Path, rng: np.random.Generator
) -> int:
    """Write to `into` what may be on the disk when the power goes before event `cut`; return the last number said."""
    done = events[:cut]
    synced: dict[int, int] = {}
    folders: dict[str, int] = {}
    for place, event in enumerate(done):
        if event.kind == "sync":
            synced[event.file] = place
            folders[event.path] = place
    contents = {
        number: bytearray((before / name).read_bytes()) for name, number in here.items() if (before / name).is_file()
    }
    for place, event in enumerate(done):
        if event.kind in {"write", "truncate"}:
            kept = place < synced.get(event.file, -1)
            _apply(contents.setdefault(event.file, bytearray()), event, kept, rng)
    names = {name: number for name, number in here.items() if not (before / name).is_dir()}
    made = {name for name in here if (before / name).is_dir()}
    changes = [(place, event) for place, event in enumerate(done) if event.kind == "name"]
    sure = [n for n, (place, event) in enumerate(changes) if place < folders.get(str(Path(event.path).parent), -1)]
    first_unsure = max(sure) + 1 if sure else 0
    reached = int(rng.integers(first_unsure, len(changes) + 1))
    for _, event in changes[:reached]:
        if event.data == b"folder":
            made.add(event.path)
        elif event.file < 0:
            names.pop(event.path, None)
        else:
            names[event.path] = event.file
    for name in sorted(made):
        (into / name).mkdir(parents=True, exist_ok=True)
    for name, number in names.items():
        if not name.endswith("-shm") and (into / name).parent.is_dir():
            (into / name).write_bytes(contents.get(number, bytearray()))
    return max((event.offset for event in done if event.kind == "say"), default=0)


def _apply(content: bytearray, event: Event, kept: bool, rng: np.random.Generator) -> None:
    """Let a write reach the disk: whole when it was synced later, else not at all, whole, or in some of its sectors."""
    luck = 1.0 if kept else float(rng.random())
    if luck < 0.4:
        return
    if event.kind == "truncate":
        del content[event.offset :]
        content.extend(bytes(event.offset - len(content)))
        return
    end = event.offset + len(event.data)
    content.extend(bytes(max(0, end - len(content))))
    for start in range(event.offset - event.offset % _SECTOR, end, _SECTOR):
        if luck >= 0.6 or rng.random() < 0.5:
            left, right = max(start, event.offset), min(start + _SECTOR, end)
            content[left:right] = event.data[left - event.offset : right - event.offset]


# ── the verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _create(folder: Path, say: Say) -> None:
    """Make a gallery in a folder of a folder that is not there, and enrol."""
    with GalleryStore.create(folder / "deep" / "new", "model-1", 16) as gallery:
        for step in range(4):
            gallery.add(_batch(step))
            say(step + 1)


def _judge_create(folder: Path, before: State, reported: int) -> None:
    home = folder / "deep" / "new"
    if not reported and not (home / "faces.sqlite").exists():
        return
    with GalleryStore.open(home) as gallery:
        assert {finding.kind for finding in check(gallery.database)} <= {"leftover"}
        assert state_of(gallery) in [_after_enroll({}, steps) for steps in (reported, reported + 1)]


def _export(folder: Path, say: Say) -> None:
    """Export, change a name, and export over it, four times."""
    with GalleryStore.open(folder) as gallery:
        for step in range(4):
            people.rename(gallery.database, f"P{step}", f"Q{step}")
            export_gallery(gallery.database, folder.parent / EXPORTED)
            say(step + 1)


def _judge_export(folder: Path, before: State, reported: int) -> None:
    path = folder.parent / EXPORTED
    if not path.exists():
        assert not reported, "a reported export is gone"
        return
    copy = folder.parent / "imported"
    import_gallery(copy, path)
    with GalleryStore.open(copy) as gallery:
        renamed = sum(name.startswith("Q") for name in state_of(gallery))
    assert renamed in {reported, reported + 1}, f"{renamed} renamed in the export, {reported} exports reported"


#: Judges the folder after a cut: the folder, the state before, the steps that were reported.
Judge = Callable[[Path, State, int], None]


def _judge_work(name: str) -> Judge:
    return lambda folder, before, reported: judge(name, folder, before, reported)


VERBS: dict[str, tuple[Work, Judge]] = {
    **{name: (work, _judge_work(name)) for name, work in WORK.items()},
    "create": (Work(_create, _after_enroll), _judge_create),
    "export": (Work(_export, _after_enroll), _judge_export),
}


def cut_trials(names: list[str], trials: int, seed: int, folder: Path) -> Counter[str]:
    """Cut the power `trials` times in all, at random events of each verb; return how many trials of each were judged.

    AssertionError names the trial when a reported step is lost, anything is half-written, or a gallery does not open.
    """
    rng = np.random.default_rng(seed)
    done: Counter[str] = Counter()
    for place, name in enumerate(names):
        work, judged = VERBS[name]
        root = folder / name
        state = make_template(root / "before" / "gallery", work.crowd)
        shutil.copytree(root / "before", root / "live")
        command = [sys.executable, "-m", "tests.power_faults", name, str(root / "live" / "gallery")]
        events, here = record(command, root / "live", root / "log")
        first = next(n for n, event in enumerate(events) if event.kind in {"write", "name", "truncate"})
        for number in range(trials // len(names) + (place < trials % len(names))):
            cut = int(rng.integers(first, len(events) + 1))
            trial = root / "trial"
            trial.mkdir()
            reported = after_cut(events, cut, root / "before", here, trial, rng)
            try:
                judged(trial / "gallery", state, reported)
            except (AssertionError, FacepipeError) as failure:
                raise AssertionError(
                    f"{name}, cut {number} before event {cut} of {len(events)}: {failure}"
                ) from failure
            shutil.rmtree(trial)
            done[name] += 1
    return done


def main() -> None:
    """Do one verb, to be recorded; say each step on stdout."""

    def say(step: int) -> None:
        os.write(1, b"%d\n" % step)

    snapshots.SMALL = 8
    VERBS[sys.argv[1]][0].run(Path(sys.argv[2]), say)


if __name__ == "__main__":
    main()
