"""The folders that a batch writes: annotated copies, crops of faces, and the photos themselves by who is in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path, PurePosixPath
from typing import Literal

from facepipe.errors import OutputError
from facepipe.files.atomic import atomic_path, make_folder
from facepipe.files.guard import is_ours
from facepipe.images import IMAGE_SUFFIXES, file_hash, write_image
from facepipe.outputs.draw import crop_face, crop_names, draw_predictions, drawing
from facepipe.outputs.names import output_stem, safe_name
from facepipe.outputs.sync import Decided, Folder, Pixels, digest
from facepipe.outputs.table import maybe
from facepipe.records import Record, readable
from facepipe.text import printable

How = Literal["link", "hardlink", "copy"]


class _Pictures(Folder):
    """What is drawn: every file carries facepipe's mark."""

    def shows(self, place: Path, key: str) -> bool:
        """See `Folder.shows`."""
        return place.is_file() and is_ours(place)


class Annotated(_Pictures):
    """Copies of the photos with frames and names, and of a video the best frame of each track; what has no face is left out."""

    def wanted(self, photo: Decided, ours: Mapping[str, str]) -> dict[str, str]:
        """See `Folder.wanted`."""
        if not photo.record["faces"]:
            return {}
        return {
            name: digest(photo.content, photo.max_side, [astuple(mark) for mark in drawing(record)])
            for name, record in _shots(photo).items()
        }

    def make(self, photo: Decided, names: Sequence[str], pixels: Pixels) -> None:
        """See `Output.make`."""
        for number, (name, record) in enumerate(_shots(photo).items()):
            if name in names:
                write_image(self.folder / name, draw_predictions(pixels.of(number), record))


def _shots(photo: Decided) -> dict[str, Record]:
    """Return the pictures that show the faces of a photo, each with a record of those in it."""
    stem, record = output_stem(photo.name), photo.record
    if "tracks" not in record:
        return {f"{stem}.jpg": record}
    return {f"{stem}-{place:02d}.jpg": {**record, "faces": [face]} for place, face in enumerate(record["faces"], 1)}


class Crops(_Pictures):
    """Each face as a picture. The name holds the answer."""

    def wanted(self, photo: Decided, ours: Mapping[str, str]) -> dict[str, str]:
        """See `Folder.wanted`."""
        faces = zip(crop_names(photo.name, photo.record), photo.record["faces"], strict=True)
        return {name: digest(photo.content, photo.max_side, face["box"]) for name, face in faces}

    def make(self, photo: Decided, names: Sequence[str], pixels: Pixels) -> None:
        """See `Output.make`."""
        faces = zip(crop_names(photo.name, photo.record), photo.record["faces"], strict=True)
        for number, (name, face) in enumerate(faces):
            if name in names:
                write_image(self.folder / name, crop_face(pixels.of(number), face))


def folders_of(record: Record) -> list[PurePosixPath]:
    """Return the folders, relative to the sorted one, that a photo belongs in; none for a photo that failed."""
    if record["error"] is not None:
        return []
    if not record["faces"]:
        return [PurePosixPath("no-face")]
    people = dict.fromkeys(face["person"] for face in record["faces"] if face["person"] is not None)
    likely = dict.fromkeys(person for face in record["faces"] if (person := maybe(face)) is not None)
    statuses = {face["status"] for face in record["faces"]} - {"known"}
    return [
        *(PurePosixPath("people", safe_name(person)) for person in people),
        *(PurePosixPath("maybe", safe_name(person)) for person in likely),
        *(PurePosixPath(status) for status in sorted(statuses)),
    ]


class Sorted(Folder):
    """Photos sorted into folders by who is in them.

        DIR/people/NAME/…    DIR/maybe/NAME/…    DIR/unknown/…    DIR/ambiguous/…    DIR/no-face/…

    A photo with Ada and a stranger is in `people/Ada` and in `unknown`, and in `maybe/Bob` where that is probably Bob.
    People have a folder of their own, so that somebody
    who is called "unknown" is not mistaken for nobody. Photos of the same name are numbered. A link to a photo that was deleted
    is taken away; a copy and a hard link stay, they may be the last. Photos that failed are in no folder.
    """

    exact = True

    def __init__(self, folder: str | os.PathLike[str], batch: str | os.PathLike[str] = "", how: How = "link") -> None:
        """how: `link` makes symbolic links, `hardlink` second names for the same files (same disk only), `copy` copies.

        Members of archives are copied, whatever it says.
        """
        super().__init__(folder, batch)
        self._how = how

    def needs_bytes(self, photo: Decided) -> bool:
        """See `Output.needs_bytes`."""
        return photo.path is None

    def wanted(self, photo: Decided, ours: Mapping[str, str]) -> dict[str, str]:
        """See `Folder.wanted`."""
        key = self._key(photo)
        wanted = {}
        for folder in map(str, folders_of(photo.record)):
            place = next((name for name in ours if str(PurePosixPath(name).parent) == folder), None)
            if place is not None and ours[place] != key:
                (self.folder / place).unlink()  # a link where a copy is wanted, or of other bytes
            place = place or self._free(folder, photo, key)
            if place is not None:
                wanted[place] = key
        return wanted

    def _key(self, photo: Decided) -> str:
        how = "copy" if photo.path is None else self._how
        return f"{how}:{readable(os.path.realpath(photo.path)) if photo.path and how == 'link' else photo.content}"

    def _free(self, folder: str, photo: Decided, key: str) -> str | None:
        """Return a name for a photo in a folder that nothing has; None when the photo lies there already."""
        path = PurePosixPath(photo.name)
        # A name whose bytes are no UTF-8 cannot be listed.
        as_it_is = photo.path is not None and readable(path.name) == path.name
        suffix = path.suffix if as_it_is or path.suffix.lower() in IMAGE_SUFFIXES else ""
        stem = path.stem if as_it_is else safe_name(path.stem)
        number = 1
        while self.taken(name := f"{folder}/{stem}{suffix}" if number == 1 else f"{folder}/{stem}-{number}{suffix}"):
            place = self.folder / name
            # Another photo with the same bytes may be listed for it and not be made yet.
            if self.is_listed(name, key) or (os.path.lexists(place) and self.shows(place, key)):
                return None
            number += 1
        return name

    def shows(self, place: Path, key: str) -> bool:
        """See `Folder.shows`."""
        how, _, what = key.partition(":")
        if how == "link" or place.is_symlink():
            return how == "link" and place.is_symlink() and readable(os.path.realpath(place)) == what
        return place.is_file() and file_hash(place) == what

    def stays(self, key: str) -> bool:
        """See `Folder.stays`."""
        return not key.startswith("link:")

    def make(self, photo: Decided, names: Sequence[str], pixels: Pixels) -> None:
        """See `Output.make`."""
        for name in names:
            place = self.folder / name
            if photo.path is None or self._how == "copy":
                with atomic_path(place) as temporary:
                    if photo.path is None:
                        temporary.write_bytes(pixels.data)
                    else:
                        shutil.copyfile(photo.path, temporary)
                continue
            try:
                make_folder(place.parent)
                if self._how == "link":
                    place.symlink_to(photo.path.resolve())
                else:
                    place.hardlink_to(photo.path.resolve())
            except OSError as error:
                raise OutputError(
                    f"{printable(place)}: cannot be linked ({error.strerror}); sort by copies instead"
                ) from error
