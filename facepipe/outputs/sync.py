"""Outputs that are folders of files: what should be there is compared with what is there, and the difference is made.

Each folder holds a list of what was written into it, `.facepipe-files` (SQLite): for whom, of what photo, what the file shows, and
what lay there when it was written. A file is listed before it is made and again afterwards, so one that a killed run left is known
as ours too. What somebody changed since is not ours any more, and stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from facepipe.errors import InputError, OutputError
from facepipe.files.atomic import is_file, make_private_file
from facepipe.images import content_hash, file_hash, read_image_bytes
from facepipe.records import Record, readable, track_of
from facepipe.text import printable
from facepipe.types import Image

_LIST = ".facepipe-files"
_TABLE = """
CREATE TABLE IF NOT EXISTS file (
    batch TEXT NOT NULL,         -- whose it is: the results that are written with it, as seen from the folder
    photo BLOB NOT NULL,         -- as the bytes of a file name
    name TEXT NOT NULL,          -- of the file, in the folder
    key TEXT NOT NULL,           -- what it shows
    what TEXT NOT NULL,          -- what lay there when it had been made; empty: it was begun
    PRIMARY KEY (batch, photo, name)
) WITHOUT ROWID"""
#: Photos in work at a time.
_CHUNK = 16

#: What became of a photo: it is in the results; it is not, but still there; it is gone; or its folder is gone as well, perhaps a
#: disk that is not mounted.
Fate = Literal["listed", "left", "gone", "away"]


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """A photo of which outputs are made. content: SHA-256 of its bytes.

    path: the file, None for a member of an archive. load: returns its bytes, raises InputError; streamed: only until the next
    photo is drawn, and only in that thread. max_side: it is decoded no larger than this.
    """

    name: str
    content: str
    record: Record
    path: Path | None
    load: Callable[[], bytes]
    streamed: bool = False
    max_side: int | None = None


class Output:
    """Something that is made of photos after they are decided."""

    def plan(self, photo: Decided) -> list[str]:
        """Take away what should not be there of a photo; return the names of what is to be made."""
        raise NotImplementedError

    def needs_bytes(self, photo: Decided) -> bool:
        """Say whether `make` needs the photo's bytes."""
        return True

    def make(self, photo: Decided, names: Sequence[str], pixels: Pixels) -> None:
        """Make what was planned, on any thread."""
        raise NotImplementedError

    def note(self, made: Sequence[tuple[Decided, Sequence[str]]]) -> None:
        """Note for good what was planned and, where it is in `made`, made."""

    def tidy(self, fate: Callable[[str], Fate]) -> None:
        """Take away what was made of photos that are not in the results any more."""


class Pixels:
    """A photo's bytes, none of a video, and its pixels, decoded when they are first asked for."""

    def __init__(self, photo: Decided, data: bytes) -> None:
        self.data = data
        self._photo = photo
        self._image: Image | None = None

    def of(self, number: int) -> Image:
        """Return the pixels that a face was found in: the photo, or the best frame of its track."""
        photo, track = self._photo, track_of(self._photo.record, number)
        if track is None or photo.path is None:
            return self.image
        from facepipe.embed.clips import frame_at

        return frame_at(photo.path, photo.name, track["best_frame"], max_side=photo.max_side)

    @property
    def image(self) -> Image:
        """The photo as the scan saw it."""
        if self._image is None:
            self._image = read_image_bytes(self.data, self._photo.name, max_side=self._photo.max_side)
        return self._image


