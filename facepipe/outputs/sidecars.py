"""Face regions beside the photos: photo.jpg.xmp says who is where in photo.jpg, for digiKam, Lightroom and other programs.

What should be in a sidecar is compared with what is in it, so a second run writes nothing. Only people who are known are written,
and those whom the user named, where a batch has groups.
What others wrote stays (see `facepipe.regions.merge`); a sidecar that held nothing else goes when nobody is named any more.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from facepipe.errors import FacepipeError, InputError, OutputError
from facepipe.files.atomic import atomic_file, is_temporary, remove_file
from facepipe.outputs.sync import Decided, Fate, Output, Pixels
from facepipe.records import Record, to_record
from facepipe.regions.embedded import frame_of
from facepipe.regions.geometry import Frame
from facepipe.regions.merge import EMPTY, Named, is_written, merged
from facepipe.regions.tags import Tags, read_sidecar, read_tags, sidecar_of
from facepipe.regions.xmp import XmpError
from facepipe.text import printable
from facepipe.types import Failed, Recognized

#: Seconds after which an unfinished file is one that a killed run left: a sidecar is written in far less.
_STRAY = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """A sidecar that is not as it should be. before, after: its bytes; None: it is not there, it should not be there."""

    place: str
    before: bytes | None
    after: bytes | None

    def make(self) -> None:
        """Write it, whole or not at all. Errors: OutputError for what is not to be written over; InputError."""
        name = printable(self.place)
        if os.path.islink(self.place):  # noqa: PTH114
            raise OutputError(f"{name}: is a link, and facepipe does not write through it; it is left as it is")
        if self.before is not None and not os.access(self.place, os.W_OK):
            raise OutputError(f"{name}: is write-protected; it is left as it is")
        if _read(self.place) != self.before:
            raise OutputError(f"{name}: was changed by another program meanwhile; run it again")
        if self.after is None:
            remove_file(self.place)
            return
        with atomic_file(self.place) as file:
            file.write(self.after)


def change_for(photo: str | os.PathLike[str], record: Record | None) -> Change | None:
    """Return what is to be changed in a photo's sidecar, None when nothing is.

    record: the photo's; None takes away what facepipe wrote, and that of a photo that failed, which is no answer, leaves it.
    Regions are places in a picture: a video has none.
    Errors: InputError, ImageError, OutputError, each a line that names the file. A sidecar that cannot be read is left as it is.
    """
    place, faces = sidecar_of(photo), named_faces(record)
    if record is not None and (record["error"] is not None or "tracks" in record):
        return None
    if not (faces or os.path.lexists(place)):
        return None
    try:
        before = _read(place)
        if not faces and not is_written(before or EMPTY):
            return None
        if record is None:
            after = merged(before or EMPTY, [], None)
        else:
            tags = read_tags(photo)
            elsewhere = [region for region in tags.regions if region.file != place]
            after = merged(before or EMPTY, faces, _frame(tags, record) if faces else None, elsewhere)
    except (InputError, XmpError) as error:
        if not faces:  # nothing is to be said in it, whatever it is
            return None
        if isinstance(error, InputError):
            raise
        raise OutputError(f"{printable(place)}: {error}; it is left as it is") from error
    if after == (before or EMPTY):
        return None
    return Change(place, before, None if after == EMPTY else after)


def named_faces(record: Record | None) -> list[Named]:
    """Return the known people of a record. Errors: InputError when it is no record."""
    try:
        if record is None or record["error"] is not None:
            return []
        width, height = float(record["width"]), float(record["height"])
        found = []
        for face in record["faces"]:
            if face["person"] is not None and face["status"] == "known":
                x1, y1, x2, y2 = (float(value) for value in face["box"])
                found.append(Named(str(face["person"]), (x1 / width, y1 / height, x2 / width, y2 / height)))
        return found
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"not a record of facepipe's ({type(error).__name__}: {printable(str(error))})") from error


def _frame(tags: Tags, record: Record) -> Frame:
    frame = tags.frame if tags.regions else frame_of(tags.path)
    if frame.displayed != (record["width"], record["height"]):
        raise InputError(
            f"{printable(tags.path)}: has {frame.displayed[0]}x{frame.displayed[1]} pixels, in the results "
            f"{printable(str(record['width']))}x{printable(str(record['height']))}; run the batch again"
        )
    return frame


def _read(place: str) -> bytes | None:
    """Return a sidecar's bytes, None when there is none. Errors: InputError."""
    return read_sidecar(place) if os.path.lexists(place) else None


def write_regions(photo: Recognized | Failed) -> bool:
    """Write who is where into the sidecar beside a photo, photo.jpg.xmp; return whether anything changed.

    Only people who are known are written. What other programs wrote there stays, and what facepipe wrote before goes; the photo
    itself is never written. Errors: InputError, ImageError, OutputError.
    """
    change = change_for(photo.path, to_record(photo))
    if change is not None:
        change.make()
    return change is not None


class Sidecars(Output):
    """The sidecars of a batch. A photo in an archive has none, nor has a video."""

    def __init__(
        self, gone: Callable[[], Iterable[str]] = tuple, told: Callable[[str, Record], Record] | None = None
    ) -> None:
        """gone: photos of earlier runs that are not there any more. told: makes of a photo's SHA-256 and record the one to write."""
        self.written = 0
        self.problems: list[str] = []
        self._gone, self._told = gone, told
        self._changes: dict[str, Change] = {}
        self._swept: set[str] = set()

    def plan(self, photo: Decided) -> list[str]:
        """See `Output.plan`."""
        if photo.path is None:
            return []
        record = photo.record if self._told is None else self._told(photo.content, photo.record)
        change = self._planned(photo.path, record)
        if change is None:
            return []
        self._changes[photo.name] = change
        return [change.place]

    def needs_bytes(self, photo: Decided) -> bool:
        """See `Output.needs_bytes`."""
        return False

    def make(self, photo: Decided, names: Sequence[str], pixels: Pixels) -> None:
        """See `Output.make`."""
        self._make(self._changes.pop(photo.name))

    def note(self, made: Sequence[tuple[Decided, Sequence[str]]]) -> None:
        """See `Output.note`: the sidecars themselves tell."""

    def tidy(self, fate: Callable[[str], Fate]) -> None:
        """See `Output.tidy`."""
        for name in self._gone():
            if fate(name) == "gone" and (change := self._planned(Path(name), None)) is not None:
                self._make(change)

    def _planned(self, photo: Path, record: Record | None) -> Change | None:
        try:
            change = change_for(photo, record)
        except FacepipeError as error:
            self.problems.append(str(error))
            return None
        if change is not None:
            self._sweep(os.path.dirname(change.place) or ".")  # noqa: PTH120
        return change

    def _make(self, change: Change) -> None:
        try:
            change.make()
            self.written += 1
        except FacepipeError as error:
            self.problems.append(str(error))

    def _sweep(self, folder: str) -> None:
        """Remove the unfinished files that a killed run left in a folder."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if is_temporary(entry.name) and entry.stat(follow_symlinks=False).st_mtime < time.time() - _STRAY:
                    remove_file(entry.path)