def synchronise(
    photos: Iterable[Decided],
    outputs: Sequence[Output],
    fate: Callable[[str], Fate],
    workers: int = 1,
    show: Callable[[int], object] = lambda done: None,
) -> list[str]:
    """Bring outputs up to date with all photos of the results; return the names of photos that are not what the results say.

    show: is given the number of photos that are done. Errors: OutputError and UsageError of what cannot be written.
    """
    stale: list[str] = []
    work: list[tuple[Decided, list[tuple[Output, list[str]]], bytes | None]] = []

    def flush() -> None:
        """Make what is planned, and note what was made."""
        for output in outputs:
            output.note([])
        good = list(pool.map(lambda task: _make(*task), work))
        for output in outputs:
            output.note(
                [
                    (photo, names)
                    for (photo, jobs, _), made in zip(work, good, strict=True)
                    for planned, names in jobs
                    if made and planned is output
                ]
            )
        stale.extend(photo.name for (photo, _, _), made in zip(work, good, strict=True) if not made)
        work.clear()

    with ThreadPoolExecutor(workers, "facepipe") as pool:
        for number, photo in enumerate(photos, 1):
            jobs = [(output, names) for output in outputs if (names := output.plan(photo))]
            if jobs:
                try:
                    data = photo.load() if photo.streamed and _needs_bytes(photo, jobs) else None
                    work.append((photo, jobs, data))
                except InputError:
                    stale.append(photo.name)
            if len(work) >= _CHUNK:
                flush()
                show(number)
        flush()
    for output in outputs:
        output.tidy(fate)
    return stale


def _needs_bytes(photo: Decided, jobs: Sequence[tuple[Output, list[str]]]) -> bool:
    return any(output.needs_bytes(photo) for output, _ in jobs)


def _make(photo: Decided, jobs: Sequence[tuple[Output, list[str]]], data: bytes | None) -> bool:
    """Make what is asked for of one photo; False when it is not what the results say any more."""
    try:
        if data is None and _needs_bytes(photo, jobs):
            if "tracks" in photo.record and photo.path is not None:
                if file_hash(photo.path) != photo.content:
                    return False
            else:
                data = photo.load()
        if data is not None and content_hash(data) != photo.content:
            return False
        if data is None and photo.path is not None and not is_file(photo.path):
            return False
        pixels = Pixels(photo, data or b"")
        for output, names in jobs:
            output.make(photo, names, pixels)
    except InputError:
        return False
    return True


def digest(*values: object) -> str:
    """Return a short name for what a file shows."""
    return hashlib.sha256(repr(values).encode("utf-8", "backslashreplace")).hexdigest()[:32]


class Folder(Output):
    """A folder of files that are made of photos; each kind of it says what should be there, and makes it.

    exact: `shows` tells all that a file shows, so what a killed run made is not made again.
    """

    exact = False

    def __init__(self, folder: str | os.PathLike[str], batch: str | os.PathLike[str] = "") -> None:
        """batch: the results that are written with it; other batches may write to the same folder. Errors: OutputError."""
        self.folder = Path(folder)
        self._batch = readable(os.path.relpath(os.path.realpath(batch), os.path.realpath(folder)))
        with self._as_output_error():
            make_private_file(self.folder / _LIST)
            self._db = sqlite3.connect(self.folder / _LIST, timeout=30.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            # What is deleted is overwritten: a file's name may hold that of somebody who was erased.
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.execute(_TABLE)
            self._db.execute("CREATE INDEX IF NOT EXISTS file_name ON file (name)")

    def close(self) -> None:
        """Close the list."""
        with contextlib.suppress(sqlite3.Error):  # another batch reads it: that one's close empties the WAL
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    # ---- what each kind says ----

    def wanted(self, photo: Decided, ours: Mapping[str, str]) -> dict[str, str]:
        """Return the files that should be there of a photo, and what each shows. ours: those that are there."""
        raise NotImplementedError

    def shows(self, place: Path, key: str) -> bool:
        """Say whether a file that was begun, and not noted as made, was written by facepipe."""
        raise NotImplementedError

    def stays(self, key: str) -> bool:
        """Say whether a file stays when its photo is gone."""
        return False

    # ---- what all have in common ----

    def plan(self, photo: Decided) -> list[str]:
        """See `Output.plan`."""
        with self._as_output_error():
            listed = self._listed(photo.name)
            ours = {name: key for name, (key, what) in listed.items() if self._is_ours(name, key, what)}
            self._unlist(photo.name, listed.keys() - ours.keys())
            wanted = self.wanted(photo, ours)
            for name in ours.keys() - wanted.keys():
                self._remove(name)
            self._unlist(photo.name, ours.keys() - wanted.keys())
            todo = []
            for name, key in wanted.items():
                if ours.get(name) != key or not (listed[name][1] or self.exact):
                    todo.append(name)
                    self._list(photo.name, [(name, key, "")])
                elif not listed[name][1]:
                    self._list(photo.name, [(name, key, _what(self.folder / name, key))])
            return todo

    def note(self, made: Sequence[tuple[Decided, Sequence[str]]]) -> None:
        """See `Output.note`."""
        with self._as_output_error():
            for photo, names in made:
                keys = self._listed(photo.name)
                self._list(
                    photo.name, ((name, keys[name][0], _what(self.folder / name, keys[name][0])) for name in names)
                )
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def tidy(self, fate: Callable[[str], Fate]) -> None:
        """See `Output.tidy`."""
        with self._as_output_error():
            query = "SELECT DISTINCT photo FROM file WHERE batch = ?"
            for (photo,) in self._db.execute(query, (self._batch,)).fetchall():
                name = os.fsdecode(photo)
                what_became = fate(name)
                if what_became in ("listed", "away"):
                    continue
                for place, (key, what) in self._listed(name).items():
                    if what_became == "gone" and self.stays(key):
                        continue
                    if self._is_ours(place, key, what):
                        self._remove(place)
                    self._unlist(name, [place])
            self.note([])

    def taken(self, name: str) -> bool:
        """Say whether a file of this name is there, or is to be made."""
        found = self._db.execute("SELECT 1 FROM file WHERE name = ?", (name,)).fetchone()
        return found is not None or os.path.lexists(self.folder / name)

    def is_listed(self, name: str, key: str) -> bool:
        """Say whether a file of this name is listed and shows this."""
        return self._db.execute("SELECT 1 FROM file WHERE name = ? AND key = ?", (name, key)).fetchone() is not None

    def _is_ours(self, name: str, key: str, what: str) -> bool:
        place = self.folder / name
        if not what:
            return os.path.lexists(place) and self.shows(place, key)
        return _what(place, key) == what

    def _remove(self, name: str) -> None:
        """Remove a file, and its folder when nothing is left in it."""
        place = self.folder / name
        place.unlink()
        if place.parent != self.folder and not any(place.parent.iterdir()):
            place.parent.rmdir()

    def _listed(self, photo: str) -> dict[str, tuple[str, str]]:
        query = "SELECT name, key, what FROM file WHERE batch = ? AND photo = ?"
        rows = self._db.execute(query, (self._batch, os.fsencode(photo)))
        return {name: (key, what) for name, key, what in rows if _is_inside(self.folder, name)}

    def _list(self, photo: str, files: Iterable[tuple[str, str, str]]) -> None:
        rows = [(self._batch, os.fsencode(photo), *file) for file in files]
        if rows:
            self._begin()
            self._db.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", rows)

    def _unlist(self, photo: str, names: Iterable[str]) -> None:
        rows = [(self._batch, os.fsencode(photo), name) for name in names]
        if rows:
            self._begin()
            self._db.executemany("DELETE FROM file WHERE batch = ? AND photo = ? AND name = ?", rows)

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def _as_output_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = printable(os.fsdecode(error.filename) if error.filename else self.folder)
            raise OutputError(
                f"{where}: cannot be written ({error.strerror}); check permissions, or choose another folder"
            ) from error
        except sqlite3.Error as error:
            raise OutputError(
                f"{printable(self.folder / _LIST)}: cannot be used ({printable(str(error))}); it lists what a batch wrote here: "
                "check permissions and room; if it is damaged, delete the folder"
            ) from error


def _is_inside(folder: Path, name: str) -> bool:
    """Say whether a name in a list, which may come from somebody else, is one below the folder, and not by a link out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return False
    return Path(os.path.realpath((folder / name).parent)).is_relative_to(os.path.realpath(folder))


def _what(place: Path, key: str) -> str:
    """Say what lies at a place, so that a change is noticed; empty when nothing does. A hard link changes with its photo."""
    try:
        if place.is_symlink():
            return f"link:{readable(os.fspath(place.readlink()))}"
        info = place.stat()
    except OSError:
        return ""
    if key.startswith("hardlink:"):
        return f"inode:{info.st_dev}:{info.st_ino}"
    return f"file:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}"
